"""Optimizer: parameters in groups with settings, their state, and how both are saved."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar

from mlgpu.autograd import enable_grad, no_grad
from mlgpu.cuda.context import context
from mlgpu.device import Device
from mlgpu.errors import CaptureError, MlgpuError, ShapeError
from mlgpu.nn.module import clear_grad
from mlgpu.optim.ahead import Ahead
from mlgpu.tensor import RemovableHandle, Tensor

if TYPE_CHECKING:
    from mlgpu.optim.offload import StateOffload

Params = Iterable[Any]


class Optimizer:
    """What all optimizers derive from, as torch.optim.Optimizer.

    `params`: parameters, (name, parameter) pairs, or dicts with "params" and settings of their
    own; `defaults`: the settings of groups that do not give them.  A subclass defines
    `update(group)`, which changes the group's parameters, or overrides `step`.

    Where a subclass says `reads_found_inf`, `grad_factor` multiplies the gradients as an update
    reads them, and an update is left out where `found_inf` is not 0: float32 tensors of one
    element, which are read where they are.
    """

    needs_closure: ClassVar[bool] = False  # whether a step computes gradients several times
    reads_found_inf: ClassVar[bool] = False
    grad_factor: Tensor | None = None
    found_inf: Tensor | None = None
    _offload: StateOffload | None = None
    _singles: tuple[str, ...] = ("step",)  # state that is one float32 number

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(f"{type(self).__name__}: params must be an iterable of parameters or "
                            "dicts, got a single Tensor; put it in a list")
        self.defaults = defaults
        self.state: dict[Any, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._step_pre_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        self._step_post_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        self._state_dict_hooks: dict[str, OrderedDict[int, Callable[..., Any]]] = {
            when: OrderedDict() for when in ("before_save", "after_save", "before_load",
                                             "after_load")}
        groups = list(params)
        if not groups:
            raise ShapeError(f"{type(self).__name__}: got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def update(self, group: dict[str, Any]) -> None:
        """Change the parameters of one group by their gradients; called without recording."""
        raise NotImplementedError(f"{type(self).__name__}: update is not defined")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        `closure`, if given, first computes the loss and its gradients anew, and its loss is
        returned.
        """
        for hook in list(self._step_pre_hooks.values()):
            hook(self, (closure,), {})
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            if self._offload is None:
                self._update_all()
            else:
                self._offload.update(self)
        for hook in list(self._step_post_hooks.values()):
            hook(self, (closure,), {})
        return loss

    def offload_state(self, piece: int | str = "64 MiB") -> None:
        """Keep the state of CUDA parameters in page-locked host memory from here on.

        Each step brings it to the device in pieces of about so many bytes of parameters, beside the
        computation, and sends it back; its numbers are the same bit by bit.  Such a step cannot be
        part of a captured graph (CaptureError).  Raises MlgpuError for an optimizer whose step is
        of its own, such as L-BFGS.
        """
        from mlgpu.optim.offload import StateOffload

        if type(self).step is not Optimizer.step:
            raise MlgpuError(f"{type(self).__name__}: a step of its own cannot have its state "
                             "elsewhere; leave offload_state out")

        self._offload = StateOffload(piece)
        self._offload.away(self)

    def _update_all(self) -> None:
        for group in self.param_groups:
            self.update(group)

    def _check_begun(self) -> None:
        """Raise CaptureError in a capture: state made in it would be made anew by each replay."""
        if context.capture is not None:
            raise CaptureError(f"{type(self).__name__}: the first step makes the optimizer's "
                               "state; take one before a step is captured")

    def _moving(self, group: dict[str, Any], device: Device
                ) -> tuple[float | Tensor, Tensor | None]:
        """What schedules move, for parameters on this device: the learning rate of a group, and
        the tensor that has its momentum (beta1) if there is one.

        While a graph is captured both are tensors, which each replay finds as eager steps would
        find the group's settings.
        """
        lr: float | Tensor = group["lr"]
        if device.type == "cpu" or context.capture is None:
            return lr, None
        number = next(i for i, other in enumerate(self.param_groups) if other is group)
        ahead = Ahead.of(self, context.capture)
        if not isinstance(lr, Tensor) or lr.device.type == "cpu":
            lr = ahead.rate(number)
        return lr, ahead.momentum(number)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                clear_grad(param, set_to_none)

    # --- groups -----------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Optimize more parameters: a dict with "params" and the settings that differ.

        Raises ShapeError (a ValueError) for parameters that are in a group already, that are not
        leaves, or without a setting that has no default.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"add_param_group: expected a dict, got {type(param_group).__name__}")
        group = dict(param_group)
        params = group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, (set, frozenset)):
            raise TypeError("add_param_group: parameters need an order to be saved by; pass a list "
                            "instead of a set")
        params = list(params)
        if params and all(isinstance(param, tuple) for param in params):
            group["param_names"] = [name for name, _ in params]
            params = [param for _, param in params]
        if any(("param_names" in group) != ("param_names" in other)
               for other in self.param_groups):
            raise ShapeError("add_param_group: either all groups have named parameters or none")
        group["params"] = params
        self._check_params(params)
        for name, default in self.defaults.items():
            group.setdefault(name, default)
        self.param_groups.append(group)

    def _check_params(self, params: list[Any]) -> None:
        known = {id(param) for group in self.param_groups for param in group["params"]}
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(f"{type(self).__name__}: can only optimize Tensors, got "
                                f"{type(param).__name__}")
            if not (param.is_leaf or param.retains_grad):
                raise ShapeError(f"{type(self).__name__}: can only optimize leaves, got a result "
                                 f"of shape {tuple(param.shape)}; detach() it first")
            if id(param) in known:
                raise ShapeError(f"{type(self).__name__}: a parameter of shape "
                                 f"{tuple(param.shape)} is given more than once")
            known.add(id(param))

    # --- state ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """{"state": by the parameters' numbers, "param_groups": settings and numbers}."""
        for hook in list(self._state_dict_hooks["before_save"].values()):
            hook(self)
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                numbers[id(param)] = len(numbers)
            packed = {name: value for name, value in group.items() if name != "params"}
            packed["params"] = [numbers[id(param)] for param in group["params"]]
            groups.append(packed)
        state = {numbers[id(key)] if isinstance(key, Tensor) else key: value
                 for key, value in self.state.items()}
        made = {"state": state, "param_groups": groups}
        for hook in list(self._state_dict_hooks["after_save"].values()):
            made = hook(self, made) or made
        return made

    @no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over settings and state, in the order of the parameters; tensors are copied.

        State is moved to its parameter's device and, where floating, cast to its dtype (but the
        count of steps).  Raises ShapeError (a ValueError) where groups or their sizes differ.
        """
        for hook in list(self._state_dict_hooks["before_load"].values()):
            state_dict = hook(self, dict(state_dict)) or state_dict
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ShapeError(f"load_state_dict: the state has {len(saved)} parameter groups, the "
                             f"optimizer {len(self.param_groups)}")
        by_number: dict[int, Tensor] = {}
        for number, (theirs, ours) in enumerate(zip(saved, self.param_groups, strict=True)):
            if len(theirs["params"]) != len(ours["params"]):
                raise ShapeError(f"load_state_dict: group {number} has {len(theirs['params'])} "
                                 f"parameters in the state, {len(ours['params'])} in the optimizer")
            by_number.update(zip(theirs["params"], ours["params"], strict=True))
        state: dict[Any, dict[str, Any]] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            param = by_number.get(key)
            if param is None:
                state[key] = deepcopy(value)
            else:
                state[param] = {name: _restored(item, param, name in self._singles)
                                for name, item in value.items()}
        self.state = state
        self.param_groups = [
            {**{name: deepcopy(value) for name, value in theirs.items() if name != "params"},
             **({"param_names": ours["param_names"]} if "param_names" in ours else {}),
             "params": ours["params"]}
            for theirs, ours in zip(saved, self.param_groups, strict=True)]
        if self._offload is not None:
            self._offload.away(self)
        for hook in list(self._state_dict_hooks["after_load"].values()):
            hook(self)

    # --- hooks ------------------------------------------------------------------------------

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Before each step call `hook(optimizer, args, kwargs)`."""
        return RemovableHandle(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """After each step call `hook(optimizer, args, kwargs)`."""
        return RemovableHandle(self._step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Before each state_dict call `hook(optimizer)`."""
        return RemovableHandle(self._state_dict_hooks["before_save"], hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """After each state_dict call `hook(optimizer, state_dict)`, which may return another."""
        return RemovableHandle(self._state_dict_hooks["after_save"], hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Before each load_state_dict call `hook(optimizer, state_dict)`, which may return another.
        """
        return RemovableHandle(self._state_dict_hooks["before_load"], hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """After each load_state_dict call `hook(optimizer)`."""
        return RemovableHandle(self._state_dict_hooks["after_load"], hook)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


class PerDevice:
    """`make(device)`, made once for each device."""

    def __init__(self, make: Callable[[Device], Any]) -> None:
        self._make = make
        self._found: dict[Device, Any] = {}
        self._last: tuple[Device | None, Any] = (None, None)

    def __call__(self, device: Device) -> Any:
        if self._last[0] is not device:
            if device not in self._found:
                self._found[device] = self._make(device)
            self._last = device, self._found[device]
        return self._last[1]


def _restored(value: Any, param: Tensor, single: bool) -> Any:
    """A copy of one piece of state, where and as its parameter needs it."""
    if isinstance(value, list):
        return [_restored(item, param, single) for item in value]
    if not isinstance(value, Tensor):
        return deepcopy(value)
    if single:  # in float32, whatever the parameter, and counts perhaps on the host
        return value.detach().clone()
    dtype = param.dtype if param.is_floating_point() or param.is_complex() else None
    if dtype is not None and dtype.is_complex and not value.is_complex():
        dtype = dtype.to_real()
    return value.detach().to(device=param.device, dtype=dtype, copy=True)


def grad_of(param: Tensor, maximize: bool = False) -> Tensor:
    """The gradient of a parameter that has one, against its sign to maximize."""
    grad = param.grad
    assert grad is not None
    return -grad if maximize else grad


def check_setting(owner: str, name: str, value: float, low: float = 0.0,
                  high: float = float("inf")) -> None:
    """Raise ShapeError (a ValueError) unless low <= value < high."""
    if not low <= value < high:
        below = "" if high == float("inf") else f" and below {high:g}"
        raise ShapeError(f"{owner}: {name} must be at least {low:g}{below}, got {value}")


def check_betas(owner: str, betas: Sequence[float], count: int = 2) -> None:
    """Raise ShapeError (a ValueError) unless these are `count` numbers in [0, 1)."""
    if len(betas) != count:
        raise ShapeError(f"{owner}: betas must be {count} numbers, got {betas}")
    for place, beta in enumerate(betas):
        check_setting(owner, f"betas[{place}]", beta, high=1.0)


def check_options(owner: str, differentiable: bool, foreach: bool | None, fused: bool | None
                  ) -> None:
    """Refuse what the fused update cannot do; `foreach` and `fused` choose nothing here."""
    if differentiable:
        raise MlgpuError(f"{owner}: differentiable=True is not supported; the update is not part "
                         "of the graph")
    if foreach and fused:
        raise MlgpuError(f"{owner}: foreach and fused cannot both be True")
