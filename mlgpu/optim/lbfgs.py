"""L-BFGS: steps along an approximate inverse Hessian, from the gradients of the last steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlgpu.autograd import enable_grad, no_grad
from mlgpu.cuda.context import context
from mlgpu.errors import CaptureError, ShapeError
from mlgpu.ops.complex import view_as_real
from mlgpu.ops.join import cat
from mlgpu.optim.line_search import Point, strong_wolfe
from mlgpu.optim.optimizer import Optimizer, Params, check_setting
from mlgpu.tensor import Tensor


class LBFGS(Optimizer):
    """Limited-memory BFGS (Nocedal and Wright 2006, algorithm 7.5), one step of up to `max_iter`.

    `step(closure)` calls the closure up to `max_eval` (by default 1.25 * max_iter) times; it must
    compute the loss and its gradients anew.  It ends where no gradient exceeds `tolerance_grad` or
    nothing changes by `tolerance_change`.  `line_search_fn` is None (a step of `lr`) or
    "strong_wolfe".  One parameter group; decisions are made on the host, so that a step cannot be
    captured.
    """

    needs_closure = True

    def __init__(self, params: Params, lr: float | Tensor = 1, max_iter: int = 20,
                 max_eval: int | None = None, tolerance_grad: float = 1e-7,
                 tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None) -> None:
        check_setting("LBFGS", "lr", float(lr))
        if line_search_fn not in (None, "strong_wolfe"):
            raise ShapeError("LBFGS: line_search_fn must be None or 'strong_wolfe', got "
                             f"{line_search_fn!r}")
        super().__init__(params, {
            "lr": lr, "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
            "history_size": history_size, "line_search_fn": line_search_fn})
        if len(self.param_groups) != 1:
            raise ShapeError(f"LBFGS: takes one parameter group, got {len(self.param_groups)}")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take up to `max_iter` steps; returns the closure's first loss."""
        if closure is None:
            raise TypeError("LBFGS.step: needs a closure that computes the loss and its gradients")
        if context.capture is not None:
            raise CaptureError("LBFGS: its steps are decided on the host and cannot be captured")
        for hook in list(self._step_pre_hooks.values()):
            hook(self, (closure,), {})
        with no_grad():
            loss = self._minimize(closure)
        for hook in list(self._step_post_hooks.values()):
            hook(self, (closure,), {})
        return loss

    # --- all parameters as one vector -------------------------------------------------------------

    def _params(self) -> list[Tensor]:
        return list(self.param_groups[0]["params"])

    def _gradient(self) -> Tensor:
        return cat([_real(p.new_zeros(p.shape) if p.grad is None else p.grad)
                    for p in self._params()])

    def _move(self, start: list[Tensor], size: float, direction: Tensor) -> None:
        """Set the parameters to start + size * direction."""
        offset = 0
        for param, value in zip(self._params(), start, strict=True):
            count = _real(value).numel()
            part = direction[offset:offset + count].to(_real(value).dtype)
            _real(param.detach()).copy_(_real(value) + part * size)
            offset += count

    # --- steps ------------------------------------------------------------------------------------

    def _minimize(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        state = self.state[group["params"][0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        most = state["func_evals"] + group["max_eval"]

        def evaluate() -> tuple[Any, Tensor]:
            state["func_evals"] += 1
            with enable_grad():
                loss = closure()
            return loss, self._gradient()

        first, gradient = evaluate()
        loss, memory = float(first), _Memory(state, group["history_size"])
        if _largest(gradient) <= group["tolerance_grad"]:
            return first
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = memory.direction(gradient, state["n_iter"] == 1)
            size = float(group["lr"])
            if state["n_iter"] == 1:
                size *= min(1.0, 1.0 / float(gradient.abs().sum()))
            here = Point(0.0, loss, gradient, float((gradient * direction).sum()))
            if here.slope > -group["tolerance_change"]:
                break
            start = [param.detach().clone() for param in self._params()]
            if group["line_search_fn"] == "strong_wolfe":
                def at(size: float, start: list[Tensor] = start, along: Tensor = direction
                       ) -> Point:
                    self._move(start, size, along)
                    value, found = evaluate()
                    return Point(size, float(value), found, float((found * along).sum()))

                there = strong_wolfe(at, here, size, _largest(direction))
                size, loss, gradient = there.size, there.loss, there.gradient
                self._move(start, size, direction)
            else:
                self._move(start, size, direction)
                if iteration < group["max_iter"]:
                    value, gradient = evaluate()
                    loss = float(value)
            memory.keep(direction, size, here.gradient)
            if (state["func_evals"] >= most or _largest(gradient) <= group["tolerance_grad"]
                    or _largest(direction * size) <= group["tolerance_change"]
                    or abs(loss - here.loss) < group["tolerance_change"]):
                break
        return first


class _Memory:
    """The differences of the last steps and gradients, in the optimizer's state."""

    def __init__(self, state: dict[str, Any], most: int) -> None:
        self.state, self.most = state, most

    def direction(self, gradient: Tensor, first: bool) -> Tensor:
        """-H * gradient by the two-loop recursion, after the last step has been taken in."""
        state = self.state
        if first:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
            return -gradient
        change, step = gradient - state["prev_flat_grad"], state["d"] * state["t"]
        curvature = float((change * step).sum())
        if curvature > 1e-10:  # else the Hessian would not stay positive
            if len(state["old_dirs"]) == self.most:
                for kept in (state["old_dirs"], state["old_stps"], state["ro"]):
                    kept.pop(0)
            state["old_dirs"].append(change)
            state["old_stps"].append(step)
            state["ro"].append(1.0 / curvature)
            state["H_diag"] = curvature / float((change * change).sum())
        q: Tensor = -gradient
        shares: list[Tensor] = []
        known = list(zip(state["old_dirs"], state["old_stps"], state["ro"], strict=True))
        for change, step, rho in reversed(known):
            shares.append((step * q).sum() * rho)
            q = q - change * shares[-1]
        q = q * state["H_diag"]
        for (change, step, rho), share in zip(known, reversed(shares), strict=True):
            q = q + step * (share - (change * q).sum() * rho)
        return q

    def keep(self, direction: Tensor, size: float, gradient: Tensor) -> None:
        """Keep what the next direction needs of this step."""
        self.state.update(d=direction, t=size, prev_flat_grad=gradient)


def _real(x: Tensor) -> Tensor:
    """All elements in one dimension; complex ones as their two parts."""
    return (view_as_real(x) if x.is_complex() else x).reshape(-1)


def _largest(x: Tensor) -> float:
    return float(x.abs().max())
