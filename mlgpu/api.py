"""Where every public function and Tensor method lives: the one table that binds them.

Families are imported when one of their names is first used, so `import mlgpu` stays cheap and
what a program does not use costs it nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mlgpu import dtypes
from mlgpu.tensor import Tensor

# Functions of the package, by the module that has them.
FUNCTIONS: dict[str, str] = {
    "mlgpu.io.checkpoint": "load save",
    "mlgpu.ops.arrange": """diag diag_embed diagflat flip fliplr flipud repeat_interleave roll rot90
        tile tril tril_indices triu triu_indices""",
    "mlgpu.ops.cast": "clone",
    "mlgpu.ops.creation": """arange as_tensor empty empty_like empty_strided eye full full_like
        linspace logspace ones ones_like range scalar_tensor tensor zeros zeros_like""",
    "mlgpu.ops.index": "argwhere index_copy index_put index_select nonzero take",
    "mlgpu.ops.interop": "from_dlpack from_numpy",
    "mlgpu.ops.join": """atleast_1d atleast_2d atleast_3d block_diag cartesian_prod cat column_stack
        combinations concat concatenate dstack hstack meshgrid row_stack stack vstack""",
    "mlgpu.ops.mask": "masked_fill masked_scatter masked_select",
    "mlgpu.ops.part": """chunk diagonal dsplit hsplit narrow select split split_with_sizes
        tensor_split unbind vsplit""",
    "mlgpu.ops.scatter": """gather index_add index_fill index_reduce scatter scatter_add
        scatter_reduce take_along_dim""",
    "mlgpu.ops.view": """adjoint broadcast_shapes broadcast_tensors broadcast_to flatten moveaxis
        movedim permute ravel reshape squeeze swapaxes swapdims t transpose unflatten unsqueeze""",
}

# Methods of Tensor, likewise; the tensor is the first argument.
METHODS: dict[str, str] = {
    "mlgpu.ops.arrange": """diag diag_embed diagflat flip fliplr flipud repeat repeat_interleave
        roll rot90 tile tril tril_ triu triu_""",
    "mlgpu.ops.cast": "clone contiguous copy_ cpu cuda pin_memory to type_as",
    "mlgpu.ops.creation": "new_empty new_full new_ones new_tensor new_zeros",
    "mlgpu.ops.fill": "fill_ fill_diagonal_ zero_",
    "mlgpu.ops.gradient": "sum_to_size",
    "mlgpu.ops.index": """argwhere index_copy index_copy_ index_put index_put_ index_select nonzero
        take""",
    "mlgpu.ops.interop": "__array__ __dlpack__ __dlpack_device__",
    "mlgpu.ops.mask": """masked_fill masked_fill_ masked_scatter masked_scatter_ masked_select""",
    "mlgpu.ops.part": """chunk diagonal dsplit hsplit narrow select split split_with_sizes
        tensor_split unbind vsplit""",
    "mlgpu.ops.scatter": """gather index_add index_add_ index_fill index_fill_ index_reduce scatter
        scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ take_along_dim""",
    "mlgpu.ops.view": """adjoint broadcast_to expand expand_as flatten moveaxis movedim permute
        ravel reshape reshape_as squeeze swapaxes swapdims t transpose unflatten unsqueeze view
        view_as""",
}

# Attributes of Tensor that are computed: PyTorch's T, mT, H, real, imag.
PROPERTIES: dict[str, str] = {"mlgpu.ops.view": "T mT"}

# Methods whose function has another name: method -> (module, function).
RENAMED: dict[str, tuple[str, str]] = {
    "__getitem__": ("mlgpu.ops.index", "getitem"),
    "__iter__": ("mlgpu.ops.part", "iterate"),
    "__setitem__": ("mlgpu.ops.index", "setitem"),
}

CASTS = {"bfloat16": dtypes.bfloat16, "bool": dtypes.bool_, "cdouble": dtypes.complex128,
         "cfloat": dtypes.complex64, "double": dtypes.float64, "float": dtypes.float32,
         "half": dtypes.float16, "int": dtypes.int32, "long": dtypes.int64, "short": dtypes.int16}


class _Method:
    """A method that imports its family on first use and then stands in Tensor itself."""

    def __init__(self, name: str, module: str, function: str) -> None:
        self.name, self.module, self.function = name, module, function

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        function = getattr(import_module(self.module), self.function)
        setattr(Tensor, self.name, function)
        return function if instance is None else function.__get__(instance, owner)


class _Property(_Method):
    """As `_Method`, for an attribute."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        found = property(getattr(import_module(self.module), self.function))
        setattr(Tensor, self.name, found)
        return found if instance is None else found.__get__(instance, owner)


def _cast_method(name: str, dtype: dtypes.dtype) -> Any:
    def method(self: Tensor) -> Tensor:
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
    for name, (module, function) in RENAMED.items():
        setattr(Tensor, name, _Method(name, module, function))
    for module, names in PROPERTIES.items():
        for name in names.split():
            setattr(Tensor, name, _Property(name, module, name))
    for name, dtype in CASTS.items():
        setattr(Tensor, name, _cast_method(name, dtype))


_module_of = {name: module for module, names in FUNCTIONS.items() for name in names.split()}


def function(name: str) -> Any:
    """The package's public function of that name.  AttributeError if there is none."""
    module = _module_of.get(name)
    if module is None:
        raise AttributeError(f"module 'mlgpu' has no attribute {name!r}")
    return getattr(import_module(module), name)


def names() -> list[str]:
    """All public functions of the package."""
    return sorted(_module_of)
