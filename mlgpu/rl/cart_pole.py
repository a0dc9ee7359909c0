"""The pole on a cart of Barto, Sutton and Anderson (1983), with Gymnasium's constants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.rl.environment import Episodic
from mlgpu.rl.spaces import Array, Box, Discrete

GRAVITY = 9.8
CART_MASS, POLE_MASS = 1.0, 0.1
HALF_LENGTH = 0.5  # of the pole, metres
FORCE = 10.0  # newtons, to the left or to the right
SECONDS = 0.02  # of a step
POSITION_LIMIT, ANGLE_LIMIT = 2.4, math.radians(12)


class CartPole(Episodic):
    """Keep a pole upright on a cart by pushing the cart to the left (0) or to the right (1).

    Observations are float32 (4,): position, velocity, the pole's angle, its angular velocity.  The
    reward is 1 for each step.  An episode terminates when the pole leans over 12 degrees or the
    cart is 2.4 m from the middle, and is truncated after `max_steps`.

    Equations of motion: Barto, Sutton & Anderson, "Neuronlike adaptive elements that can solve
    difficult learning control problems" (1983), without friction, in steps of Euler's.  With the
    same seed and actions, the episodes of Gymnasium's CartPole-v1.
    """

    def __init__(self, max_steps: int = 500) -> None:
        super().__init__(max_steps)
        bound = np.array([2 * POSITION_LIMIT, np.inf, 2 * ANGLE_LIMIT, np.inf])
        self.observation_space = Box(-bound, bound)
        self.action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[Array, dict[str, Any]]:
        """A pole that is nearly upright."""
        self._begin(seed)
        self._state = tuple(self._random.uniform(-0.05, 0.05, 4).tolist())
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Push for a fiftieth of a second."""
        self._acting(action)
        x, v, angle, spin = self._state
        force = FORCE if int(action) else -FORCE
        sine, cosine = math.sin(angle), math.cos(angle)
        mass = CART_MASS + POLE_MASS
        push = (force + POLE_MASS * HALF_LENGTH * spin * spin * sine) / mass
        turn = (GRAVITY * sine - cosine * push) / (
            HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cosine * cosine / mass))
        pull = push - POLE_MASS * HALF_LENGTH * turn * cosine / mass
        x, v = x + SECONDS * v, v + SECONDS * pull
        angle, spin = angle + SECONDS * spin, spin + SECONDS * turn
        self._state = (x, v, angle, spin)
        terminated = abs(x) > POSITION_LIMIT or abs(angle) > ANGLE_LIMIT
        return self._observation(), 1.0, terminated, self._stepped(terminated), {}

    def _observation(self) -> Array:
        return np.array(self._state, np.float32)
