"""What each operation moves and computes on the GPU, counted exactly by the simulated one.

    python benchmarks/cuda_counters.py            print the table
    python benchmarks/cuda_counters.py --write    and put it into docs/cuda-counters.md
    python benchmarks/cuda_counters.py --write add gelu    only the lines of these operations

For each operation, over all its launches: bytes to and from memory (32-byte sectors after the L2
model) over the least that its mathematics needs (inputs read once, outputs written once), and where
the algorithm named in the last column needs more, its least over the same; 32-byte sectors of loads
and stores over those that would do if each warp's bytes lay side by side; wavefronts of shared
memory over the ideal; tensor core operations over those needed; theoretical occupancy of its
busiest kernel on sm_80 and sm_90.
Ratios do not depend on the size.  Needs CuPy and the extra mlgpu[sim]; no GPU.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("MLGPU_CUDA", "sim")

import mlgpu
from mlgpu import Tensor
from mlgpu.cuda import softmax as cuda_softmax
from mlgpu.cuda.compile import compile
from mlgpu.cuda.launch import Kernel
from mlgpu.nn import functional as F
from mlgpu.ops.optimizer import unscale_
from mlgpu.sim import arch as archs
from mlgpu.sim import ptxas
from mlgpu.sim.facts import facts
from mlgpu.sim.report import Report

KERNELS: dict[str, Kernel] = {}  # by their symbols
load = Kernel._load


def remembered(kernel: Kernel, device: int) -> Any:
    """Load a kernel, and remember what its symbol is of."""
    loaded = load(kernel, device)
    KERNELS[loaded.name] = kernel
    return loaded


Kernel._load = remembered  # type: ignore[method-assign]
PAGE = Path(__file__).parent.parent / "docs" / "cuda-counters.md"
ARCHS = ("sm_80", "sm_90")


@dataclass(frozen=True)
class Row:
    """One operation: `make` gives what is counted and the bytes it needs at least, or what tells
    them from a result.

    extra: bytes that the algorithm named in `note` needs beside them.
    tensor: tensor core operations that the products need, 0 where there are none.
    spare: how many times that its tiles may take, as those on a causal diagonal.
    bytes, sectors: how many times the minimum and the ideal the operation stays within.
    """

    name: str
    make: Callable[[], tuple[Callable[[], Any], int | Callable[[Any], int]]]
    extra: int = 0
    note: str = ""
    tensor: int = 0
    spare: float = 1.0
    bytes: float = 1.05
    sectors: float = 1 / 0.95


@dataclass
class Counted:
    """The launches of one operation, added up."""

    launches: int = 0
    dram: float = 0
    sectors: float = 0
    ideal: float = 0
    shared: float = 0
    shared_ideal: float = 0
    tensor: float = 0
    busiest: tuple[float, Any] | None = None
    kernels: list[str] = field(default_factory=list)

    def add(self, launch: Any, module: Any) -> None:
        metrics = Report(launch, module).metrics
        self.launches += 1
        self.kernels.append(launch.code.name)
        self.dram += metrics["dram_bytes"]
        self.sectors += metrics["global_load_sectors"] + metrics["global_store_sectors"]
        self.ideal += metrics["global_load_sectors_ideal"] + metrics["global_store_sectors_ideal"]
        self.shared += metrics["shared_wavefronts"]
        self.shared_ideal += metrics["shared_wavefronts_ideal"]
        self.tensor += sum(metrics[f"tensor_{kind}_ops"] for kind in (
            "fp16", "bf16", "tf32", "fp64", "int8"))
        if self.busiest is None or metrics["instructions"] > self.busiest[0]:
            self.busiest = metrics["instructions"], (launch, module)

    def occupancy(self, name: str) -> float:
        """Per cent on an architecture, of the kernel with most instructions."""
        assert self.busiest is not None
        launch, _ = self.busiest[1]
        kernel = KERNELS[launch.code.name]
        names = () if kernel.plain else (kernel.expression,)
        image = compile(kernel.source, name, names, kernel.options, "ptx", kernel.filename)
        found = ptxas.resources(image.path.read_text(), name).get(launch.code.name)
        told = facts(archs.find(name), launch.blocks, launch.threads, launch.code.static_shared,
                     launch.dynamic_shared, found)
        return told["sm__maximum_warps_per_active_cycle_pct"]


def count(row: Row) -> tuple[Counted, int]:
    """Run an operation once to compile it, and once counted."""
    from mlgpu.sim.cuda.install import installed

    run, least = row.make()
    system = installed()
    assert system is not None, "counting needs simulated devices: MLGPU_CUDA=sim"
    made = run()
    mlgpu.cuda.synchronize()
    if not isinstance(least, int):
        least = least(made)
    del made
    counted = Counted()
    system.watchers.append(counted.add)
    try:
        run()
        mlgpu.cuda.synchronize()
    finally:
        system.watchers.remove(counted.add)
    return counted, least


# --- the operations -------------------------------------------------------------------------------

H, S = mlgpu.bfloat16, mlgpu.float32


def x(*shape: int, dtype: Any = H, grad: bool = False) -> Tensor:
    """A tensor of ordinary values on the device."""
    made = (mlgpu.arange(int(mlgpu.Size(shape).numel()), device="cuda") % 97 - 48) / 31
    return made.to(dtype).reshape(shape).requires_grad_(grad)


def ints(*shape: int, below: int) -> Tensor:
    """Indices that jump about."""
    return mlgpu.arange(int(mlgpu.Size(shape).numel()), device="cuda").reshape(shape) * 7919 % below


def mixed(*shape: int, dtype: Any = S) -> Tensor:
    """A tensor of values in no order."""
    places = mlgpu.arange(int(mlgpu.Size(shape).numel()), device="cuda")
    return ((places * 40503 % 65521 * 31 % 65521) / 65521 - 0.5).to(dtype).reshape(shape)


def columns() -> Tensor:
    """For each of 64 rows all its columns, not in their order."""
    return (mlgpu.arange(C, device="cuda") * 5 % C).expand(64, C).contiguous()


def size(*tensors: Any) -> int:
    """Bytes of tensors, also of those in tuples."""
    return sum(t.nbytes if isinstance(t, Tensor) else size(*t) for t in tensors)


def forward(function: Callable[..., Any], *inputs: Tensor) -> Any:
    """Reads its inputs and writes its results."""
    def run() -> Any:
        with mlgpu.no_grad():
            return function(*inputs)

    return run, lambda made: size(*inputs) + size(made)


def backward(function: Callable[..., Tensor], *inputs: Tensor, saved: int | None = None) -> Any:
    """Reads the gradient and what was saved, writes gradients of what requires one.

    `saved` are the bytes saved; the inputs' by default.
    """
    y = function(*inputs)
    dy = x(*y.shape, dtype=y.dtype)
    wanted = [t for t in inputs if t.requires_grad]

    def run() -> Any:
        return mlgpu.autograd.grad([y], wanted, [dy], retain_graph=True)

    kept = size(*inputs) if saved is None else saved
    return run, size(dy, *wanted) + kept


MAP, FILTERS = 2 * 4 * 64 * 32 * 32, 2 * 64 * 64 * 9  # bytes of what `filters` gives


def transducer(grad: bool) -> Any:
    """Logits of four sequences in which all frames and labels count; the classes are read once.

    Beside them go scores, alpha and flows, of each cell of a diagonal, and logsumexps.
    """
    logits = x(*SPOKEN, grad=grad)
    rest = [ints(4, 7, below=500), *(mlgpu.full((4,), n, device="cuda") for n in (24, 7))]

    def run(logits: Tensor) -> Tensor:
        return F.rnnt_loss(logits, *rest, reduction="none")

    return backward(run, logits) if grad else forward(run, logits)


SPOKEN = 4, 24, 8, 512  # sequences, frames, columns, classes
LATTICE = 4 * (24 + 7) * 8 * 4  # bytes of a number for each cell


def quantised(rows: int, grad: bool = False, double: bool = False) -> Any:
    """A Linear of 256 x 256 weights in NF4, of some rows."""
    model = mlgpu.nn.Sequential(mlgpu.nn.Linear(256, 256, bias=False, device="cuda", dtype=H))
    mlgpu.peft.quantize(model, ["0"], double_quant=double)
    kept = size(*(b for b in model[0].buffers() if b is not model[0].weight_values))
    a = x(rows, 256, grad=grad)
    if grad:
        return backward(model, a, saved=kept)
    run, least = forward(model, a)
    return run, lambda made: least(made) + kept


def filters(taps: int, wanted: str = "") -> tuple[Tensor, Tensor]:
    """A map, and the weight of a convolution whose result is as large."""
    return (x(4, 64, 32, 32, grad=wanted == "x"),
            x(64, 64, taps, taps, grad=wanted == "weight"))


def deformed(grad: bool) -> Any:
    """A convolution whose taps lie up to an element elsewhere, each with a mask."""
    a, w = x(2, 32, 16, 16), x(32, 32, 3, 3)
    offset, mask = mixed(2, 18, 16, 16, dtype=H) * 2, mixed(2, 9, 16, 16, dtype=H) + 1
    inputs = [t.requires_grad_(grad) for t in (a, offset, w, mask)]

    def run(a: Tensor, offset: Tensor, w: Tensor, mask: Tensor) -> Tensor:
        return F.deform_conv2d(a, offset, w, padding=1, mask=mask)

    return backward(run, *inputs) if grad else forward(run, *inputs)


SMALL = 2 * 2 * 32 * 16 * 16  # bytes of the map there
LONG = 1 << 16  # elements of what is sorted
R, C = 512, 1024  # rows and columns of what is computed row by row
MANY, FEW = 2560, 256  # of the gradients of norms, whose partial sums grow with the rows
PARTS = 32  # blocks that these rows are split over: one for 80
SIZES = (1 << 16, 1 << 15, 1000, 3)  # of an optimizer's parameters


def norm_backward() -> Any:
    a, w, b = x(MANY, FEW, grad=True), x(FEW, grad=True), x(FEW, grad=True)
    return backward(lambda a, w, b: F.layer_norm(a, (FEW,), w, b), a, w, b)


def split_backward() -> Any:
    a = x(R, C, grad=True)
    parts = a.split(C // 2, 1)
    grads = [x(R, C // 2) for _ in parts]
    return lambda: mlgpu.autograd.grad(parts, [a], grads, retain_graph=True), size(a, grads)


def masked_softmax(causal: bool) -> Any:
    """Of scores under a mask that all heads share, or of 128 queries under the diagonal."""
    a, mask = x(2, 4, 128, 256), x(128, 256) > 0
    if causal:
        seen = 128 * (129 + 256) // 2
        return (lambda: cuda_softmax.masked(a._array, causal=True, shift=128)), 16 * (
            seen + 128 * 256)
    given = mask.expand(a.shape)
    return (lambda: cuda_softmax.masked(a._array, given._array)), size(a, mask, a)


def cell(kind: Any) -> Any:
    """A step of 64 sequences."""
    made = kind(128, 128, device="cuda", dtype=H)
    state = (x(64, 128), x(64, 128)) if kind is mlgpu.nn.LSTMCell else x(64, 128)
    run, least = forward(lambda a: made(a, state), x(64, 128))
    return run, lambda result: least(result) + size(state, *made.parameters())


GATES = 64 * 4 * 128 * 2  # bytes of the sums of four gates in `cell`


def linear_cross_entropy_backward() -> Any:
    a, w, t = x(128, 256, grad=True), x(1024, 256, grad=True), ints(128, below=1024)
    return lambda: mlgpu.autograd.grad([F.linear_cross_entropy(a, w, t)], [a, w]), size(
        a, w, t, a, w)


def stepped(kind: Any, bytes_each: int, **options: Any) -> Any:
    """A step over four parameters."""
    params = [mlgpu.nn.Parameter(x(n, dtype=S)) for n in SIZES]
    for p in params:
        p.grad = x(p.numel(), dtype=S)
    return kind(params, lr=1e-3, **options).step, bytes_each * sum(SIZES)


def unscale() -> Any:
    grads = [x(n, dtype=S) for n in SIZES]
    inverse, found = mlgpu.ones((), device="cuda"), mlgpu.zeros((), device="cuda")
    return (lambda: unscale_(grads, inverse, found)), 8 * sum(SIZES)


def clip() -> Any:
    params = [mlgpu.nn.Parameter(x(n, dtype=S)) for n in SIZES]
    for p in params:
        p.grad = x(p.numel(), dtype=S)
    return (lambda: mlgpu.nn.utils.clip_grad_norm_(params, 1.0)), 12 * sum(SIZES)


def product(m: int, n: int, k: int, a: Callable[[Tensor], Tensor], b: Callable[[Tensor], Tensor],
            dtype: Any = H) -> Any:
    left, right = a(x(m, k, dtype=dtype)), b(x(k, n, dtype=dtype))
    return forward(lambda p, q: p @ q, left, right)


def grid() -> Tensor:
    """The places of a 32 x 32 image, moved by a part of an element."""
    line = (mlgpu.arange(32, device="cuda").to(S) + 0.3) / 16 - 1
    across, down = (line.reshape(shape).expand(4, 32, 32) for shape in ((1, 1, 32), (1, 32, 1)))
    return mlgpu.stack([across, down], -1)


def transposed(t: Tensor) -> Tensor:
    """The same shape, lying transposed."""
    return t.mT.contiguous().mT


def plain(t: Tensor) -> Tensor:
    return t


def attention(grad: bool, causal: bool) -> Any:
    q, k, v = (x(1, 4, 256, 64, grad=grad) for _ in range(3))

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    if not grad:
        return forward(run, q, k, v)
    return backward(run, q, k, v, saved=size(q, k, v, q) + 4 * 4 * 256)


ROWS = [
    Row("add", lambda: forward(lambda a, b: a + b, x(R, C), x(R, C))),
    Row("add a row", lambda: forward(lambda a, b: a + b, x(R, C), x(C))),
    Row("add, one transposed", lambda: forward(lambda a, b: a + b, x(R, C), transposed(x(R, C)))),
    Row("where", lambda: forward(mlgpu.where, x(R, C) > 0, x(R, C), x(R, C))),
    Row("masked_fill", lambda: forward(lambda a, m: a.masked_fill(m, 0.0), x(R, C), x(R, C) > 0)),
    Row("gelu", lambda: forward(F.gelu, x(R, C))),
    Row("gelu backward", lambda: backward(F.gelu, x(R, C, grad=True))),
    Row("cast", lambda: forward(lambda a: a.to(S), x(R, C))),
    Row("transposed copy", lambda: forward(lambda a: a.mT.contiguous(), x(R, C))),
    Row("cat", lambda: forward(lambda a, b: mlgpu.cat([a, b], 1), x(R, C), x(R, C))),
    Row("stack", lambda: forward(lambda a, b: mlgpu.stack([a, b], 1), x(R, C), x(R, C))),
    Row("split backward", split_backward),
    Row("softmax", lambda: forward(lambda a: a.softmax(-1), x(R, C))),
    Row("softmax backward", lambda: backward(lambda a: a.softmax(-1), x(R, C, grad=True))),
    Row("softmax of 100000", lambda: forward(lambda a: a.softmax(-1), x(4, 100000)), 2 * 400000,
        "few rows are shared by blocks, which read them once more for the results"),
    Row("softmax of 100000 backward", lambda: backward(
        lambda a: a.softmax(-1), x(4, 100000, grad=True))),
    Row("softmax of columns", lambda: forward(lambda a: a.softmax(0), x(R, C))),
    Row("masked softmax", lambda: masked_softmax(False)),
    Row("causal softmax", lambda: masked_softmax(True)),
    Row("log_softmax", lambda: forward(lambda a: a.log_softmax(-1), x(R, C))),
    Row("layer_norm", lambda: forward(lambda a, w, b: F.layer_norm(a, (C,), w, b),
                                      x(R, C), x(C), x(C))),
    Row("layer_norm backward", norm_backward, 2 * PARTS * 2 * FEW * 4,
        "partial sums of the weights' gradients, 16 bytes a column for each block: one for 80 "
        "rows, from 32 to 128 (of 512 rows they are 17 %)"),
    Row("rms_norm backward", lambda: backward(
        lambda a, w: F.rms_norm(a, (FEW,), w), x(MANY, FEW, grad=True), x(FEW, grad=True)),
        2 * PARTS * FEW * 4, "half as many"),
    Row("rms_norm", lambda: forward(lambda a, w: F.rms_norm(a, (C,), w), x(R, C), x(C))),
    Row("group_norm", lambda: forward(lambda a, w, b: F.group_norm(a, 8, w, b),
                                      x(8, 32, 16, 16), x(32), x(32))),
    Row("group_norm backward", lambda: backward(
        lambda a, w, b: F.group_norm(a, 8, w, b), x(8, 32, 16, 16, grad=True), x(32, grad=True),
        x(32, grad=True))),
    Row("batch_norm", lambda: forward(
        lambda a, w, b: F.batch_norm(a, None, None, w, b, True), x(8, 32, 16, 16), x(32), x(32)),
        8 * 32 * 256 * 2, "x is read twice: for its statistics, before anything is written"),
    Row("batch_norm backward", lambda: backward(
        lambda a, w, b: F.batch_norm(a, None, None, w, b, True), x(8, 32, 16, 16, grad=True),
        x(32, grad=True), x(32, grad=True)),
        2 * 8 * 32 * 256 * 2, "x and dy are read twice: for sums, before anything is written"),
    Row("cross_entropy", lambda: forward(
        lambda a, t: F.cross_entropy(a, t), x(64, 8192), mlgpu.arange(64, device="cuda"))),
    Row("rnnt_loss", lambda: transducer(False), 6 * LATTICE,
        "two scores a cell, which are written in the order of diagonals and read, and alpha"),
    Row("rnnt_loss backward", lambda: transducer(True), 8 * LATTICE,
        "scores and alpha are read, two probabilities a cell written and read"),
    Row("embedding", lambda: forward(
        lambda i, w: F.embedding(i, w), mlgpu.arange(R, device="cuda"), x(R, C))),
    Row("gather rows", lambda: forward(
        lambda a, i: a.index_select(0, i), x(R, C), mlgpu.arange(R, device="cuda"))),
    Row("embedding backward", lambda: backward(
        lambda w: F.embedding(ints(R, below=R), w), x(R, C, grad=True), saved=8 * R)),
    Row("index_select backward", lambda: backward(
        lambda a: a.index_select(0, ints(R, below=R)), x(R, C, grad=True), saved=8 * R)),
    Row("index_add", lambda: forward(
        lambda a, i, b: a.index_add(0, i, b), x(R, C), ints(R, below=R), x(R, C))),
    Row("gather along a dim", lambda: forward(
        lambda a, i: a.gather(1, i), x(R, C),
        mlgpu.arange(C, device="cuda").flip(0).expand(R, C).contiguous())),
    Row("gather along a dim, backward", lambda: backward(
        lambda a: a.gather(1, columns()), x(64, C, grad=True), saved=64 * C * 8), 74 * 64 * C,
        "flat places are made and sorted, of eight bytes in three passes, so that sums repeat"),
    Row("scatter", lambda: forward(
        lambda a, i, b: a.scatter(1, i, b), x(64, C), columns(), x(64, C)), 70 * 64 * C,
        "places are sorted as before, so that the last of equal ones wins", sectors=1.07),
    Row("scatter_add", lambda: forward(
        lambda a, i, b: a.scatter_add(1, i, b), x(64, C), columns(), x(64, C)), 72 * 64 * C,
        "places are sorted as before, so that sums repeat"),
    Row("cross_entropy backward", lambda: backward(
        lambda a: F.cross_entropy(a, mlgpu.arange(64, device="cuda")), x(64, 8192, grad=True))),
    Row("linear_cross_entropy", lambda: forward(
        F.linear_cross_entropy, x(128, 256), x(1024, 256), ints(128, below=1024)),
        2 * 128 * 1024 * 2, "the scores of some rows at a time are written and read",
        tensor=2 * 128 * 256 * 1024),
    Row("linear_cross_entropy, both ways", linear_cross_entropy_backward,
        5 * 128 * 1024 * 2 + 3 * (128 + 1024) * 256 * 2 + 8 * 128 * 256 * 4,
        "scores are written twice and read three times, inputs read again, gradients scaled when "
        "dloss is known; the gradient of so small an input is four sums",
        tensor=6 * 128 * 256 * 1024),
    Row("dropout", lambda: forward(lambda a: F.dropout(a, 0.1), x(R, C))),
    Row("dropout backward", lambda: backward(lambda a: F.dropout(a, 0.1), x(R, C, grad=True),
                                             saved=0)),
    Row("rotary_embedding", lambda: forward(
        F.rotary_embedding, x(2, 8, 128, 64), x(128, 32, dtype=S), x(128, 32, dtype=S))),
    Row("sum", lambda: forward(lambda a: a.sum(), x(R, C))),
    Row("sum of rows", lambda: forward(lambda a: a.sum(1), x(R, C))),
    Row("prod of rows", lambda: forward(lambda a: a.prod(1), x(R, C))),
    Row("logsumexp", lambda: forward(lambda a: a.logsumexp(1), x(R, C))),
    Row("norm", lambda: forward(lambda a: a.norm(), x(R, C))),
    Row("any of rows", lambda: forward(lambda a: a.any(1), x(R, C) > 0)),
    Row("all", lambda: forward(lambda a: a.all(), x(R, C) > 0)),
    Row("sum of columns", lambda: forward(lambda a: a.sum(0), x(R, C))),
    Row("var", lambda: forward(lambda a: a.var(1), x(R, C))),
    Row("argmax", lambda: forward(lambda a: a.argmax(1), x(R, C))),
    Row("min of rows", lambda: forward(lambda a: tuple(a.min(1)), x(R, C))),
    Row("max of columns", lambda: forward(lambda a: tuple(a.max(0)), x(R, C)), 2 * 4 * 16 * C,
        "partial maxima with their places, 16 bytes each, of four parts; beyond 8 MB parts are "
        "longer, and they are 4 %"),
    Row("cumsum", lambda: forward(lambda a: a.cumsum(1), x(R, C))),
    Row("cumsum of a long row", lambda: forward(lambda a: a.cumsum(0), x(1 << 18, dtype=S)),
        4 << 18, "the totals of its parts come first: it is read twice"),
    Row("cumsum of columns", lambda: forward(lambda a: a.cumsum(0), x(R, C)), R * C * 2,
        "few columns are cut, and the totals of parts come first: x is read twice"),
    Row("cumsum backward", lambda: backward(lambda a: a.cumsum(1), x(R, C, grad=True), saved=0)),
    Row("sort", lambda: forward(lambda a: a.sort(), mixed(LONG)), 52 * LONG,
        "digits are counted in one reading, and three of four passes leave keys and places; a "
        "tile's items of a digit begin and end within sectors"),
    Row("sort bfloat16", lambda: forward(lambda a: a.sort(), mixed(LONG, dtype=H)), 18 * LONG,
        "digits are counted in one reading, and one of two passes leaves keys and places"),
    Row("sort of rows", lambda: forward(lambda a: a.sort(), mixed(16, 4096))),
    Row("sort of short rows", lambda: forward(lambda a: a.sort(), mixed(256, 256))),
    Row("argsort", lambda: forward(lambda a: a.argsort(), mixed(LONG)), 52 * LONG, "as sort"),
    Row("topk", lambda: forward(lambda a: a.topk(64), mixed(16, 16384)), 2 * 16 * 64 * 8,
        "what was found is sorted in a second launch"),
    Row("unique", lambda: forward(lambda a: a.unique(), ints(LONG, below=1000)), 80 * LONG,
        "a sort of 64 bits, two of whose digits differ, and two readings of the sorted values"),
    Row("cumprod", lambda: forward(lambda a: a.cumprod(1), x(R, C))),
    Row("rand", lambda: forward(lambda: mlgpu.rand(R, C, device="cuda"))),
    Row("randn", lambda: forward(lambda: mlgpu.randn(R, C, device="cuda"))),
    Row("randint", lambda: forward(lambda: mlgpu.randint(0, 10, (R, C), device="cuda"))),
    Row("bernoulli", lambda: forward(mlgpu.bernoulli, x(R, C).sigmoid())),
    Row("max_pool2d", lambda: forward(lambda a: F.max_pool2d(a, 2), x(8, 16, 64, 64))),
    Row("max_pool2d with places", lambda: forward(
        lambda a: F.max_pool2d(a, 2, return_indices=True), x(8, 16, 64, 64))),
    Row("max_pool2d backward", lambda: backward(
        lambda a: F.max_pool2d(a, 2), x(8, 16, 64, 64, grad=True), saved=8 * 16 * 32 * 32)),
    Row("max_pool2d, 3 x 3 padded", lambda: forward(
        lambda a: F.max_pool2d(a, 3, 2, 1), x(8, 16, 64, 64))),
    Row("max_pool2d, 3 x 3 padded, backward", lambda: backward(
        lambda a: F.max_pool2d(a, 3, 2, 1), x(8, 16, 64, 64, grad=True), saved=8 * 16 * 32 * 32)),
    Row("avg_pool2d", lambda: forward(lambda a: F.avg_pool2d(a, 2), x(8, 16, 64, 64))),
    Row("avg_pool2d backward", lambda: backward(
        lambda a: F.avg_pool2d(a, 2), x(8, 16, 64, 64, grad=True), saved=0)),
    Row("adaptive_avg_pool2d", lambda: forward(
        lambda a: F.adaptive_avg_pool2d(a, 8), x(8, 16, 64, 64))),
    Row("adaptive_avg_pool2d, uneven", lambda: forward(
        lambda a: F.adaptive_avg_pool2d(a, 7), x(8, 16, 64, 64)), 2 * 8 * 16 * 7 * 64 * 4,
        "windows of more than 64 elements go axis by axis, first down the columns in float32; then "
        "a lane has one window of a row", sectors=1.8),
    Row("adaptive_avg_pool2d backward", lambda: backward(
        lambda a: F.adaptive_avg_pool2d(a, 8), x(8, 16, 64, 64, grad=True), saved=0)),
    Row("adaptive_max_pool2d", lambda: forward(
        lambda a: F.adaptive_max_pool2d(a, 8), x(8, 16, 64, 64))),
    Row("interpolate, nearest", lambda: forward(
        lambda a: F.interpolate(a, scale_factor=2), x(8, 16, 32, 32))),
    Row("interpolate, nearest, backward", lambda: backward(
        lambda a: F.interpolate(a, scale_factor=2), x(8, 16, 32, 32, grad=True), saved=0)),
    Row("interpolate, bilinear", lambda: forward(
        lambda a: F.interpolate(a, scale_factor=2, mode="bilinear"), x(8, 16, 32, 32))),
    Row("interpolate, bilinear, backward", lambda: backward(
        lambda a: F.interpolate(a, scale_factor=2, mode="bilinear"),
        x(8, 16, 32, 32, grad=True), saved=0)),
    Row("grid_sample", lambda: forward(
        lambda a, g: F.grid_sample(a, g, align_corners=False), x(4, 8, 32, 32, dtype=S), grid()),
        note="the grid says where to read, here in the middle of sectors", sectors=1.3),
    Row("grid_sample backward", lambda: backward(
        lambda a, g: F.grid_sample(a, g, align_corners=False),
        x(4, 8, 32, 32, dtype=S, grad=True), grid().requires_grad_()),
        note="the four corners of all places are sorted, so that sums repeat; dy and the image's "
        "gradient are laid out with their channels last", bytes=5.4, sectors=1.25),
    Row("unfold, 3 x 3 padded", lambda: forward(
        lambda a: F.unfold(a, 3, padding=1), x(4, 16, 32, 32))),
    Row("unfold, patches", lambda: forward(
        lambda a: F.unfold(a, 2, stride=2), x(4, 16, 32, 32))),
    Row("fold, 3 x 3 padded", lambda: forward(
        lambda a: F.fold(a, 32, 3, padding=1), x(4, 144, 1024))),
    Row("LSTMCell", lambda: cell(mlgpu.nn.LSTMCell), 5 * GATES + GATES // 4,
        "of the four gates both products' sums are written and read, and the values kept; h twice",
        tensor=2 * 2 * 64 * 128 * 512),
    Row("GRUCell", lambda: cell(mlgpu.nn.GRUCell), 5 * GATES * 3 // 4 + 3 * GATES // 4,
        "of the three gates as many, and what is reset; the state is read, and written, twice",
        tensor=2 * 2 * 64 * 128 * 384),
    Row("conv2d", lambda: forward(lambda a, w: F.conv2d(a, w, padding=1), *filters(3)),
        2 * (MAP + FILTERS), "x and the weight are laid out channels last: written and read once "
        "more", tensor=2 * 4096 * 64 * 64 * 9),
    Row("conv2d, gradient of x", lambda: backward(
        lambda a, w: F.conv2d(a, w, padding=1), *filters(3, "x"), saved=FILTERS),
        2 * (MAP + FILTERS), "dy and the weight are laid out channels last",
        tensor=2 * 4096 * 64 * 64 * 9),
    Row("conv2d, gradient of the weight", lambda: backward(
        lambda a, w: F.conv2d(a, w, padding=1), *filters(3, "weight"), saved=MAP),
        2 * MAP + 2 * 8 * 2 * FILTERS, "x is laid out channels last, and each of eight shares of "
        "the positions has sums of its own", tensor=2 * 4096 * 64 * 64 * 9, spare=1.12),
    Row("conv2d of stride 2, gradient of x", lambda: backward(
        lambda a, w: F.conv2d(a, w, stride=2, padding=1), *filters(3, "x"), saved=FILTERS),
        3 * MAP // 4 + 2 * FILTERS, "dy, laid out channels last, is read for even lines and for "
        "odd ones", tensor=2 * 1024 * 64 * 64 * 9),
    Row("conv2d of three channels", lambda: forward(
        lambda a, w: F.conv2d(a, w, stride=2, padding=3), x(4, 3, 64, 64), x(64, 3, 7, 7)),
        2 * (4 * 4 * 64 * 64 + 64 * 4 * 49) * 2, "x and the weight are laid out with four "
        "channels, of which 7 neighbours begin anywhere", tensor=2 * 4096 * 64 * 147, spare=1.53,
        sectors=1.3),
    Row("conv2d of 1 x 1", lambda: forward(F.conv2d, *filters(1)), tensor=2 * 4096 * 64 * 64),
    Row("conv2d, depthwise", lambda: forward(
        lambda a, w: F.conv2d(a, w, padding=1, groups=64), x(4, 64, 32, 32), x(64, 1, 3, 3))),
    Row("deform_conv2d", lambda: deformed(False), 2 * SMALL + 4 * 32 * 32 * 9 + 2 * 9 * SMALL,
        "x and the weight are laid out channels last; the sampled columns, nine times x, are "
        "written and read", tensor=2 * 512 * 32 * 32 * 9),
    Row("deform_conv2d backward", lambda: deformed(True), note="columns are made again and their "
        "gradient is made, both nine times x, written and read, the latter for offsets and for the "
        "image, the corners of whose taps are sorted so that sums repeat",
        tensor=4 * 512 * 32 * 32 * 9, spare=1.12, bytes=19.6, sectors=1.12),
    Row("SGD, four tensors", lambda: stepped(mlgpu.optim.SGD, 12)),
    Row("SGD with momentum, four tensors", lambda: stepped(mlgpu.optim.SGD, 20, momentum=0.9)),
    Row("Adam, four tensors", lambda: stepped(mlgpu.optim.Adam, 28)),
    Row("AdamW, four tensors", lambda: stepped(mlgpu.optim.AdamW, 28)),
    Row("unscale and check", unscale),
    Row("clip_grad_norm_", clip),
    Row("matmul", lambda: product(256, 256, 256, plain, plain), tensor=2 * 256**3),
    Row("matmul, left transposed", lambda: product(256, 256, 256, transposed, plain),
        tensor=2 * 256**3),
    Row("matmul, right transposed", lambda: product(256, 256, 256, plain, transposed),
        tensor=2 * 256**3),
    Row("matmul float32", lambda: product(256, 256, 128, plain, plain, S)),
    Row("linear", lambda: forward(lambda a, w, b: F.linear(a, w, b), x(256, 256), x(256, 256),
                                  x(256)), tensor=2 * 256**3),
    Row("linear in NF4, one row", lambda: quantised(1)),
    Row("linear in NF4, scales in 8 bits, one row", lambda: quantised(1, double=True)),
    Row("linear in NF4", lambda: quantised(256), note="codes become halves in shared memory only",
        tensor=2 * 256**3),
    Row("linear in NF4, gradient of x", lambda: quantised(256, grad=True), note="the same",
        tensor=2 * 256**3),
    Row("linear backward", lambda: backward(
        F.linear, x(256, 256, grad=True), x(256, 256, grad=True), x(256, grad=True)),
        256 * 256 * 2, "both products read dy; the bias's gradient comes with one",
        tensor=4 * 256**3, spare=1.02),
    Row("bmm", lambda: forward(mlgpu.bmm, x(8, 128, 128), x(8, 128, 128)), tensor=2 * 8 * 128**3),
    Row("cdist", lambda: forward(mlgpu.cdist, x(256, 64, dtype=S), x(256, 64, dtype=S)),
        6 * 256 * 64 * 4 + 2 * 256 * 256 * 4,
        "squares are written and summed; the product, then the distances from it"),
    Row("cdist, p = 1", lambda: forward(
        lambda a, b: mlgpu.cdist(a, b, 1.0), x(256, 64, dtype=S), x(256, 64, dtype=S))),
    Row("attention", lambda: attention(False, False), tensor=4 * 4 * 256 * 256 * 64),
    Row("attention, causal", lambda: attention(False, True), tensor=2 * 4 * 256 * 256 * 64,
        spare=1.25),
    Row("attention backward", lambda: attention(True, False),
        2 * 2 * 4 * 4 * 256 * 64 + 4 * 256 * 64 * 2, "2.12 is this algorithm's least: each of two "
        "splits of the keys has its own gradient of the queries in float32, and the row sums read "
        "dy and the output before", tensor=10 * 4 * 256 * 256 * 64),
]


# --- the table ------------------------------------------------------------------------------------


def ratio(value: float, least: float) -> str:
    return f"{value / least:.2f}" if least else ""


def ratios(row: Row, counted: Counted, least: int) -> list[str]:
    """The cells that a test holds."""
    return [ratio(counted.dram, least), ratio(least + row.extra, least) if row.extra else "",
            ratio(counted.sectors, counted.ideal), ratio(counted.shared, counted.shared_ideal),
            ratio(counted.tensor, row.tensor)]


def line(row: Row) -> str:
    """A line of the table."""
    counted, least = count(row)
    cells = [row.name, str(counted.launches), *ratios(row, counted, least),
             *(f"{counted.occupancy(arch):.0f} %" for arch in ARCHS), row.note]
    return f"| {' | '.join(cells)} |"


HEAD = ("| operation | launches | bytes / minimum | the algorithm's minimum | sectors / ideal "
        "| shared wavefronts / ideal | tensor operations / needed | occupancy sm_80 | sm_90 | |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    parser.add_argument("only", nargs="*", help="operations to count (all by default)")
    options = parser.parse_args()
    names = [row.name for row in ROWS]
    unknown = sorted(set(options.only) - {*names})
    if unknown:
        parser.error(f"no such operation: {', '.join(unknown)}")
    before, mark, rest = PAGE.read_text().partition("<!-- table -->\n")
    table, end, after = rest.partition("<!-- end -->")
    lines = {text.split("|")[1].strip(): text for text in table.splitlines()}
    print(HEAD)
    for row in ROWS:
        if options.only and row.name not in options.only:
            continue
        lines[row.name] = line(row)
        print(lines[row.name], flush=True)
    if options.write:
        made = "\n".join([HEAD, *(lines[name] for name in names if name in lines)])
        PAGE.write_text(f"{before}{mark}{made}\n{end}{after}")


if __name__ == "__main__":
    main()
