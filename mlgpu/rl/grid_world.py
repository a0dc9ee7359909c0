"""Ways through a grid, small enough that the best of them can be computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu.rl.environment import Episodic
from mlgpu.rl.spaces import Discrete

_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left
_MAP = ("S...", ".#..", "...G")


class GridWorld(Episodic):
    """Walk from S to G by up (0), right (1), down (2) and left (3); # is a wall, the edge one too.

    Observations are the cell's number, row by row: Discrete(rows * columns).  The reward is -1 for
    each step, and the episode terminates at a G.  With probability `slip` a move goes to one of the
    two sides instead.  After Sutton & Barto, "Reinforcement Learning", chapter 4.
    """

    def __init__(self, rows: Sequence[str] = _MAP, *, slip: float = 0.0, max_steps: int = 100
                 ) -> None:
        super().__init__(max_steps)
        text = "".join(rows)
        if len({len(row) for row in rows}) != 1 or set(text) - set("SG#."):
            raise ValueError("GridWorld: rows must be of one length, of S, G, # and ., got "
                             f"{list(rows)}")
        if text.count("S") != 1 or "G" not in text:
            raise ValueError("GridWorld: there must be one S and at least one G, got "
                             f"{list(rows)}")
        if not 0 <= slip <= 1:
            raise ValueError(f"GridWorld: slip must be from 0 to 1, got {slip}")
        self.rows, self.slip = list(rows), slip
        self.observation_space = Discrete(len(text))
        self.action_space = Discrete(4)
        self._start = text.index("S")

    def moved(self, cell: int, action: int) -> int:
        """The cell that a move leads to where nobody slips."""
        width = len(self.rows[0])
        row, column = cell // width + _MOVES[action][0], cell % width + _MOVES[action][1]
        inside = 0 <= row < len(self.rows) and 0 <= column < width
        return row * width + column if inside and self.rows[row][column] != "#" else cell

    def is_goal(self, cell: int) -> bool:
        """Whether the cell is a G."""
        return "".join(self.rows)[cell] == "G"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[int, dict[str, Any]]:
        """The cell S."""
        self._begin(seed)
        self._state = (self._start,)
        return self._start, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Move by one cell."""
        self._acting(action)
        direction = int(action)
        if self.slip and self._random.random() < self.slip:
            direction = (direction + (1 if self._random.random() < 0.5 else 3)) % 4
        cell = self.moved(self._state[0], direction)
        self._state, terminated = (cell,), self.is_goal(cell)
        return cell, -1.0, terminated, self._stepped(terminated), {}
