"""torch.profiler beside mlgpu.profiler: what of PyTorch's own machinery there is."""


def kineto_available() -> bool:
    """False: mlgpu profiles without PyTorch's library for it."""
    return False
