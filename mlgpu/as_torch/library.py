"""torch.library: operators of a program's own, under names that torch.ops finds.

An operator is called as the Python function that was given for it; what a tracer would be told of
it (its schema, its fake form) is taken and not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mlgpu import Tensor
from mlgpu.autograd import Function
from mlgpu.errors import MissingNameError

_operators: dict[str, CustomOpDef] = {}


class CustomOpDef:
    """One operator: a function for each kind of device, and how it is differentiated."""

    def __init__(self, name: str) -> None:
        self._name = name.replace(".", "::", 1) if "::" not in name else name
        self._kernels: dict[str, Callable[..., Any]] = {}
        self._backward: Callable[..., Any] | None = None
        self._setup: Callable[..., Any] | None = None
        self.default = self  # torch.ops.namespace.name.default, its only form

    @property
    def __name__(self) -> str:
        return self._name.partition("::")[2]

    def register_kernel(self, device_types: str | Iterable[str] | None = None,
                        func: Callable[..., Any] | None = None) -> Any:
        """Give the function for one kind of device, several, or (None) all; also a decorator."""
        kinds = [device_types] if device_types is None or isinstance(device_types, str) else list(
            device_types)

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            for kind in kinds:
                self._kernels[_KINDS.get(kind or "default", kind or "default")] = function
            return function

        return register if func is None else register(func)

    def register_autograd(self, backward: Callable[..., Any], /, *,
                          setup_context: Callable[..., Any] | None = None) -> None:
        """Say how gradients go back: `backward(ctx, *grads)`, what `setup_context` kept in ctx."""
        self._backward, self._setup = backward, setup_context

    def register_fake(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """The function itself: nothing is traced."""
        return fn if fn is not None else (lambda decorated: decorated)

    register_vmap = register_torch_dispatch = register_fake

    def _kernel(self, values: Iterable[Any]) -> Callable[..., Any]:
        device = next((v.device.type for v in values if isinstance(v, Tensor)), "cpu")
        found = self._kernels.get(device) or self._kernels.get("default")
        if found is None:
            raise MissingNameError(f"torch.ops.{self._name}: there is no function for {device}")
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kernel = self._kernel([*args, *kwargs.values()])
        if self._backward is None:
            return kernel(*args, **kwargs)
        backward, setup = self._backward, self._setup

        class Applied(Function):  # type: ignore[misc]
            @staticmethod
            def forward(*inputs: Any) -> Any:
                return kernel(*inputs, **kwargs)

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                if setup is not None:
                    setup(ctx, inputs, output)

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> Any:
                return backward(ctx, *grads)

        return Applied.apply(*args)


# How devices and PyTorch's dispatcher name the same.
_KINDS = {"CPU": "cpu", "CUDA": "cuda", "CompositeExplicitAutograd": "default",
          "CompositeImplicitAutograd": "default", "": "default"}


def find(namespace: str, name: str) -> CustomOpDef:
    """The operator of that name.  MissingNameError (an AttributeError) if there is none."""
    found = _operators.get(f"{namespace}::{name}")
    if found is None:
        raise MissingNameError(f"torch.ops.{namespace}.{name}: no operator of this name was "
                               "registered, and PyTorch's own are mlgpu's functions")
    return found


def _named(qualname: Any) -> CustomOpDef:
    if isinstance(qualname, CustomOpDef):
        return qualname
    name = str(qualname).partition("(")[0]
    return _operators.setdefault(name, CustomOpDef(name))


def custom_op(name: str, fn: Callable[..., Any] | None = None, /, *, mutates_args: Any = (),
              device_types: Any = None, schema: str | None = None, tags: Any = None) -> Any:
    """A function as an operator `namespace::name`; also a decorator."""
    def make(function: Callable[..., Any]) -> CustomOpDef:
        made = _operators[name] = CustomOpDef(name)
        made.register_kernel(device_types, function)
        made.__doc__ = function.__doc__
        return made

    return make if fn is None else make(fn)


triton_op = custom_op


def define(qualname: str, schema: str = "", *, lib: Any = None, tags: Any = ()) -> None:
    """Begin an operator, whose functions `impl` gives."""
    _named(qualname)


def impl(qualname: str, types: Any = None, func: Callable[..., Any] | None = None, *,
         lib: Any = None) -> Any:
    """Give an operator's function for kinds of devices; also a decorator."""
    return _named(qualname).register_kernel(types, func)


register_kernel = impl


def register_fake(op: Any, func: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """The function itself: nothing is traced."""
    return func if func is not None else (lambda decorated: decorated)


impl_abstract = register_vmap = register_torch_dispatch = register_fake


def register_autograd(op: Any, backward: Callable[..., Any], /, *,
                      setup_context: Callable[..., Any] | None = None, lib: Any = None) -> None:
    """Say how an operator's gradients go back."""
    _named(op).register_autograd(backward, setup_context=setup_context)


def infer_schema(function: Callable[..., Any], /, *, mutates_args: Any = (),
                 op_name: str | None = None) -> str:
    """The name and signature of a function: what is registered with it is not read."""
    import inspect

    return f"{op_name or ''}{inspect.signature(function)}"


class Library:
    """Operators of one namespace."""

    def __init__(self, ns: str, kind: str = "", dispatch_key: str = "") -> None:
        self.ns, self.kind = ns, kind

    def define(self, schema: str, alias_analysis: str = "", *, tags: Any = ()) -> str:
        """Begin an operator `name(...) -> ...`; its name comes back."""
        name = schema.partition("(")[0]
        _named(f"{self.ns}::{name}")
        return name

    def impl(self, op_name: Any, fn: Callable[..., Any], dispatch_key: str = "", **options: Any
             ) -> None:
        """Give an operator's function for a kind of device."""
        if dispatch_key in ("Meta", "Autograd"):
            return  # a tracer's, or how the function itself is differentiated anyway
        _named(f"{self.ns}::{op_name}").register_kernel(dispatch_key or None, fn)
