"""Element types with fewer values than the dtype that holds them here: what a cast to them does."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from hwcompile.compiler.ir.tensor_graph import Array

_T = onnx.TensorProto

NARROW_FLOATS: tuple[int, ...] = (
    *(_T.BFLOAT16, _T.FLOAT8E4M3FN, _T.FLOAT8E4M3FNUZ, _T.FLOAT8E5M2, _T.FLOAT8E5M2FNUZ),
    *(_T.FLOAT8E8M0, _T.FLOAT4E2M1),
)
NARROW_TYPES: tuple[int, ...] = (*NARROW_FLOATS, _T.INT4, _T.UINT4, _T.INT2, _T.UINT2)


def round_to_type(x: Array, code: int, saturate: bool = True) -> Array:
    """Numbers rounded to the values of a narrow type, as ONNX's Cast does; float32 or int8."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(code)
    if code == onnx.TensorProto.FLOAT8E8M0:
        narrow = numpy_helper.to_float8e8m0(x, saturate, "up").astype(dtype)
    elif saturate and "float8" in dtype.name:
        narrow = numpy_helper.saturate_cast(x, dtype)
    else:
        narrow = x.astype(dtype)
    return narrow.astype(np.int8 if "int" in dtype.name else np.float32)
