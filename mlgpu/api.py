"""Where every public function and Tensor method lives: the one table that binds them.

Families are imported when one of their names is first used, so `import mlgpu` stays cheap and
what a program does not use costs it nothing.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

from mlgpu import dtypes
from mlgpu.guard import guard
from mlgpu.tensor import Tensor

# Functions of the package, by the module that has them.
FUNCTIONS: dict[str, str] = {
    "mlgpu.amp.region": """autocast get_autocast_dtype is_autocast_available is_autocast_enabled
        set_autocast_dtype""",
    "mlgpu.backends": "get_float32_matmul_precision set_float32_matmul_precision",
    "mlgpu.cpu.threads": "get_num_threads set_num_threads",
    "mlgpu.deterministic": """are_deterministic_algorithms_enabled
        is_deterministic_algorithms_warn_only_enabled use_deterministic_algorithms""",
    "mlgpu.io.checkpoint": "load save",
    "mlgpu.ops.activation": """celu celu_ hardshrink prelu relu relu_ rrelu rrelu_ selu selu_
        threshold threshold_""",
    "mlgpu.ops.addmm": "addbmm addmm addmv addr baddbmm",
    "mlgpu.ops.arrange": """diag diag_embed diagflat flip fliplr flipud repeat_interleave roll rot90
        tile tril tril_indices triu triu_indices""",
    "mlgpu.ops.bessel": "i0",
    "mlgpu.ops.cast": "clone",
    "mlgpu.ops.cdist": "cdist pdist",
    "mlgpu.ops.compare": """allclose eq equal ge greater greater_equal gt isclose isfinite isinf
        isnan isneginf isposinf isreal le less less_equal logical_and logical_not logical_or
        logical_xor lt ne not_equal signbit""",
    "mlgpu.ops.complex": """complex conj conj_physical imag is_complex is_conj is_neg polar real
        resolve_conj resolve_neg view_as_complex view_as_real""",
    "mlgpu.ops.creation": """arange as_tensor asarray empty empty_like empty_permuted empty_strided
        eye full full_like linspace logspace ones ones_like range scalar_tensor tensor zeros
        zeros_like""",
    "mlgpu.ops.distance": "cosine_similarity pairwise_distance",
    "mlgpu.ops.dropout": "alpha_dropout dropout feature_alpha_dropout feature_dropout",
    "mlgpu.ops.einsum": "einsum tensordot",
    "mlgpu.ops.elementwise": "fuse",
    "mlgpu.ops.extrema": "amax amin aminmax argmax argmin max median min mode nanmedian",
    "mlgpu.ops.facts": """detach is_floating_point is_nonzero is_same_size is_signed is_tensor
        numel""",
    "mlgpu.ops.fill": "fill",
    "mlgpu.ops.histogram": "histogram histogramdd nonzero_static",
    "mlgpu.ops.incomplete": "igamma igammac mvlgamma",
    "mlgpu.ops.index": "argwhere index_copy index_put index_select nonzero take",
    "mlgpu.ops.integrate": "corrcoef cov cumulative_trapezoid trapezoid trapz",
    "mlgpu.ops.interop": "from_dlpack from_numpy",
    "mlgpu.ops.join": """atleast_1d atleast_2d atleast_3d block_diag cartesian_prod cat column_stack
        combinations concat concatenate dstack hstack meshgrid row_stack stack vstack""",
    "mlgpu.ops.linalg_decompose": "cholesky qr",
    "mlgpu.ops.linalg_det": "det logdet slogdet",
    "mlgpu.ops.linalg_householder": "geqrf orgqr ormqr",
    "mlgpu.ops.linalg_least": "pinverse",
    "mlgpu.ops.linalg_lowrank": "pca_lowrank svd_lowrank",
    "mlgpu.ops.linalg_lu": "lu_unpack triangular_solve",
    "mlgpu.ops.linalg_lu_old": "lu lu_solve",
    "mlgpu.ops.linalg_matrix": "cross kron matrix_exp matrix_power trace vander",
    "mlgpu.ops.linalg_norm": "norm",
    "mlgpu.ops.linalg_svd": "svd",
    "mlgpu.ops.linalg_solve": "cholesky_inverse cholesky_solve inverse",
    "mlgpu.ops.mask": "masked_fill masked_scatter masked_select",
    "mlgpu.ops.matmul": "bmm chain_matmul dot ger inner matmul mm mv outer vdot",
    "mlgpu.ops.native": """constant_pad_nd grid_sampler grid_sampler_2d grid_sampler_3d
        native_batch_norm native_group_norm native_layer_norm""",
    "mlgpu.ops.part": """chunk diagonal dsplit hsplit narrow select split split_with_sizes
        tensor_split unbind unsafe_chunk unsafe_split unsafe_split_with_sizes vsplit""",
    "mlgpu.ops.arithmetic": """abs absolute add addcdiv addcmul div divide floor_divide fmod
        lerp mul multiply neg negative positive reciprocal remainder rsub sub subtract
        true_divide""",
    "mlgpu.ops.bits": """bitwise_and bitwise_left_shift bitwise_not bitwise_or
        bitwise_right_shift bitwise_xor""",
    "mlgpu.ops.choice": "clamp clamp_max clamp_min clip fmax fmin maximum minimum nan_to_num where",
    "mlgpu.ops.exponential": """exp exp2 expm1 float_power log log10 log1p log2 logaddexp
        logaddexp2 pow rsqrt sqrt square xlogy""",
    "mlgpu.ops.rounding": "ceil copysign fix floor frac heaviside nextafter round sgn sign trunc",
    "mlgpu.ops.special": "digamma erf erfc erfinv lgamma logit polygamma sigmoid",
    "mlgpu.ops.trigonometry": """acos acosh angle arccos arccosh arcsin arcsinh arctan arctan2
        arctanh asin asinh atan atan2 atanh cos cosh deg2rad hypot rad2deg sin sinc sinh tan
        tanh""",
    "mlgpu.ops.placed": """as_strided_scatter diagonal_scatter dist put renorm select_scatter
        slice_scatter unravel_index""",
    "mlgpu.ops.number": "frexp gcd lcm ldexp",
    "mlgpu.ops.quantile": "nanquantile quantile",
    "mlgpu.ops.quantize": "fake_quantize_per_channel_affine fake_quantize_per_tensor_affine",
    "mlgpu.ops.random": """bernoulli multinomial normal poisson rand rand_like randint randint_like
        randn randn_like randperm""",
    "mlgpu.ops.recurrent": "gru_cell lstm_cell rnn_relu_cell rnn_tanh_cell",
    "mlgpu.ops.reduce": "all any count_nonzero logsumexp mean nanmean nansum prod sum",
    "mlgpu.ops.resample": "channel_shuffle pixel_shuffle pixel_unshuffle",
    "mlgpu.ops.scan": "cummax cummin cumprod cumsum diff logcumsumexp",
    "mlgpu.ops.scatter": """gather index_add index_fill index_reduce scatter scatter_add
        scatter_reduce take_along_dim""",
    "mlgpu.ops.segment_reduce": "segment_reduce",
    "mlgpu.ops.search": "bincount bucketize histc isin searchsorted",
    "mlgpu.ops.slope": "gradient",
    "mlgpu.ops.softmax": "log_softmax softmax",
    "mlgpu.ops.sort": "argsort kthvalue msort sort topk",
    "mlgpu.ops.stft": "istft stft",
    "mlgpu.ops.strided": "as_strided",
    "mlgpu.ops.unique": "unique unique_consecutive",
    "mlgpu.ops.variance": "std std_mean var var_mean",
    "mlgpu.ops.view": """adjoint broadcast_shapes broadcast_tensors broadcast_to flatten
        moveaxis movedim permute ravel reshape squeeze swapaxes swapdims t transpose unflatten
        unsqueeze""",
    "mlgpu.ops.view_copy": """alias_copy as_strided_copy detach_copy diagonal_copy expand_copy
        narrow_copy permute_copy select_copy slice_copy split_copy split_with_sizes_copy
        squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unsqueeze_copy
        view_as_complex_copy view_as_real_copy view_copy""",
    "mlgpu.ops.window_function": """bartlett_window blackman_window hamming_window hann_window
        kaiser_window""",
    "mlgpu.printing": "get_printoptions set_printoptions",
    "mlgpu.random": "Generator get_rng_state initial_seed manual_seed seed set_rng_state",
    "mlgpu.typed": """BFloat16Tensor BoolTensor ByteTensor CharTensor DoubleTensor FloatTensor
        HalfTensor IntTensor LongTensor ShortTensor""",
}

# Methods of Tensor, likewise; the tensor is the first argument.
METHODS: dict[str, str] = {
    "mlgpu.ops.activation": "hardshrink prelu relu relu_",
    "mlgpu.ops.addmm": "addbmm addmm addmv addr baddbmm",
    "mlgpu.ops.arrange": """diag diag_embed diagflat flip fliplr flipud repeat repeat_interleave
        roll rot90 tile tril tril_ triu triu_""",
    "mlgpu.ops.bessel": "i0",
    "mlgpu.ops.cast": "clone contiguous copy_ cpu cuda pin_memory to type_as",
    "mlgpu.ops.compare": """allclose eq equal ge greater greater_equal gt isclose isfinite isinf
        isnan isneginf isposinf isreal le less less_equal logical_and logical_not logical_or
        logical_xor lt ne not_equal signbit""",
    "mlgpu.ops.complex": "chalf conj conj_physical is_conj is_neg resolve_conj resolve_neg",
    "mlgpu.ops.creation": "new_empty new_empty_strided new_full new_ones new_tensor new_zeros",
    "mlgpu.ops.extrema": "amax amin aminmax argmax argmin max median min mode nanmedian",
    "mlgpu.ops.facts": """as_subclass is_nonzero is_pinned is_same_size ndimension new
        untyped_storage""",
    "mlgpu.ops.fill": "fill_ fill_diagonal_ zero_",
    "mlgpu.ops.gradient": "sum_to_size",
    "mlgpu.ops.histogram": "histogram nonzero_static",
    "mlgpu.ops.incomplete": "igamma igammac mvlgamma",
    "mlgpu.ops.number": "frexp gcd lcm ldexp",
    "mlgpu.ops.index": """argwhere index_copy index_copy_ index_put index_put_ index_select nonzero
        take""",
    "mlgpu.ops.integrate": "corrcoef cov",
    "mlgpu.ops.interop": "__array__ __dlpack__ __dlpack_device__",
    "mlgpu.ops.linalg_decompose": "cholesky qr",
    "mlgpu.ops.linalg_det": "det logdet slogdet",
    "mlgpu.ops.linalg_householder": "geqrf orgqr ormqr",
    "mlgpu.ops.linalg_least": "pinverse",
    "mlgpu.ops.linalg_lu": "triangular_solve",
    "mlgpu.ops.linalg_lu_old": "lu lu_solve",
    "mlgpu.ops.linalg_matrix": "cross kron matrix_exp matrix_power trace",
    "mlgpu.ops.linalg_norm": "norm",
    "mlgpu.ops.linalg_svd": "svd",
    "mlgpu.ops.linalg_solve": "cholesky_inverse cholesky_solve inverse",
    "mlgpu.ops.mask": "masked_fill masked_fill_ masked_scatter masked_scatter_ masked_select",
    "mlgpu.ops.matmul": "bmm dot ger inner matmul mm mv outer vdot",
    "mlgpu.ops.part": """chunk diagonal dsplit hsplit narrow select split split_with_sizes
        tensor_split unbind unsafe_chunk unsafe_split unsafe_split_with_sizes vsplit""",
    "mlgpu.ops.arithmetic": """abs absolute add addcdiv addcmul div divide floor_divide fmod
        lerp mul multiply neg negative positive reciprocal remainder sub subtract true_divide""",
    "mlgpu.ops.bits": """bitwise_and bitwise_left_shift bitwise_not bitwise_or
        bitwise_right_shift bitwise_xor""",
    "mlgpu.ops.choice": """clamp clamp_max clamp_min clip fmax fmin maximum minimum nan_to_num
        nan_to_num_""",
    "mlgpu.ops.exponential": """exp exp2 expm1 float_power log log10 log1p log2 logaddexp
        logaddexp2 pow rsqrt sqrt square xlogy""",
    "mlgpu.ops.rounding": "ceil copysign fix floor frac heaviside nextafter round sgn sign trunc",
    "mlgpu.ops.special": "digamma erf erfc erfinv lgamma logit sigmoid",
    "mlgpu.ops.trigonometry": """acos acosh angle arccos arccosh arcsin arcsinh arctan arctan2
        arctanh asin asinh atan atan2 atanh cos cosh deg2rad hypot rad2deg sin sinc sinh tan
        tanh""",
    "mlgpu.ops.placed": """addbmm_ addmm_ addmv_ addr_ as_strided_scatter baddbmm_
        diagonal_scatter dist put put_ renorm renorm_
        resize_ resize_as_ select_scatter slice_scatter squeeze_ swapaxes_ swapdims_ t_ transpose_
        unsqueeze_""",
    "mlgpu.ops.quantile": "nanquantile quantile",
    "mlgpu.ops.random": "bernoulli multinomial",
    "mlgpu.ops.random_inplace": """bernoulli_ cauchy_ exponential_ geometric_ log_normal_ normal_
        random_ uniform_""",
    "mlgpu.ops.reduce": "all any count_nonzero logsumexp mean nanmean nansum prod sum",
    "mlgpu.ops.scan": "cummax cummin cumprod cumprod_ cumsum cumsum_ diff logcumsumexp",
    "mlgpu.ops.scatter": """gather index_add index_add_ index_fill index_fill_ index_reduce scatter
        scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ take_along_dim""",
    "mlgpu.ops.search": "bincount histc",
    "mlgpu.ops.softmax": "log_softmax softmax",
    "mlgpu.ops.sort": "argsort kthvalue msort sort topk",
    "mlgpu.ops.stft": "istft stft",
    "mlgpu.ops.strided": "as_strided",
    "mlgpu.ops.unique": "unique unique_consecutive",
    "mlgpu.ops.variance": "std var",
    "mlgpu.ops.view": """adjoint broadcast_to expand expand_as flatten moveaxis movedim permute
        ravel reshape reshape_as squeeze swapaxes swapdims t transpose unflatten unsqueeze view
        view_as""",
    "mlgpu.ops.view_copy": "narrow_copy",
}

# Elementwise functions with an in-place method, whose name ends in an underscore.
INPLACE: dict[str, str] = {
    "mlgpu.ops.compare": """eq ge greater greater_equal gt le less less_equal logical_and
        logical_not logical_or logical_xor lt ne not_equal""",
    "mlgpu.ops.arithmetic": """abs absolute add addcdiv addcmul div divide floor_divide fmod
        lerp mul multiply neg negative reciprocal remainder sub subtract true_divide""",
    "mlgpu.ops.bits": """bitwise_and bitwise_left_shift bitwise_not bitwise_or
        bitwise_right_shift bitwise_xor""",
    "mlgpu.ops.bessel": "i0",
    "mlgpu.ops.choice": "clamp clamp_max clamp_min clip",
    "mlgpu.ops.exponential": "exp exp2 expm1 log log10 log1p log2 pow rsqrt sqrt square xlogy",
    "mlgpu.ops.incomplete": "igamma igammac mvlgamma",
    "mlgpu.ops.number": "gcd lcm ldexp",
    "mlgpu.ops.rounding": "ceil copysign fix floor frac heaviside nextafter round sgn sign trunc",
    "mlgpu.ops.special": "digamma erf erfc erfinv lgamma logit sigmoid",
    "mlgpu.ops.trigonometry": """acos acosh arccos arccosh arcsin arcsinh arctan arctan2 arctanh
        asin asinh atan atan2 atanh cos cosh deg2rad hypot rad2deg sin sinc sinh tan tanh""",
}

# Attributes of Tensor that are computed: PyTorch's T, mT, H, real, imag.
PROPERTIES: dict[str, str] = {"mlgpu.ops.complex": "imag real", "mlgpu.ops.view": "H T mH mT",
                              "mlgpu.ops.interop": "__cuda_array_interface__"}

# Methods whose function has another name: method -> (module, function).
RENAMED: dict[str, tuple[str, str]] = {
    "__contains__": ("mlgpu.ops.operators", "contains"),
    "__getitem__": ("mlgpu.ops.index", "getitem"),
    "__iter__": ("mlgpu.ops.part", "iterate"),
    "__setitem__": ("mlgpu.ops.index", "setitem"),
    "__rdiv__": ("mlgpu.ops.operators", "rtruediv"),
    "type": ("mlgpu.typed", "cast_to"),
    "unfold": ("mlgpu.ops.fold", "unfold_view"),
    "where": ("mlgpu.ops.operators", "where"),
    **{f"__{name.strip('_')}__": ("mlgpu.ops.operators", name) for name in """abs add and_ eq
        floordiv ge gt iadd iand ifloordiv ilshift imod imul invert ior ipow irshift isub itruediv
        ixor le lshift lt matmul mod mul ne neg or_ pos pow radd rand_ rfloordiv rlshift rmatmul
        rmod rmul ror_ rpow rrshift rshift rsub rtruediv rxor sub truediv xor""".split()},
}

CASTS = {"bfloat16": dtypes.bfloat16, "bool": dtypes.bool_, "byte": dtypes.uint8,
         "cdouble": dtypes.complex128, "cfloat": dtypes.complex64, "char": dtypes.int8,
         "double": dtypes.float64, "float": dtypes.float32, "half": dtypes.float16,
         "int": dtypes.int32, "long": dtypes.int64, "short": dtypes.int16}


class _Method:
    """A method that imports its family on first use and then stands in Tensor itself."""

    def __init__(self, name: str, module: str, function: str) -> None:
        self.name, self.module, self.function = name, module, function

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        function = guard(getattr(import_module(self.module), self.function))
        setattr(Tensor, self.name, function)
        return function if instance is None else function.__get__(instance, owner)


class _InPlace(_Method):
    """As `_Method`, for the in-place form of an elementwise function."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        from mlgpu.ops.elementwise import inplace

        function = inplace(getattr(import_module(self.module), self.function))
        setattr(Tensor, self.name, function)
        return function if instance is None else function.__get__(instance, owner)


