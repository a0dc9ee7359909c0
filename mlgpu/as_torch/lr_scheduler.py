"""torch.optim.lr_scheduler beside mlgpu's: the old name of the class that schedules derive from."""

from mlgpu.optim.lr_scheduler import LRScheduler

_LRScheduler = LRScheduler
