"""What steps were worth: discounted returns and advantages, time along the first dimension."""

from __future__ import annotations

from mlgpu.autograd import no_grad
from mlgpu.errors import ShapeError
from mlgpu.ops.choice import where
from mlgpu.ops.creation import zeros_like
from mlgpu.ops.join import stack
from mlgpu.tensor import Tensor


@no_grad()
def discounted_returns(rewards: Tensor, terminated: Tensor, truncated: Tensor, gamma: float,
                       next_values: Tensor | None = None) -> Tensor:
    """G_t = r_t + gamma G_{t+1} within each episode: (T, ...) as `rewards`.

    After a step at which an episode was truncated, and after the last, `next_values` (the value of
    what the action led to) takes the place of G_{t+1}; 0 without it, and where one terminated.
    """
    after = zeros_like(rewards) if next_values is None else next_values
    _check("discounted_returns", rewards, terminated, truncated, after)
    after = after.masked_fill(terminated, 0.0)
    ended = terminated | truncated
    found: list[Tensor] = []
    follows = after[-1]
    for t in reversed(range(len(rewards))):
        follows = rewards[t] + gamma * where(ended[t], after[t], follows)
        found.append(follows)
    return stack(found[::-1])


@no_grad()
def generalized_advantages(rewards: Tensor, values: Tensor, next_values: Tensor,
                           terminated: Tensor, truncated: Tensor, gamma: float, lam: float
                           ) -> Tensor:
    """Generalised advantage estimates (Schulman and others, 2016): (T, ...) as `rewards`.

        delta_t = r_t + gamma V(s'_t) - V(s_t)        A_t = delta_t + gamma lam A_{t+1}

    values: V(s_t); next_values: V(s'_t) of what each action led to, which counts as 0 where the
    episode terminated.  A_{t+1} is 0 where an episode ended, and after the last step.
    """
    _check("generalized_advantages", rewards, values, next_values, terminated, truncated)
    deltas = rewards + gamma * next_values.masked_fill(terminated, 0.0) - values
    goes_on = (~(terminated | truncated)).to(rewards.dtype) * (gamma * lam)
    found: list[Tensor] = []
    advantage = zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        advantage = deltas[t] + goes_on[t] * advantage
        found.append(advantage)
    return stack(found[::-1])


def _check(owner: str, rewards: Tensor, *others: Tensor) -> None:
    if rewards.ndim < 1 or not len(rewards):
        raise ShapeError(f"{owner}: expected at least one step along the first dimension, got "
                         f"{tuple(rewards.shape)}")
    for other in others:
        if other.shape != rewards.shape:
            raise ShapeError(f"{owner}: all must have the shape of rewards, "
                             f"{tuple(rewards.shape)}, got {tuple(other.shape)}")
