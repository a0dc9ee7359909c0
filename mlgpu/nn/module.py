"""Module: what all layers and models derive from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from mlgpu import dtypes
from mlgpu.autograd import no_grad
from mlgpu.device import Device
from mlgpu.dtypes import dtype as DType
from mlgpu.errors import DTypeError, GraphError, ShapeError
from mlgpu.nn import hooks, state
from mlgpu.nn.parameter import Buffer, Parameter
from mlgpu.ops.cast import _to_arguments
from mlgpu.ops.creation import empty_like
from mlgpu.tensor import RemovableHandle, Tensor

if TYPE_CHECKING:
    from typing import Self

    from mlgpu.nn.model_summary import ModelSummary

Named = Iterator[tuple[str, Any]]
Method = TypeVar("Method", bound=Callable[..., Any])


class _GivesWay:
    """A method that PyTorch's modules do not have: a member of the same name comes before it."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.__doc__ = method.__doc__

    def __get__(self, module: Module | None, kind: type[Module]) -> Any:
        if module is None:
            return self.method
        name = self.method.__name__
        for table in (module._parameters, module._buffers, module._modules):
            if name in table:
                return table[name]
        return self.method.__get__(module)


def _gives_way(method: Method) -> Method:
    return _GivesWay(method)  # type: ignore[return-value]


