"""What only a new process can show: import, start to first result, memory of a training step."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from . import models
from .check import error
from .peers import BASELINE, PEERS, command, environment
from .process import WorkerError
from .record import Measure, Row, interleaved
from .table import WORKLOADS
from .workload import Array, Arrays

STEPS = 4  # of training before the peak is read

# What a layer is built by: weights that are loaded need not be drawn before.  PyTorch draws them
# faster than its skip_init loads what that needs (half a second), so its own layers are plain.
_BUILD = {"mlgpu": "nn.utils.skip_init", "torch": "lambda layer, *sizes: layer(*sizes)"}
_MLP = ("build = {build}\n"
        "model = nn.Sequential(build(nn.Linear, {inputs}, {hidden}), nn.ReLU(), "
        "build(nn.Linear, {hidden}, {hidden}), nn.ReLU(), build(nn.Linear, {hidden}, {classes}))\n")
_FIRST = ("import {lib}\nfrom {lib} import nn\n" + _MLP +
          "model.load_state_dict({lib}.load({path!r}))\n"
          "with {lib}.no_grad():\n"
          "    print(model({lib}.ones(1, {inputs})).tolist(), flush=True)\n")
_SAVE = ("import numpy, {lib}\nfrom {lib} import nn\n" + _MLP +
         "given = numpy.load({weights!r})\n"
         "model.load_state_dict({{n: {lib}.from_numpy(given[n]) for n in given}})\n"
         "{lib}.save(model.state_dict(), {path!r})\n")


@dataclass(frozen=True)
class Memory:
    """Resident bytes of a process that trains."""

    before: int  # its first step
    peak: int
    after: int  # its last step


@dataclass(frozen=True)
class Setting:
    """What the rows are measured with."""

    folder: Path  # for what they write
    rounds: int
    threads: int
    tiny: bool
    seed: int
    # Of each library the processes that trained: three rows tell of the same ones.
    trained: dict[str, list[Memory]] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """How a row is measured in a library that is named."""

    value: Callable[[str], float]
    first: Callable[[str], Array | None]  # before any value: the output that is checked
    expected: Array | None = None


@dataclass(frozen=True)
class Fresh:
    """A row whose every value comes from a new process."""

    name: str
    title: str
    unit: str
    probe: Callable[[Setting], Probe]
    rounds: int  # at most
    kits: tuple[str, ...] = ("torch_kit",)  # of the libraries that it can be measured in


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
        raise WorkerError(f"a new process ended with status {process.returncode}: "
                          f"{said[-2000:].strip()}")
    return seconds, line


def _import(setting: Setting) -> Probe:
    def value(peer: str) -> float:
        return _run(peer, setting.threads,
                    [sys.executable, "-c", f"import {_library(peer)}; print()"])[0]

    def first(peer: str) -> None:
        value(peer)  # the files are compiled and read once before

    return Probe(value, first)


def _cold_start(setting: Setting) -> Probe:
    sizes = models.TINY_MLP if setting.tiny else models.MLP
    given = models.weights(np.random.default_rng(setting.seed), models.mlp_shapes(sizes))
    weights = str(setting.folder / "mlp.npz")
    np.savez(weights, **given)  # type: ignore[arg-type]  # NumPy declares its own options too
    x = np.ones((1, sizes["inputs"]))
    for i in (0, 2, 4):
        x = x @ given[f"{i}.weight"].T.astype(np.float64) + given[f"{i}.bias"]
        x = x if i == 4 else np.maximum(x, 0)

    def run(peer: str, text: str) -> tuple[float, str]:
        library = _library(peer)
        code = text.format(lib=library, build=_BUILD[library], weights=weights,
                           path=str(setting.folder / f"mlp.{peer}"), **sizes)
        return _run(peer, setting.threads, [sys.executable, "-c", code])

    def first(peer: str) -> Array:
        run(peer, _SAVE)
        return np.array(json.loads(run(peer, _FIRST)[1]))

    return Probe(lambda peer: run(peer, _FIRST)[0], first, x)


def _memory(setting: Setting, figure: Callable[[Memory], int]) -> Probe:
    inputs = str(setting.folder / "gpt.npz")
    arrays = WORKLOADS["gpt_step"].arrays(setting.seed, setting.tiny)
    np.savez(inputs, **arrays)  # type: ignore[arg-type]  # as above

    turns: dict[str, int] = {}

    def value(peer: str) -> float:
        turn = turns[peer] = turns.get(peer, -1) + 1
        taken = setting.trained.setdefault(peer, [])
        if turn == len(taken):
            said = _run(peer, setting.threads, [*command("fresh"), peer, inputs,
                                                str(setting.threads)])[1]
            taken.append(Memory(**json.loads(said)))
        return float(figure(taken[turn]))

    return Probe(value, lambda peer: None)


ROWS = {fresh.name: fresh for fresh in (
    Fresh("import", "import of the library, from the start of the process", "s", _import, 7,
          ("torch_kit", "jax_kit", "tinygrad_kit", "onnx_kit")),
    Fresh("cold_start", "start of the process to the first result of a saved MLP", "s",
          _cold_start, 7),
    Fresh("gpt_memory", "peak resident memory of a process that trains the GPT", "B",
          lambda setting: _memory(setting, lambda memory: memory.peak), 3),
    Fresh("gpt_memory_added", "memory that training the GPT adds to what its process had", "B",
          lambda setting: _memory(setting, lambda memory: memory.peak - memory.before), 3),
    Fresh("gpt_memory_after", "resident memory after the last step of training the GPT", "B",
          lambda setting: _memory(setting, lambda memory: memory.after), 3),
)}
TOLERANCE = 1e-5


def row(name: str, setting: Setting, peers: list[str]) -> Row:
    """Measure one row."""
    fresh = ROWS[name]
    found = Row(name, "process", fresh.title, fresh.unit,
                measures={peer: Measure() for peer in peers})
    probe = fresh.probe(setting)
    found.reference = "" if probe.expected is None else "NumPy in float64"
    outputs: Arrays = {}

    def guarded(peer: str, do: Callable[[str, Measure], None]) -> None:
        measure = found.measures[peer]
        if not measure.problem:
            try:
                do(peer, measure)
            except WorkerError as failed:
                measure.failed(str(failed))

    def check(peer: str, measure: Measure) -> None:
        output = probe.first(peer)
        if output is None or probe.expected is None:
            return
        outputs[peer] = output
        measure.error = error(output, probe.expected)
        if BASELINE in outputs and peer != BASELINE:
            measure.error_to_baseline = error(output, outputs[BASELINE])
        if not measure.error <= TOLERANCE:
            measure.failed(f"differs from float64: error {measure.error:.1e} of the largest "
                           f"value, bound {TOLERANCE:.0e}")

    def value(peer: str, measure: Measure) -> None:
        taken = probe.value(peer)
        measure.add(taken, taken, taken)

    for peer in peers:
        guarded(peer, check)
    interleaved(peers, min(setting.rounds, fresh.rounds), lambda peer: guarded(peer, value))
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
    found = Memory(before, _resident("VmHWM"), _resident("VmRSS"))
    print(json.dumps(asdict(found)), flush=True)
