"""``python -m hwcompile``."""

import sys

from hwcompile.compiler.cli import main

sys.exit(main())
