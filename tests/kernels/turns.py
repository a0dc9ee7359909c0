"""A fixed sample of cases that take the same path in several dtypes.

MLGPU_KERNELS_ALL=1 runs all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

ALL = os.environ.get("MLGPU_KERNELS_ALL", "") not in ("", "0")


def in_turns(cases: Sequence[Any], dtypes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Each case in every second dtype, the next case in the others."""
    return [(dtype, *(case if isinstance(case, tuple) else (case,)))
            for i, case in enumerate(cases) for j, dtype in enumerate(dtypes)
            if ALL or (i + j) % 2 == 0]
