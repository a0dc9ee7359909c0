"""The driver's end of a worker process."""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import suppress
from typing import Any

from .peers import Peer, command, environment


class WorkerError(RuntimeError):
    """A worker answered with an error, or ended."""


class Process:
    """A worker process of one peer."""

    def __init__(self, peer: Peer, device: str, dtype: str, threads: int) -> None:
        self.peer = peer
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            command("worker"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
            text=True, env=environment(peer, threads))
        try:
            self.ask("start", peer=peer.name, device=device, dtype=dtype, threads=threads)
        except WorkerError:
            self.close()
            raise

    def ask(self, do: str, **request: Any) -> Any:
        """Send one request and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            self._said.seek(0)
            raise WorkerError(f"the process of {self.peer.name} ended with status {status} when "
                              f"asked for {do}: {self._said.read()[-2000:].strip()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.peer.name}: {do}: {answer['error'].strip()}")
        return answer["ok"]

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._said.close()
