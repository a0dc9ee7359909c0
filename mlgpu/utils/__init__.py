"""PyTorch's module paths for what mlgpu keeps elsewhere: utils.data is mlgpu.data."""
