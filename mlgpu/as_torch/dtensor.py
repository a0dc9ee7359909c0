"""torch.distributed.tensor: tensors in pieces on several devices, of which no tensor is one."""

from mlgpu import Tensor


class DTensor(Tensor):
    """What a tensor in pieces would be; programs ask whether a tensor is one."""
