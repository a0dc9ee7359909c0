"""torch.autograd.function beside mlgpu's: the names that annotations use."""

from mlgpu.autograd.function import FunctionContext

FunctionCtx = BackwardCFunction = FunctionContext
