"""CUDA's errors, as CuPy raises them, with what the simulated GPU has to say.

Codes: the enumerations cudaError_t and CUresult of the CUDA Runtime and Driver API references.
"""

from __future__ import annotations

from typing import Any

from mlgpu.sim.errors import Finding

INVALID_VALUE, OUT_OF_MEMORY = 1, 2
INVALID_DEVICE, INVALID_HANDLE = 101, 400
PEER_ACCESS_ALREADY, PEER_ACCESS_NOT, HOST_REGISTERED, HOST_NOT_REGISTERED = 704, 705, 712, 713
NOT_READY, NOT_PERMITTED, NOT_SUPPORTED = 600, 800, 801
ILLEGAL_STATE = 401
NOT_FOUND, INVALID_PTX, INVALID_IMAGE, NO_BINARY = 500, 218, 200, 209
ILLEGAL_ADDRESS, MISALIGNED_ADDRESS, ASSERT, LAUNCH_FAILED = 700, 716, 710, 719
LAUNCH_RESOURCES, COOPERATIVE_TOO_LARGE, LAUNCH_TIMEOUT = 701, 720, 702
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_MERGE, CAPTURE_UNMATCHED = 900, 901, 902, 903
CAPTURE_UNJOINED, CAPTURE_ISOLATION, CAPTURE_IMPLICIT, CAPTURED_EVENT = 904, 905, 906, 907
CAPTURE_WRONG_THREAD = 908

# The driver's names and texts: CuPy asks libcuda for them, which is not there.
DRIVER = {
    1: ("CUDA_ERROR_INVALID_VALUE", "invalid argument"),
    2: ("CUDA_ERROR_OUT_OF_MEMORY", "out of memory"),
    200: ("CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"),
    201: ("CUDA_ERROR_INVALID_CONTEXT", "invalid device context"),
    209: ("CUDA_ERROR_NO_BINARY_FOR_GPU",
          "no kernel image is available for execution on the device"),
    218: ("CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"),
    301: ("CUDA_ERROR_FILE_NOT_FOUND", "file not found"),
    400: ("CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"),
    500: ("CUDA_ERROR_NOT_FOUND", "named symbol not found"),
    700: ("CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    701: ("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"),
    702: ("CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"),
    710: ("CUDA_ERROR_ASSERT", "device-side assert triggered"),
    716: ("CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"),
    719: ("CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"),
    720: ("CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE",
          "too many blocks in cooperative launch"),
    801: ("CUDA_ERROR_NOT_SUPPORTED", "operation not supported"),
    900: ("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
          "operation not permitted when stream is capturing"),
    901: ("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
          "operation failed due to a previous error during capture"),
    906: ("CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
          "operation would make the legacy stream depend on a capturing blocking stream"),
}


class CudaError(Exception):
    """A status that a call gives, before it becomes CuPy's exception."""

    def __init__(self, status: int, text: str = "", finding: Finding | None = None) -> None:
        super().__init__(status, text)
        self.status, self.text, self.finding = status, text, finding


def runtime_error(kind: Any, error: CudaError) -> Exception:
    """CuPy's CUDARuntimeError (`kind`) for a status, with the text behind CUDA's own."""
    return _told(kind(error.status), error)


def driver_error(kind: Any, error: CudaError) -> Exception:
    """CuPy's CUDADriverError (`kind`) likewise; its constructor is `name_status`."""
    return _told(kind(error.status), error)


def name_status(self: Any, status: int) -> None:
    """The constructor of CUDADriverError; CuPy's own asks libcuda, which is not there."""
    name, text = DRIVER.get(status, (f"CUresult {status}", "an error"))
    self.status = status
    RuntimeError.__init__(self, f"{name}: {text}")


def _told(result: Any, error: CudaError) -> Exception:
    if error.text:
        result.args = (f"{result.args[0]}\n{error.text}",)
    result.finding = error.finding
    return result  # type: ignore[no-any-return]


def status_of(finding: Finding) -> int:
    """The error that a GPU would give for a fault of a kernel.

    Findings that a GPU does not notice (races and the like) are LAUNCH_FAILED.
    """
    if finding.tool == "memcheck":
        return MISALIGNED_ADDRESS if finding.kind == "misaligned" else ILLEGAL_ADDRESS
    if finding.tool == "watchdog":
        return LAUNCH_TIMEOUT
    return ASSERT if finding.kind == "assert" else LAUNCH_FAILED
