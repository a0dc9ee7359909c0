"""Which modules answer for which module of PyTorch's: the one table.

The first that has a name answers.  A leading dot means a file of this package, which holds what
only programs for PyTorch need; everything else is mlgpu itself, or Python's standard library.
"""

from __future__ import annotations

_OWN = {
    "": ".toplevel mlgpu",
    "_C": ".compiled",
    "_dynamo": ".compiler",
    "_dynamo._trace_wrapped_higher_order_op": ".compiler",
    "accelerator": ".accelerator",
    "amp": "mlgpu.amp",
    "amp.autocast_mode": "mlgpu.amp",
    "amp.grad_scaler": "mlgpu.amp",
    "autograd": ".autograd mlgpu.autograd",
    "autograd.function": ".autograd mlgpu.autograd.function",
    "autograd.functional": "mlgpu.autograd.functional",
    "autograd.grad_mode": "mlgpu.autograd",
    "autograd.graph": ".autograd mlgpu.autograd",
    "autograd.profiler": "mlgpu.profiler",
    "autograd.variable": ".autograd",
    "backends": ".backends mlgpu.backends",
    "backends.cuda": ".backends_cuda mlgpu.backends.cuda",
    "backends.cudnn": ".backends_cudnn",
    "backends.mps": ".absent",
    "compiler": ".compiler",
    "cuda": ".cuda mlgpu.cuda",
    "cuda.amp": ".cuda_amp",
    "cuda.amp.autocast_mode": ".cuda_amp",
    "cuda.amp.grad_scaler": ".cuda_amp",
    "cuda.random": ".cuda",
    "__config__": ".config",
    "distributed": ".distributed",
    "distributed.nn": ".distributed",
    "distributions": "mlgpu.distributions",
    "fft": "mlgpu.fft",
    "func": ".func",
    "functional": "mlgpu",
    "_vmap_internals": ".func",
    "fx": ".fx",
    "hub": ".hub",
    "jit": ".jit",
    "jit.annotations": "typing",
    "linalg": "mlgpu.linalg",
    "mps": ".absent",
    "multiprocessing": ".multiprocessing multiprocessing",
    "nn": ".nn mlgpu.nn",
    "nn.attention": ".attention",
    "nn.functional": ".nn_functional mlgpu.nn.functional",
    "nn.init": ".nn_init mlgpu.nn.init",
    "nn.modules": ".nn mlgpu.nn",
    "nn.modules.utils": ".nn_utils",
    "nn.parallel": ".nn",
    "nn.parameter": ".nn mlgpu.nn.parameter",
    "nn.utils": "mlgpu.nn.utils",
    "nn.utils.parametrizations": "mlgpu.nn.utils.parametrizations",
    "nn.utils.parametrize": "mlgpu.nn.utils.parametrize",
    "nn.utils.prune": "mlgpu.nn.utils.prune",
    "nn.utils.rnn": "mlgpu.nn.utils.rnn",
    "nn.utils.stateless": ".func",
    "optim": "mlgpu.optim",
    "optim.lr_scheduler": "mlgpu.optim.lr_scheduler",
    "optim.optimizer": ".optimizer mlgpu.optim",
    "optim.swa_utils": "mlgpu.optim.swa_utils",
    "overrides": ".overrides",
    "profiler": "mlgpu.profiler",
    "random": "mlgpu.random",
    "serialization": ".serialization",
    "signal": "mlgpu.signal",
    "signal.windows": "mlgpu.signal.windows",
    "special": "mlgpu.special",
    "testing": "mlgpu.testing",
    "types": ".types",
    "utils": ".utils mlgpu.utils",
    "utils.checkpoint": ".checkpoint mlgpu.utils.checkpoint",
    "utils._pytree": ".pytree",
    "utils.data": ".utils_data mlgpu.data",
    "utils.dlpack": ".dlpack",
    "utils.hooks": ".utils",
    "utils.model_zoo": ".hub",
    "utils.tensorboard": ".tensorboard",
    "version": ".version",
    "torch": ".toplevel mlgpu",  # torch.torch, which PyTorch has by accident and programs use
    "torch_version": ".version",
    "xpu": ".absent",
}

# Modules whose public names PyTorch also shows in the package above: a layer is found in
# torch.nn.modules.conv as in torch.nn.
_PARTS = {
    "distributions": """bernoulli beta categorical cauchy constraints dirichlet distribution
        exponential gamma gumbel independent kl laplace log_normal multivariate_normal normal
        one_hot_categorical uniform utils""",
    "nn.modules": """activation batchnorm container conv distance dropout flatten fold
        instancenorm linear loss module normalization padding pixelshuffle pooling rnn sparse
        transformer upsampling""",
    "nn.utils": "clip_grad convert_parameters fusion spectral_norm weight_norm",
    "optim": """_multi_tensor adadelta adagrad adam adamax adamw asgd lbfgs nadam radam
        rmsprop rprop sgd""",
    "utils.data": "_utils dataloader dataset distributed sampler",
}
# What answers for torchvision, whose own operators need PyTorch's compiled code.
_VISION = {
    "torchvision": ".vision",
    "torchvision.ops": ".vision_ops",
    "torchvision.ops.misc": ".vision_ops",
    "torchvision.transforms": ".vision_transforms",
    "torchvision.transforms.functional": ".vision_functional",
    "torchvision.transforms.transforms": ".vision_transforms",
    "torchvision.utils": ".vision_utils",
    "torchvision.datasets": ".vision_datasets",
    "torchvision.models": ".vision_models",
    "torchvision.models.resnet": ".vision_models",
}

MODULES: dict[str, tuple[str, ...]] = {
    **{f"torch.{name}".rstrip("."): tuple(homes.split()) for name, homes in _OWN.items()},
    **{name: tuple(homes.split()) for name, homes in _VISION.items()}}
for _package, _names in _PARTS.items():
    for _name in _names.split():
        MODULES[f"torch.{_package}.{_name}"] = MODULES[f"torch.{_package}"]

# What stands nearby, for the names that programs ask for most and mlgpu does not have.
NEARBY = {
    "export": "mlgpu.cuda.graph, which makes a step one launch",
    "onnx": "mlgpu.save, which writes safetensors",
    "sparse": "index_add and scatter_reduce on dense tensors",
}
