"""A pendulum that is to be swung up, with Gymnasium's constants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.rl.environment import Episodic
from mlgpu.rl.spaces import Array, Box

GRAVITY, MASS, LENGTH = 10.0, 1.0, 1.0
SECONDS = 0.05  # of a step
MAX_SPEED, MAX_TORQUE = 8.0, 2.0


class Pendulum(Episodic):
    """Swing a rod up and keep it there by a torque that is too weak to lift it at once.

    Actions are float32 (1,), the torque from -2 to 2, observations float32 (3,): cosine and sine of
    the angle from upright, and the angular velocity.  The reward is
    -(angle² + 0.1 velocity² + 0.001 torque²), the angle in (-pi, pi].  An episode never terminates,
    and is truncated after `max_steps`.

    A uniform rod turns by 3 g / (2 l) sin(angle) + 3 torque / (m l²), in semi-implicit steps of
    Euler's.  With the same seed and actions, the episodes of Gymnasium's Pendulum-v1.
    """

    def __init__(self, max_steps: int = 200) -> None:
        super().__init__(max_steps)
        bound = np.array([1.0, 1.0, MAX_SPEED])
        self.observation_space = Box(-bound, bound)
        self.action_space = Box(-MAX_TORQUE, MAX_TORQUE, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[Array, dict[str, Any]]:
        """Any angle, at a low speed."""
        self._begin(seed)
        bound = np.array([math.pi, 1.0])
        self._state = tuple(self._random.uniform(-bound, bound).tolist())
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Turn for a twentieth of a second."""
        self._acting(action)
        angle, spin = self._state
        torque = float(np.asarray(action)[0])
        around = (angle + math.pi) % (2 * math.pi) - math.pi
        cost = around * around + 0.1 * spin * spin + 0.001 * torque * torque
        spin += SECONDS * (3 * GRAVITY / (2 * LENGTH) * math.sin(angle)
                           + 3.0 / (MASS * LENGTH * LENGTH) * torque)
        spin = min(max(spin, -MAX_SPEED), MAX_SPEED)
        self._state = (angle + SECONDS * spin, spin)
        return self._observation(), -cost, False, self._stepped(False), {}

    def _observation(self) -> Array:
        angle, spin = self._state
        return np.array([math.cos(angle), math.sin(angle), spin], np.float32)
