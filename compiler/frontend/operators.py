"""The ONNX operators that can be compiled: one table, put together from one file a subject.

An operator function takes the builder and a :class:`~hwcompile.compiler.frontend.call.Call` and
returns the keys of the outputs. An operator absent from ``OPERATORS`` is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping

from hwcompile.compiler.frontend.attention_operators import ATTENTION_OPERATORS
from hwcompile.compiler.frontend.call import Operator
from hwcompile.compiler.frontend.contrib_operators import CONTRIB_OPERATORS
from hwcompile.compiler.frontend.elementwise_operators import ELEMENTWISE_OPERATORS
from hwcompile.compiler.frontend.norm_operators import NORM_OPERATORS
from hwcompile.compiler.frontend.product_operators import PRODUCT_OPERATORS
from hwcompile.compiler.frontend.qonnx_operators import QONNX_OPERATORS
from hwcompile.compiler.frontend.quantised_operators import QUANTISED_OPERATORS
from hwcompile.compiler.frontend.recurrent_operators import RECURRENT_OPERATORS
from hwcompile.compiler.frontend.shape_operators import SHAPE_OPERATORS
from hwcompile.compiler.frontend.window_operators import WINDOW_OPERATORS

OPERATORS: Mapping[tuple[str, str], Operator] = {
    **ELEMENTWISE_OPERATORS,
    **SHAPE_OPERATORS,
    **PRODUCT_OPERATORS,
    **ATTENTION_OPERATORS,
    **NORM_OPERATORS,
    **WINDOW_OPERATORS,
    **QUANTISED_OPERATORS,
    **RECURRENT_OPERATORS,
    **CONTRIB_OPERATORS,
    **QONNX_OPERATORS,
}
