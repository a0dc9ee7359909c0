"""torchvision: transforms of images, and grids of them; its models and data sets are not here."""

__version__ = "0.28.0+mlgpu"