class _Property(_Method):
    """As `_Method`, for an attribute, which can be assigned where its family says how."""

    def _found(self) -> property:
        module = import_module(self.module)
        found = property(getattr(module, self.function), getattr(module, f"set_{self.name}", None))
        setattr(Tensor, self.name, found)
        return found

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        found = self._found()
        return found if instance is None else found.__get__(instance, owner)

    def __set__(self, instance: Any, value: Any) -> None:
        self._found().__set__(instance, value)


def _cast_method(name: str, dtype: dtypes.dtype) -> Any:
    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        from mlgpu.ops.cast import cast

        return cast(self, dtype)

    method.__name__ = name
    method.__doc__ = f"The tensor in {dtype.name}; itself if it is that already."
    return method


def bind() -> None:
    """Give Tensor its methods and the backward pass its arithmetic."""
    import_module("mlgpu.ops.gradient")
    for module, names in METHODS.items():
        for name in names.split():
            setattr(Tensor, name, _Method(name, module, name))
    for module, names in INPLACE.items():
        for name in names.split():
            setattr(Tensor, f"{name}_", _InPlace(f"{name}_", module, name))
    for name, (module, function) in RENAMED.items():
        setattr(Tensor, name, _Method(name, module, function))
    for module, names in PROPERTIES.items():
        for name in names.split():
            setattr(Tensor, name, _Property(name, module, name))
    for name, dtype in CASTS.items():
        setattr(Tensor, name, _cast_method(name, dtype))


_module_of = {name: module for module, names in FUNCTIONS.items() for name in names.split()}


@functools.cache
def function(name: str) -> Any:
    """The package's public function of that name.  AttributeError if there is none."""
    module = _module_of.get(name)
    if module is None:
        raise AttributeError(f"module 'mlgpu' has no attribute {name!r}")
    return guard(getattr(import_module(module), name), "mlgpu")


def method(name: str) -> Any:
    """The function behind a method of Tensor, or None if there is no such method."""
    found = getattr(Tensor, name, None)
    return found if callable(found) else None


def names() -> list[str]:
    """All public functions of the package."""
    return sorted(_module_of)
