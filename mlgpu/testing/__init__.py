"""What tests need, under PyTorch's names: checks of derivatives, comparison, random tensors.

`gradcheck` and `gradgradcheck` are torch.autograd's, the others torch.testing's.
"""

from mlgpu.testing.closeness import assert_close
from mlgpu.testing.derivatives import gradcheck, gradgradcheck
from mlgpu.testing.samples import make_tensor

__all__ = ["assert_close", "gradcheck", "gradgradcheck", "make_tensor"]
