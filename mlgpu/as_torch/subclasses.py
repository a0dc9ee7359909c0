"""torch._subclasses: the tensors that tracers see, which no tensor here is."""

from mlgpu import Tensor


class FakeTensor(Tensor):
    """What a tracer would see in a tensor's place; programs ask whether a tensor is one."""


def is_fake(x: object) -> bool:
    """False."""
    return False


class FakeTensorMode:
    """What makes fake tensors; programs name it in annotations."""
