"""What only a new process can show: import, start to first result, memory of a training step."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import models
from .check import error
from .peers import PEERS, command, environment
from .record import Measure, Row, interleaved
from .table import WORKLOADS

STEPS = 4  # of training before the peak is read

_MLP = ("model = nn.Sequential(nn.Linear({inputs}, {hidden}), nn.ReLU(), "
        "nn.Linear({hidden}, {hidden}), nn.ReLU(), nn.Linear({hidden}, {classes}))\n")
_FIRST = ("import {lib}\nfrom {lib} import nn\n" + _MLP +
          "model.load_state_dict({lib}.load({path!r}))\n"
          "with {lib}.no_grad():\n"
          "    print(model({lib}.ones(1, {inputs})).tolist(), flush=True)\n")
_SAVE = ("import numpy, {lib}\nfrom {lib} import nn\n" + _MLP +
         "given = numpy.load({weights!r})\n"
         "model.load_state_dict({{n: {lib}.from_numpy(given[n]) for n in given}})\n"
         "{lib}.save(model.state_dict(), {path!r})\n")


@dataclass(frozen=True)
class Fresh:
    """A row whose every value comes from a new process."""

    name: str
    title: str
    unit: str
    measure: Callable[[Setting, list[str]], dict[str, Measure]]
    rounds: int  # at most


@dataclass(frozen=True)
class Setting:
    """What the rows are measured with."""

    folder: Path  # for what they write
    rounds: int
    threads: int
    tiny: bool
    seed: int


def _library(peer: str) -> str:
    return peer.split("-")[0]


def _run(peer: str, threads: int, code: list[str]) -> tuple[float, str]:
    """The time until the process has printed its first line (or ended), and that line."""
    start = time.perf_counter()
    with subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=environment(PEERS[peer], threads)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{peer}: a new process ended with status {process.returncode}: "
                           f"{said[-2000:].strip()}")
    return seconds, line


def _timed(measure: Measure, value: float) -> None:
    measure.values.append(value)
    measure.bests.append(value)
    measure.p99s.append(value)


def _import(setting: Setting, peers: list[str]) -> dict[str, Measure]:
    found = {peer: Measure() for peer in peers}

    def code(peer: str) -> list[str]:
        return [sys.executable, "-c", f"import {_library(peer)}; print()"]

    for peer in peers:  # the files are read and compiled once before
        _run(peer, setting.threads, code(peer))
    interleaved(peers, setting.rounds,
                lambda p: _timed(found[p], _run(p, setting.threads, code(p))[0]))
    return found


def _cold_start(setting: Setting, peers: list[str]) -> dict[str, Measure]:
    found = {peer: Measure() for peer in peers}
    sizes = models.TINY_MLP if setting.tiny else models.MLP
    given = models.weights(np.random.default_rng(setting.seed), models.mlp_shapes(sizes))
    weights = str(setting.folder / "mlp.npz")
    np.savez(weights, **given)  # type: ignore[arg-type]  # NumPy declares its own options too
    x = np.ones((1, sizes["inputs"]))
    for i in (0, 2, 4):
        x = x @ given[f"{i}.weight"].T.astype(np.float64) + given[f"{i}.bias"]
        x = x if i == 4 else np.maximum(x, 0)
    paths = {peer: str(setting.folder / f"mlp.{peer}") for peer in peers}

    def code(peer: str, text: str) -> list[str]:
        return [sys.executable, "-c", text.format(lib=_library(peer), path=paths[peer],
                                                  weights=weights, **sizes)]

    outputs = {}
    for peer in peers:
        _run(peer, setting.threads, code(peer, _SAVE))
        outputs[peer] = np.array(json.loads(_run(peer, setting.threads, code(peer, _FIRST))[1]))
        found[peer].error = error(outputs[peer], x)
        found[peer].error_to_baseline = error(outputs[peer], outputs[peers[0]])
        if not found[peer].error <= 1e-5:  # type: ignore[operator]
            found[peer].problem = f"output: error {found[peer].error:.1e}, bound 1e-05"
    interleaved([peer for peer in peers if not found[peer].problem], setting.rounds,
                lambda p: _timed(found[p], _run(p, setting.threads, code(p, _FIRST))[0]))
    return found


def _memory(setting: Setting, peers: list[str], increase: bool) -> dict[str, Measure]:
    found = {peer: Measure() for peer in peers}
    inputs = str(setting.folder / "gpt.npz")
    np.savez(inputs, **WORKLOADS["gpt_step"].arrays(setting.seed, setting.tiny))  # type: ignore[arg-type]

    def ask(peer: str) -> None:
        _, line = _run(peer, setting.threads,
                       [*command("fresh"), peer, inputs, str(setting.threads)])
        before, peak = json.loads(line)
        _timed(found[peer], peak - before if increase else peak)

    interleaved(peers, setting.rounds, ask)
    return found


ROWS = {fresh.name: fresh for fresh in (
    Fresh("import", "import of the library, from the start of the process", "s", _import, 7),
    Fresh("cold_start", "start of the process to the first result of a saved MLP", "s",
          _cold_start, 7),
    Fresh("gpt_memory", "peak resident memory of a process that trains the GPT", "B",
          lambda s, p: _memory(s, p, False), 3),
    Fresh("gpt_memory_added", "the same, over what the process had before its first step", "B",
          lambda s, p: _memory(s, p, True), 3),
)}


def row(name: str, setting: Setting, peers: list[str]) -> Row:
    """Measure one row.  The first peer is what outputs are compared with."""
    fresh = ROWS[name]
    limited = Setting(setting.folder, min(setting.rounds, fresh.rounds), setting.threads,
                      setting.tiny, setting.seed)
    found = Row(name, "process", fresh.title, fresh.unit)
    found.measures = fresh.measure(limited, peers)
    if name == "cold_start":
        found.reference = "NumPy"
    return found


def _resident(field: str) -> int:
    """Bytes of this process' resident memory: now ("VmRSS"), or at most so far ("VmHWM")."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        import resource  # macOS: the peak alone, in bytes

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(line for line in text.splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) << 10


def main() -> None:
    """Train the GPT for some steps in the library that is named, and print what memory it took."""
    peer, inputs, threads = sys.argv[1:]
    kit = importlib.import_module(f".{PEERS[peer].kit}", __package__).kit(
        peer, "cpu", "float32", int(threads))
    with np.load(inputs) as archive:
        case = kit.case(WORKLOADS["gpt_step"], dict(archive))
    before = _resident("VmRSS")
    for _ in range(STEPS):
        case.call()
    print(json.dumps([before, _resident("VmHWM")]), flush=True)
