"""RuleOptimizer: what optimizers have in common that change each element by itself."""

from __future__ import annotations

from functools import partial
from typing import Any

from mlgpu.device import Device
from mlgpu.dtypes import float32
from mlgpu.ops.creation import full, zeros_like
from mlgpu.ops.optimizer_rule import Rule, RuleSettings, apply_rule_
from mlgpu.optim.optimizer import Optimizer, PerDevice, grad_of
from mlgpu.tensor import Tensor


class RuleOptimizer(Optimizer):
    """An optimizer whose update is a `Rule` for each of its groups.

    A subclass gives the rule of a group and the numbers that it reads, learning rate first; state
    begins as zeros, and single numbers as 0, unless `begin` says otherwise.  Single numbers lie on
    their parameter's device, so that a captured CUDA graph goes on counting: `capturable` chooses
    nothing, and neither do `foreach` and `fused`, since the update is always one pass.
    """

    reads_found_inf = True

    def rule(self, group: dict[str, Any]) -> Rule:
        """The rule of a group."""
        raise NotImplementedError(f"{type(self).__name__}: rule is not defined")

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        """The settings that the rule reads after the learning rate."""
        raise NotImplementedError(f"{type(self).__name__}: numbers is not defined")

    def begin(self, name: str, param: Tensor, group: dict[str, Any]) -> Tensor:
        """The first value of a piece of state."""
        if name in self.rule(group).arrays:
            return zeros_like(param)
        return full((), 0.0, dtype=float32, device=param.device)

    def update(self, group: dict[str, Any]) -> None:
        self._update_groups([group])

    def _update_all(self) -> None:
        if type(self).update is RuleOptimizer.update:
            self._update_groups(self.param_groups)
        else:
            super()._update_all()

    def _update_groups(self, groups: list[dict[str, Any]]) -> None:
        by_rule: dict[Rule, list[tuple[Tensor, RuleSettings]]] = {}
        for group in groups:
            common = PerDevice(partial(self._settings, group))
            chosen = by_rule.setdefault(self.rule(group), [])
            for param in group["params"]:
                if param.grad is not None:
                    self._prepare(param, group)
                    chosen.append((param, common(param._storage.device)))
        for rule, chosen in by_rule.items():
            self._apply(rule, [param for param, _ in chosen],
                        [settings for _, settings in chosen])

    def _apply(self, rule: Rule, params: list[Tensor], settings: list[RuleSettings]) -> None:
        states = [self.state[param] for param in params]
        apply_rule_(rule, params, [grad_of(param) for param in params],
                    [[state[name] for name in rule.arrays] for state in states],
                    [[state[name] for name in rule.singles] for state in states], settings,
                    grad_factor=self.grad_factor, found_inf=self.found_inf)

    def _settings(self, group: dict[str, Any], device: Device) -> RuleSettings:
        lr, cell = self._moving(group, device)
        moved = cell if self.rule(group).momentum >= 0 else None
        return RuleSettings((lr, *self.numbers(group)), group["maximize"], moved)

    def _prepare(self, param: Tensor, group: dict[str, Any]) -> None:
        """Make what there is not yet of a parameter's state."""
        state, rule = self.state[param], self.rule(group)
        for name in (*rule.singles, *rule.arrays):
            if name not in state:
                self._check_begun()
                state[name] = self.begin(name, param, group)
        for name in rule.singles:
            single = state[name]
            if single._storage.device != param._storage.device or single.dtype is not float32:
                state[name] = single.to(param.device, float32)  # PyTorch counts on the CPU
