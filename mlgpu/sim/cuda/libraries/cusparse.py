"""cuSPARSE is not simulated: its constants and handles are there, for sparse matrices to be made
and looked at; what computes with them says what to use instead.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

from mlgpu.sim.cuda.libraries.modules import StatusError
from mlgpu.sim.cuda.libraries.refused import refusal

CONSTANTS = {
    "CUSPARSE_POINTER_MODE_HOST": 0, "CUSPARSE_POINTER_MODE_DEVICE": 1,
    "CUSPARSE_ACTION_SYMBOLIC": 0, "CUSPARSE_ACTION_NUMERIC": 1,
    "CUSPARSE_INDEX_BASE_ZERO": 0, "CUSPARSE_INDEX_BASE_ONE": 1,
    "CUSPARSE_MATRIX_TYPE_GENERAL": 0, "CUSPARSE_MATRIX_TYPE_SYMMETRIC": 1,
    "CUSPARSE_MATRIX_TYPE_HERMITIAN": 2, "CUSPARSE_MATRIX_TYPE_TRIANGULAR": 3,
    "CUSPARSE_FILL_MODE_LOWER": 0, "CUSPARSE_FILL_MODE_UPPER": 1,
    "CUSPARSE_DIAG_TYPE_NON_UNIT": 0, "CUSPARSE_DIAG_TYPE_UNIT": 1,
    "CUSPARSE_OPERATION_NON_TRANSPOSE": 0, "CUSPARSE_OPERATION_TRANSPOSE": 1,
    "CUSPARSE_OPERATION_CONJUGATE_TRANSPOSE": 2,
    "CUSPARSE_DIRECTION_ROW": 0, "CUSPARSE_DIRECTION_COLUMN": 1,
    "CUSPARSE_INDEX_16U": 1, "CUSPARSE_INDEX_32I": 2, "CUSPARSE_INDEX_64I": 3,
    "CUSPARSE_ORDER_COL": 1, "CUSPARSE_ORDER_ROW": 2,
    "CUSPARSE_SOLVE_POLICY_NO_LEVEL": 0, "CUSPARSE_SOLVE_POLICY_USE_LEVEL": 1,
    "CUSPARSE_FORMAT_CSR": 1, "CUSPARSE_FORMAT_CSC": 2, "CUSPARSE_FORMAT_COO": 3,
    "CUSPARSE_SPMAT_FILL_MODE": 0, "CUSPARSE_SPMAT_DIAG_TYPE": 1,
    "CUSPARSE_MV_ALG_DEFAULT": 0, "CUSPARSE_MM_ALG_DEFAULT": 0,
    "CUSPARSE_CSR2CSC_ALG1": 1, "CUSPARSE_CSR2CSC_ALG2": 2, "CUSPARSE_SPSM_ALG_DEFAULT": 0,
    "CUSPARSE_SPGEMM_DEFAULT": 0, "CUSPARSE_SPGEMM_ALG1": 3, "CUSPARSE_SPGEMM_ALG2": 4,
    "CUSPARSE_SPGEMM_ALG3": 5, "CUSPARSE_SPGEAM_ALG_DEFAULT": 0, "CUSPARSE_SPGEAM_ALG1": 1,
    "CUSPARSE_SPARSETODENSE_ALG_DEFAULT": 0, "CUSPARSE_DENSETOSPARSE_ALG_DEFAULT": 0,
}


class CuSparseError(StatusError):
    """An error of cuSPARSE."""

    names: ClassVar = {9: "CUSPARSE_STATUS_NOT_SUPPORTED"}
    failed = 9


def contents(version: int) -> dict[str, Any]:
    """The names of the module."""
    numbers = itertools.count(0x5BA5_0000, 0x10)

    def make(*args: int) -> int:
        return next(numbers)

    def nothing(*args: int) -> None:
        pass

    def look_up(name: str) -> Any:
        if name.startswith(("_", "CUSPARSE_")):
            raise AttributeError(f"cusparse has no attribute {name!r}")
        return refusal(f"cuSPARSE's {name}", "compute with dense arrays (for tests small ones are "
                       "enough), or with SciPy's sparse matrices on the host")

    known: dict[str, Any] = dict(CONSTANTS)
    known |= dict.fromkeys(("create", "createMatDescr"), make)
    known |= dict.fromkeys(("destroy", "destroyMatDescr", "setMatType", "setMatIndexBase",
                            "setMatFillMode", "setMatDiagType", "setPointerMode", "setStream"),
                           nothing)
    known |= {"CuSparseError": CuSparseError, "__getattr__": look_up,
              "getVersion": lambda handle: version, "get_build_version": lambda: version,
              "is_cuda_python_build": lambda: False}
    return known
