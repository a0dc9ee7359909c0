"""Which modules answer for which module of PyTorch's: the one table.

The first that has a name answers.  A leading dot means a file of this package, which holds what
only programs for PyTorch need; everything else is mlgpu itself, or Python's standard library.
"""

from __future__ import annotations

_OWN = {
    "": ".toplevel .names mlgpu",
    "_C": ".compiled",
    "_dynamo": ".compiler",
    "_dynamo._trace_wrapped_higher_order_op": ".compiler",
    "accelerator": ".accelerator",
    "ao": ".ao",
    "ao.quantization": ".ao mlgpu.quantization",
    "amp": "mlgpu.amp",
    "amp.autocast_mode": "mlgpu.amp",
    "amp.grad_scaler": "mlgpu.amp",
    "autograd": ".autograd mlgpu.autograd",
    "autograd.function": ".function .autograd mlgpu.autograd.function",
    "autograd.functional": "mlgpu.autograd.functional",
    "autograd.grad_mode": "mlgpu.autograd",
    "autograd.graph": ".autograd mlgpu.autograd",
    "autograd.profiler": ".profiler mlgpu.profiler",
    "autograd.variable": ".autograd",
    "backends": ".backends mlgpu.backends",
    "backends.cuda": ".backends_cuda mlgpu.backends.cuda",
    "backends.cudnn": ".backends_cudnn",
    "backends.mps": ".absent",
    "compiler": ".compiler",
    "cpu": ".host",
    "cuda": ".cuda mlgpu.cuda",
    "cuda.amp": ".cuda_amp",
    "cuda.amp.autocast_mode": ".cuda_amp",
    "cuda.amp.grad_scaler": ".cuda_amp",
    "cuda.random": ".cuda",
    "__config__": ".config",
    "distributed": ".distributed",
    "distributed.device_mesh": ".device_mesh",
    "distributed.distributed_c10d": ".distributed",
    "distributed.nn": ".distributed",
    "distributed.optim": ".distributed_optim",
    "distributed.rpc": ".rpc",
    "distributed.tensor": ".dtensor",
    "distributed._tensor": ".dtensor",
    "distributions": "mlgpu.distributions",
    "distributions.constraint_registry": "mlgpu.distributions.constraint_registry",
    "distributions.constraints": "mlgpu.distributions.constraints",
    "distributions.transforms": ".distributions_transforms mlgpu.distributions.transforms",
    "distributions.utils": ".distributions_utils",
    "fft": "mlgpu.fft",
    "func": ".func",
    "functional": "mlgpu",
    "_subclasses": ".subclasses",
    "_subclasses.fake_tensor": ".subclasses",
    "_tensor_str": ".tensor_str",
    "_vmap_internals": ".func",
    "futures": ".futures",
    "fx": ".fx",
    "fx.experimental": ".proxies",
    "fx.experimental.proxy_tensor": ".proxies",
    "hub": ".hub",
    "jit": ".jit",
    "jit.annotations": "typing",
    "library": ".library",
    "linalg": "mlgpu.linalg",
    "masked": "mlgpu.masked",
    "mps": ".absent",
    "multiprocessing": ".multiprocessing multiprocessing",
    "nn": ".nn mlgpu.nn",
    "nn.attention": ".attention",
    "nn.attention.flex_attention": ".flex_attention",
    "nn.functional": "mlgpu.nn.functional",
    "nn.init": ".nn_init mlgpu.nn.init",
    "nn.modules": ".nn mlgpu.nn",
    "nn.modules.module": ".nn_module .nn mlgpu.nn",
    "nn.modules.utils": ".nn_utils",
    "nn.parallel": ".nn",
    "nn.parallel.data_parallel": ".nn",
    "nn.parallel.distributed": ".nn",
    "nn.parallel.scatter_gather": ".scatter_gather",
    "nn.parameter": ".nn mlgpu.nn.parameter",
    "nn.utils": "mlgpu.nn.utils",
    "nn.utils.parametrizations": "mlgpu.nn.utils.parametrizations",
    "nn.utils.parametrize": "mlgpu.nn.utils.parametrize",
    "nn.utils.prune": "mlgpu.nn.utils.prune",
    "nn.utils.rnn": "mlgpu.nn.utils.rnn",
    "nn.utils.stateless": ".func",
    "onnx": ".onnx",
    "ops": ".ops",
    "optim": "mlgpu.optim",
    "optim.lr_scheduler": ".lr_scheduler mlgpu.optim.lr_scheduler",
    "optim.optimizer": ".optimizer mlgpu.optim",
    "optim.swa_utils": "mlgpu.optim.swa_utils",
    "overrides": ".overrides",
    "profiler": ".profiler mlgpu.profiler",
    "quantization": "mlgpu.quantization",
    "random": "mlgpu.random",
    "serialization": ".serialization",
    "signal": "mlgpu.signal",
    "signal.windows": "mlgpu.signal.windows",
    "special": "mlgpu.special",
    "testing": "mlgpu.testing",
    "types": ".types",
    "utils": ".utils mlgpu.utils",
    "utils.checkpoint": ".checkpoint mlgpu.utils.checkpoint",
    "utils._foreach_utils": ".foreach",
    "utils._pytree": ".pytree",
    "utils.data": ".utils_data mlgpu.data",
    "utils.data._utils.collate": ".collate .utils_data mlgpu.data",
    "utils.dlpack": ".dlpack",
    "utils.flop_counter": ".flop_counter",
    "utils.hooks": ".utils",
    "utils.model_zoo": ".hub",
    "utils.tensorboard": ".tensorboard",
    "version": ".version",
    "torch": ".toplevel .names mlgpu",  # torch.torch, which PyTorch has by accident
    "torch_version": ".version",
    "xpu": ".absent",
}

