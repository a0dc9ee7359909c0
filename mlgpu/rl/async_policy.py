"""Acting in a thread of its own while training goes on."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from mlgpu.errors import MlgpuError
from mlgpu.random import Generator
from mlgpu.rl.actor import Actor, Step
from mlgpu.rl.agent import follow
from mlgpu.rl.policies import Policy
from mlgpu.tensor import Tensor


class AsyncPolicy:
    """A copy of a policy that acts in a thread of its own, for all environments in one batch.

    Given to an OffPolicyTrainer, which goes on training meanwhile.  The steps come in rounds of
    `train_every`.

    deterministic: a round is acted by the weights of the moment when the round before was taken in,
    and is taken in whole.  So what is learnt does not depend on time, and a run resumes bit for
    bit.  Otherwise the thread works up to `ahead` rounds ahead, each step with the newest weights.
    """

    def __init__(self, *, deterministic: bool = True, ahead: int = 1) -> None:
        if ahead < 1 or (deterministic and ahead != 1):
            raise ValueError("AsyncPolicy: ahead must be at least 1, and 1 where deterministic, "
                             f"got {ahead}")
        self.deterministic, self.ahead = deterministic, ahead
        self._lock = threading.Lock()  # held while the copy acts or changes
        self._rounds: deque[Future[list[Step]]] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self._actor: Actor | None = None
        self._source: Policy | None = None
        self._policy: Policy | None = None

    def attach(self, actor: Actor, policy: Policy) -> None:
        """Act for `actor` from now on, with `policy`'s weights.  MlgpuError where it has one."""
        if self._actor is not None:
            raise MlgpuError("AsyncPolicy: it acts for a trainer already; make one for each")
        self._actor, self._source = actor, policy
        self._policy = copy.deepcopy(policy).requires_grad_(False)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlgpu policy")
        actor.policy = self

    def act(self, observation: Tensor, *, step: int = 0, deterministic: bool = False,
            generator: Generator | None = None) -> Tensor:
        """An action for each row, by the weights that were published last."""
        if self._policy is None:
            raise MlgpuError("AsyncPolicy.act: give it to an OffPolicyTrainer first")
        with self._lock:
            return self._policy.act(observation, step=step, deterministic=deterministic,
                                    generator=generator)

    def publish(self) -> None:
        """Let it act by the weights of now."""
        assert self._policy is not None
        assert self._source is not None
        with self._lock:
            follow(self._policy, self._source, 1.0)

    def take(self, count: int) -> list[Step]:
        """The next round of `count` steps; others begin.  Raises what acting raised."""
        self._begin(count)
        steps = self._rounds.popleft().result()
        if self.deterministic:
            self.publish()  # no round is under way
        self._begin(count)
        return steps

    def _begin(self, count: int) -> None:
        assert self._thread is not None
        assert self._actor is not None
        while len(self._rounds) < self.ahead:
            self._rounds.append(self._thread.submit(self._actor.run, count))

    def settle(self) -> None:
        """Wait until no round is under way; those that are done stay to be taken."""
        wait(self._rounds)

    def state_dict(self) -> dict[str, Any]:
        """The rounds that are done and not taken; waits for those under way."""
        return {"rounds": [[list(step) for step in found.result()] for found in self._rounds]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._rounds.clear()
        for steps in state["rounds"]:
            done: Future[list[Step]] = Future()
            done.set_result([Step(*step) for step in steps])
            self._rounds.append(done)
        self.publish()
