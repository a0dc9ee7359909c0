"""torch.ao beside mlgpu.quantization: the names of its base classes."""

from mlgpu.quantization import FakeQuantize, MinMaxObserver

FakeQuantizeBase = FakeQuantize
ObserverBase = MinMaxObserver
