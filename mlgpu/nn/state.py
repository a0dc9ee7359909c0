"""state_dict and load_state_dict: a module's parameters and buffers by dotted name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mlgpu.autograd import no_grad
from mlgpu.errors import MlgpuError
from mlgpu.nn.parameter import Parameter
from mlgpu.tensor import Tensor

if TYPE_CHECKING:
    from mlgpu.nn.module import Module

EXTRA_STATE = "_extra_state"


def new() -> Any:
    """An empty state dict; as in PyTorch, an attribute holds the layout versions of modules."""
    destination: Any = OrderedDict()
    destination._metadata = OrderedDict()
    return destination


class IncompatibleKeys(NamedTuple):
    """What a load found missing in the state dict, and unknown to the module."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (f"IncompatibleKeys(missing_keys={self.missing_keys}, "
                f"unexpected_keys={self.unexpected_keys})")


def members(module: Module) -> dict[str, Any]:
    """The module's own parameters and persistent buffers that are not None."""
    found: dict[str, Any] = {name: p for name, p in module._parameters.items() if p is not None}
    found.update({name: b for name, b in module._buffers.items()
                  if b is not None and name not in module._non_persistent_buffers_set})
    return found


def has_extra_state(module: Module) -> bool:
    from mlgpu.nn.module import Module

    return type(module).get_extra_state is not Module.get_extra_state


def collect(module: Module, destination: Any, prefix: str, keep_vars: bool) -> None:
    """Add the state of `module` and of all modules below it to `destination`."""
    hooks = module._hooks
    if hooks is not None:
        for hook in list(hooks.state_dict_pre.values()):
            hook(module, prefix, keep_vars)
    metadata = {"version": module._version}
    if hasattr(destination, "_metadata"):
        destination._metadata[prefix[:-1]] = metadata
    module._save_to_state_dict(destination, prefix, keep_vars)
    for name, child in module._modules.items():
        if child is not None:
            child.state_dict(destination=destination, prefix=f"{prefix}{name}.",
                             keep_vars=keep_vars)
    if hooks is not None:
        for hook in list(hooks.state_dict_post.values()):
            hook(module, destination, prefix, metadata)


def save_own(module: Module, destination: Any, prefix: str, keep_vars: bool) -> None:
    """Add what the module itself holds."""
    for name, value in members(module).items():
        destination[prefix + name] = value if keep_vars else value.detach()
    if has_extra_state(module):
        destination[prefix + EXTRA_STATE] = module.get_extra_state()


def load(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool
         ) -> IncompatibleKeys:
    """Load a whole tree.  MlgpuError lists every key that does not fit."""
    if not isinstance(state_dict, Mapping):
        raise TypeError("load_state_dict: expected a dict of tensors by name, got "
                        f"{type(state_dict).__name__}")
    result = IncompatibleKeys([], [])
    errors: list[str] = []
    metadata = getattr(state_dict, "_metadata", {})
    _load_tree(module, dict(state_dict), "", metadata, assign, result, errors)
    if strict:
        for kind, keys in (("Unexpected", result.unexpected_keys),
                           ("Missing", result.missing_keys)):
            if keys:
                errors.insert(0, f"{kind} key(s) in state_dict: " + ", ".join(map(repr, keys)))
    if errors:
        raise MlgpuError(f"load_state_dict: the state does not fit {type(module).__name__} "
                         "(strict=False ignores missing and unexpected keys):\n\t"
                         + "\n\t".join(errors))
    return result


def _load_tree(module: Module, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any],
               assign: bool, result: IncompatibleKeys, errors: list[str]) -> None:
    local_metadata = {**metadata.get(prefix[:-1], {}), "assign_to_params_buffers": assign}
    # Also without `strict` the keys are found and returned; only the error depends on it.
    module._load_from_state_dict(state, prefix, local_metadata, True, result.missing_keys,
                                 result.unexpected_keys, errors)
    for name, child in module._modules.items():
        if child is not None:
            below = f"{prefix}{name}."
            part = {key: value for key, value in state.items() if key.startswith(below)}
            _load_tree(child, part, below, metadata, assign, result, errors)
    if module._hooks is not None:
        for hook in list(module._hooks.load_state_dict_post.values()):
            if hook(module, result) is not None:
                raise MlgpuError("load_state_dict: a post-hook must return None; it changes the "
                                 "keys it is given in place")


def load_own(module: Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
             strict: bool, missing: list[str], unexpected: list[str], errors: list[str]) -> None:
    """Load what the module itself holds, noting the keys that do not fit."""
    if module._hooks is not None:
        for hook in list(module._hooks.load_state_dict_pre.values()):
            hook(module, state, prefix, local_metadata, strict, missing, unexpected, errors)
    own = members(module)
    for name, target in own.items():
        key = prefix + name
        if key not in state:
            if strict:
                missing.append(key)
            continue
        problem = _problem(key, target, state[key])
        if problem is not None:
            errors.append(problem)
        elif local_metadata.get("assign_to_params_buffers", False):
            _assign(module, name, target, state[key])
        else:
            with no_grad():
                target.copy_(state[key].detach().to(target.device))
    extra = prefix + EXTRA_STATE
    if has_extra_state(module):
        if extra in state:
            module.set_extra_state(state[extra])
        elif strict:
            missing.append(extra)
    elif strict and extra in state:
        unexpected.append(extra)
    if strict:
        unexpected.extend(_unknown(module, own, state, prefix))


def _problem(key: str, target: Tensor, value: Any) -> str | None:
    if not isinstance(value, Tensor):
        return f"{key!r}: expected a Tensor, got {type(value).__name__}"
    if value.shape != target.shape:
        return (f"size mismatch for {key}: the state dict has {tuple(value.shape)}, "
                f"the model {tuple(target.shape)}")
    return None


def _assign(module: Module, name: str, target: Tensor, value: Tensor) -> None:
    if isinstance(target, Parameter):
        if isinstance(value, Parameter):
            value.requires_grad_(target.requires_grad)
        else:
            value = Parameter(value, target.requires_grad)
    setattr(module, name, value)


def _unknown(module: Module, own: dict[str, Any], state: dict[str, Any], prefix: str) -> list[str]:
    unknown = []
    for key in state:
        if not key.startswith(prefix) or key == prefix + EXTRA_STATE:
            continue
        first, dot, _ = key[len(prefix):].partition(".")
        known = first in module._modules and module._modules[first] is not None if dot \
            else first in own
        if not known:
            unknown.append(key)
    return unknown
