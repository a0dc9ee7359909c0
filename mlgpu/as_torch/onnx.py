"""torch.onnx: whether a program is being exported."""


def is_in_onnx_export() -> bool:
    """False."""
    return False
