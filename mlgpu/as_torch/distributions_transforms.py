"""torch.distributions.transforms beside mlgpu's: names that packages reach for."""

from mlgpu.distributions.transforms import _Inverse

_InverseTransform = _Inverse
