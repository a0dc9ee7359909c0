"""`python -m mlgpu` is the command line."""

import sys

from mlgpu.cli import main

sys.exit(main())
