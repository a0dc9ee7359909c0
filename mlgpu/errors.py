"""The exception types of mlgpu: every error the library raises on purpose is one of these.

Each also derives from the built-in type that PyTorch raises in the same place, so that code which
catches `RuntimeError`, `ValueError` or `TypeError` around PyTorch calls works unchanged.  Positions
that are out of range stay Python's `IndexError`, unknown names Python's `KeyError`.
"""

from __future__ import annotations


class MlgpuError(RuntimeError):
    """Anything mlgpu refuses to do; the message names the operation, the rule and the way out."""


class ShapeError(MlgpuError, ValueError):
    """Shapes, dimensions or sizes that do not fit the operation."""


class DTypeError(MlgpuError, TypeError):
    """A dtype that the operation does not take or cannot produce."""


class PositionError(MlgpuError, IndexError):
    """An element of an index tensor that is out of range: PyTorch's IndexError or RuntimeError."""


class DeviceError(MlgpuError):
    """A device that does not exist, or operands that live on different devices."""


class OutOfMemoryError(MlgpuError, MemoryError):
    """An allocation that would exceed a limit, a budget or the device's memory."""


class ReleasedError(MlgpuError):
    """Use of a tensor whose memory was given back with `release()`."""


class GraphError(MlgpuError):
    """Misuse of the autograd graph: in-place on a saved value, backward twice, no graph at all."""


class DerivativeError(MlgpuError):
    """A derivative was asked of an operation that has none."""


class CaptureError(MlgpuError):
    """Something that cannot be part of a captured graph was called during capture."""


class KernelError(MlgpuError):
    """A CUDA kernel that does not compile, or arguments that do not fit its signature."""


class FormatError(MlgpuError, ValueError):
    """A file or byte stream that is not what it claims to be."""


class MissingDataError(MlgpuError, FileNotFoundError):
    """A file of a data set that is not there or cannot be fetched; it says where to put it."""


class MissingExtraError(MlgpuError, ImportError):
    """A feature needs an optional dependency; the message names the `pip install` to run."""


class LinAlgError(MlgpuError):
    """A matrix for which the computation has no result: singular, not positive definite, NaN."""


class GradcheckError(MlgpuError):
    """Backward and finite differences disagree, found by `mlgpu.testing.gradcheck`."""


class MissingNameError(MlgpuError, AttributeError):
    """A name of PyTorch's that mlgpu does not have, asked of `mlgpu.as_torch`."""


class MissingModuleError(MlgpuError, ModuleNotFoundError):
    """A module of PyTorch's that mlgpu does not have, imported under `mlgpu.as_torch`."""


class NonFiniteError(MlgpuError, ArithmeticError):
    """A loss or gradient in training that is infinite or NaN."""