# Modules whose public names PyTorch also shows in the package above: a layer is found in
# torch.nn.modules.conv as in torch.nn.
_PARTS = {
    "distributions": """bernoulli beta binomial categorical cauchy chi2 continuous_bernoulli
        dirichlet distribution exp_family exponential fishersnedecor gamma geometric gumbel
        half_cauchy half_normal independent inverse_gamma kl kumaraswamy laplace log_normal
        logistic_normal lowrank_multivariate_normal mixture_same_family multinomial
        multivariate_normal negative_binomial normal one_hot_categorical pareto poisson
        relaxed_bernoulli relaxed_categorical studentT transformed_distribution uniform
        von_mises weibull lkj_cholesky wishart""",
    "nn.modules": """activation batchnorm container conv distance dropout flatten fold
        instancenorm linear loss normalization padding pixelshuffle pooling rnn sparse
        transformer upsampling""",
    "nn.utils": "clip_grad convert_parameters fusion spectral_norm weight_norm",
    "optim": """_multi_tensor adadelta adagrad adam adamax adamw asgd lbfgs nadam radam
        rmsprop rprop sgd""",
    "utils.data": "_utils _utils.worker dataloader dataset distributed sampler",
}
# What answers for torchvision, whose own operators need PyTorch's compiled code.
_VISION = {
    "torchvision": ".vision",
    "torchvision.io": ".vision_io",
    "torchvision.ops.boxes": ".vision_ops",
    "torchvision.ops": ".vision_ops",
    "torchvision.ops.misc": ".vision_ops",
    "torchvision.transforms": ".vision_transforms",
    "torchvision.transforms.functional": ".vision_functional",
    "torchvision.transforms.transforms": ".vision_transforms",
    "torchvision.transforms.v2": ".vision_transforms",
    "torchvision.transforms.v2.functional": ".vision_functional",
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
    "onnx.export": "mlgpu.save, which writes safetensors",
    "SparseAdam": "mlgpu.optim.Adam, as gradients are dense",
    "_scaled_mm": "mlgpu.quantization, whose layers multiply narrow weights",
    "jiterator": "mlgpu.fuse, which makes one kernel of an elementwise function",
    "sparse": "index_add and scatter_reduce on dense tensors",
    "sparse_coo_tensor": "index_add and scatter_reduce on dense tensors",
    "sparse_csr_tensor": "index_add and scatter_reduce on dense tensors",
}