class Module:
    """A part of a model: parameters, buffers and other modules, found by attribute; and `forward`.

    As torch.nn.Module: assigning a Parameter or a Module to an attribute registers it, and
    calling the module calls `forward` with the hooks around it.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _hooks: hooks.Hooks | None = None
    _version: int = 1  # of the layout of its state; raised by a class that changes its own

    def __init__(self) -> None:
        own = self.__dict__
        own["training"] = True
        own["_parameters"] = {}
        own["_buffers"] = {}
        own["_modules"] = {}
        own["_non_persistent_buffers_set"] = set()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__}: forward is not defined")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks is None:
            return self.forward(*args, **kwargs)
        return hooks.call(self, self._hooks, args, kwargs)

    # --- attributes -------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for table in ("_parameters", "_buffers", "_modules"):
            members = own.get(table)
            if members is not None and name in members:
                return members[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter):
            self._forget(name, self._table("parameters", "_parameters"))
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            modules = self._table("module", "_modules")
            self._forget(name, modules)
            modules[name] = value
        elif isinstance(value, Buffer):
            self._forget(name, self._table("buffer", "_buffers"))
            self.register_buffer(name, value, value.persistent)
        elif name in own.get("_parameters", ()):
            if value is not None:
                raise TypeError(f"{type(self).__name__}: {name!r} is a parameter; only a Parameter "
                                f"or None can be assigned to it, got {type(value).__name__}")
            self._parameters[name] = None
        elif name in own.get("_modules", ()):
            if value is not None:
                raise TypeError(f"{type(self).__name__}: {name!r} is a child module; only a Module "
                                f"or None can be assigned to it, got {type(value).__name__}")
            self._modules[name] = None
        elif name in own.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"{type(self).__name__}: {name!r} is a buffer; only a Tensor or "
                                f"None can be assigned to it, got {type(value).__name__}")
            self._buffers[name] = value
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__, *self._parameters, *self._buffers,
                 *self._modules}
        return sorted(name for name in names if not name[0].isdigit())

    def _table(self, what: str, name: str) -> dict[str, Any]:
        table: dict[str, Any] | None = self.__dict__.get(name)
        if table is None:
            raise AttributeError(f"{type(self).__name__}: cannot assign {what} before "
                                 "Module.__init__() call")
        return table

    def _forget(self, name: str, kept: dict[str, Any]) -> None:
        """Free a name for a member of the table `kept`, where it keeps its place."""
        for table in (self.__dict__, self._parameters, self._buffers, self._modules):
            if table is not kept:
                table.pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def _check_name(self, what: str, name: str, table: Mapping[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"register_{what}: the name must be a string, got "
                            f"{type(name).__name__}")
        if name == "" or "." in name:
            raise KeyError(f"register_{what}: the name must not be empty or contain '.', "
                           f"got {name!r}")
        gives_way = name == "summary" and type(self).summary is Module.summary
        if hasattr(self, name) and name not in table and not gives_way:
            raise KeyError(f"register_{what}: the attribute {name!r} already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Make `param` (or None, a place held free) a parameter of this module."""
        table = self._table("parameters", "_parameters")
        if param is None or name not in table:
            self._check_name("parameter", name, table)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"register_parameter: {name!r} must be a Parameter or None, got "
                            f"{type(param).__name__}")
        if param is not None and param.grad_fn is not None:
            raise GraphError(f"register_parameter: {name!r} must be a leaf; compute it in forward "
                             "instead, from parameters")
        table[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Make `tensor` move with the module; part of its state_dict if `persistent`."""
        table = self._table("buffer", "_buffers")
        self._check_name("buffer", name, table)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"register_buffer: {name!r} must be a Tensor or None, got "
                            f"{type(tensor).__name__}")
        table[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Make `module` (or None, a place held free) a child of this module."""
        table = self._table("module", "_modules")
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"register_module: {name!r} must be a Module or None, got "
                            f"{type(module).__name__}")
        self._check_name("module", name, table)
        table[name] = module

    add_module = register_module

    # --- what is inside ---------------------------------------------------------------------

    def named_modules(self, memo: set[Module] | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all below it, with dotted names; each once if `remove_duplicate`."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                below = f"{prefix}.{name}" if prefix else name
                yield from child.named_modules(memo, below, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all below it."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, each once."""
        seen: set[Module] = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The modules directly below this one."""
        for _, child in self.named_children():
            yield child

    def _named_members(self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
                       ) -> Named:
        seen: set[Any] = set()
        modules = (self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
                   if recurse else [(prefix, self)])
        for path, module in modules:
            for name, member in getattr(module, table).items():
                if member is None or member in seen:
                    continue
                if remove_duplicate:
                    seen.add(member)
                yield f"{path}.{name}" if path else name, member

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """The parameters with dotted names, each (also where tied) once if `remove_duplicate`."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters of this module and, if `recurse`, of all below it."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """The buffers with dotted names."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers of this module and, if `recurse`, of all below it."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The module with a dotted name; "" is this one.  AttributeError if there is none."""
        module: Any = self
        for name in target.split(".") if target else ():
            module = getattr(module, name, None)
            if not isinstance(module, Module):
                raise AttributeError(f"get_submodule: there is no module {name!r} in {target!r} "
                                     f"of {type(self).__name__}")
        return module  # type: ignore[no-any-return]

    def _get_member(self, kind: str, table: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        member = getattr(self.get_submodule(path), table).get(name)
        if member is None:
            raise AttributeError(f"get_{kind}: there is no {kind} {target!r} in "
                                 f"{type(self).__name__}")
        return member

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put a module in the place that a dotted name says; `strict` wants one to be there.

        AttributeError where there is none, or no module that it would be a part of; ValueError for
        an empty name.
        """
        path, _, name = target.rpartition(".")
        if not name:
            raise ShapeError("set_submodule: the name must not be empty")
        owner = self.get_submodule(path)
        if strict and name not in owner._modules:
            raise AttributeError(f"set_submodule: there is no module {target!r} in "
                                 f"{type(self).__name__}")
        setattr(owner, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with a dotted name.  AttributeError if there is none."""
        return self._get_member("parameter", "_parameters", target)  # type: ignore[no-any-return]

    def get_buffer(self, target: str) -> Tensor:
        """The buffer with a dotted name.  AttributeError if there is none."""
        return self._get_member("buffer", "_buffers", target)  # type: ignore[no-any-return]

    # --- changing all of it -----------------------------------------------------------------

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` with every module below, then with this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set training mode (dropout drops, batch statistics are used) here and below."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be True or False, got {mode!r}")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """`train(False)`."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let all parameters require gradients, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        for parameter in self.parameters():
            clear_grad(parameter, set_to_none)

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Replace the values of all parameters, gradients and buffers; tied ones stay tied."""
        for child in self.children():
            child._apply(fn)
        for parameter in self._parameters.values():
            if parameter is not None:
                grad = parameter.grad
                with no_grad():
                    parameter.data = fn(parameter.data)
                    parameter.grad = None if grad is None else fn(grad).detach()
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, device: Device | str | int | None = None,
           dtype: DType | None = None, non_blocking: bool = False, memory_format: Any = None
           ) -> Self:
        """Move parameters and buffers to a device and cast the floating ones; as Tensor.to.

        Works in place: every Parameter stays the same object, so optimizers keep working.
        Raises DTypeError unless the dtype is floating or complex.
        """
        target, kind = _to_arguments(args, device, dtype, None)
        if kind is not None and not (kind.is_floating_point or kind.is_complex):
            raise DTypeError(f"Module.to: expected a floating or complex dtype, got {kind!r}")

        def convert(tensor: Tensor) -> Tensor:
            casts = tensor.is_floating_point() or tensor.is_complex()
            return tensor.to(device=target, dtype=kind if casts else None,
                             non_blocking=non_blocking)

        return self._apply(convert)

    def cpu(self) -> Self:
        """Move everything to the CPU."""
        return self.to("cpu")

    def cuda(self, device: Device | str | int | None = None) -> Self:
        """Move everything to a CUDA device, the current one by default."""
        return self.to("cuda" if device is None else device)

    def type(self, dst_type: DType) -> Self:
        """Cast all parameters and buffers, integer ones too."""
        return self._apply(lambda tensor: tensor.to(dst_type))

    def to_empty(self, *, device: Device | str | int | None) -> Self:
        """Move parameters and buffers to a device without their values, which are then undefined.
        """
        return self._apply(lambda tensor: empty_like(tensor, device=device))

    def _cast(self, dtype: DType) -> Self:
        return self._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)

    def float(self) -> Self:
        """Cast floating parameters and buffers to float32."""
        return self._cast(dtypes.float32)

    def double(self) -> Self:
        """Cast floating parameters and buffers to float64."""
        return self._cast(dtypes.float64)

    def half(self) -> Self:
        """Cast floating parameters and buffers to float16."""
        return self._cast(dtypes.float16)

    def bfloat16(self) -> Self:
        """Cast floating parameters and buffers to bfloat16."""
        return self._cast(dtypes.bfloat16)

    # --- state ------------------------------------------------------------------------------

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
                   ) -> Any:
        """Parameters and persistent buffers by dotted name, on the same memory as the module's."""
        if destination is None:
            destination = state.new()
        state.collect(self, destination, prefix, keep_vars)
        return destination

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True,
                        assign: bool = False) -> state.IncompatibleKeys:
        """Copy the tensors of `state_dict` into parameters and buffers of the same names.

        With `assign` they take the place of the parameters and buffers, with their own dtype and
        device.  MlgpuError lists all missing and unexpected keys (unless not `strict`) and all
        shapes that differ.
        """
        return state.load(self, state_dict, strict, assign)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        state.save_own(self, destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str,
                              local_metadata: dict[str, Any], strict: bool,
                              missing_keys: list[str], unexpected_keys: list[str],
                              error_msgs: list[str]) -> None:
        state.load_own(self, state_dict, prefix, local_metadata, strict, missing_keys,
                       unexpected_keys, error_msgs)

    def get_extra_state(self) -> Any:
        """More state for the state_dict, of a subclass that defines this."""
        raise NotImplementedError(f"{type(self).__name__}: has no extra state")

    def set_extra_state(self, state: Any) -> None:
        """Take back what `get_extra_state` returned; to be defined with it."""
        raise NotImplementedError(f"{type(self).__name__}: has no extra state")

    # --- hooks ------------------------------------------------------------------------------

    def _ensure_hooks(self) -> hooks.Hooks:
        self._table("hooks", "_modules")
        if self._hooks is None:
            self.__dict__["_hooks"] = hooks.Hooks()
        return self._hooks  # type: ignore[return-value]

    def register_forward_pre_hook(self, hook: Callable[..., Any], *, prepend: bool = False,
                                  with_kwargs: bool = False) -> RemovableHandle:
        """Before forward call `hook(module, args)`, which may return other arguments.

        With `with_kwargs`: `hook(module, args, kwargs)`, which may return (args, kwargs).
        """
        return hooks.register(self._ensure_hooks().forward_pre, (hook, with_kwargs), prepend)

    def register_forward_hook(self, hook: Callable[..., Any], *, prepend: bool = False,
                              with_kwargs: bool = False, always_call: bool = False
                              ) -> RemovableHandle:
        """After forward call `hook(module, args, output)`, which may return another output.

        With `with_kwargs`: `hook(module, args, kwargs, output)`.  With `always_call` also when
        forward raises, with None as the output.
        """
        entry = (hook, with_kwargs, always_call)
        return hooks.register(self._ensure_hooks().forward, entry, prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False
                                        ) -> RemovableHandle:
        """In backward, before the module's part, call `hook(module, grad_output)`."""
        return hooks.register(self._ensure_hooks().backward_pre, hook, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False
                                    ) -> RemovableHandle:
        """In backward, after the module's part, call `hook(module, grad_input, grad_output)`.

        It may return other gradients for the inputs.  Only positional tensor arguments and an
        output that is a tensor or a tuple of tensors are seen.
        """
        return hooks.register(self._ensure_hooks().backward, hook, prepend)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Before state_dict call `hook(module, prefix, keep_vars)`."""
        return hooks.register(self._ensure_hooks().state_dict_pre, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """After state_dict call `hook(module, state_dict, prefix, local_metadata)`."""
        return hooks.register(self._ensure_hooks().state_dict_post, hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Before this module loads its own part, call `hook` with it and what it is loaded from.

        `hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
        error_msgs)` may change the dict and the lists.
        """
        return hooks.register(self._ensure_hooks().load_state_dict_pre, hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """After this module and those below it have loaded, call `hook(module, incompatible)`."""
        return hooks.register(self._ensure_hooks().load_state_dict_post, hook)

    # --- printing ---------------------------------------------------------------------------

    @_gives_way
    def summary(self, *inputs: Any, **options: Any) -> ModelSummary:
        """Shapes, parameters, memory and operations of each layer for these inputs, as a table.

        Runs the module once without gradients, and leaves no trace; see `mlgpu.nn.summary`.
        """
        from mlgpu.nn.model_summary import summary

        return summary(self, *inputs, **options)

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """The module's own settings, for printing."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        settings = extra.split("\n") if extra else []
        children = [f"({name}): {indented(repr(child))}" for name, child in self._modules.items()]
        return tree(self._get_name(), settings, children)


def tree(name: str, settings: list[str], children: list[str]) -> str:
    """A name with its settings and, on lines of their own, its children."""
    if not children and len(settings) <= 1:
        return f"{name}({''.join(settings)})"
    lines = "\n  ".join([*settings, *children])
    return f"{name}(\n  {lines}\n)"


def indented(text: str) -> str:
    """All lines but the first moved to the right by two."""
    return text.replace("\n", "\n  ")


def clear_grad(parameter: Tensor, set_to_none: bool) -> None:
    """Drop a gradient, or detach it and fill it with zeros."""
    grad = parameter.grad
    if grad is None:
        return
    if set_to_none:
        parameter.grad = None
    else:
        if grad.requires_grad:
            grad = parameter.grad = grad.detach()
        with no_grad():
            grad.zero_()
