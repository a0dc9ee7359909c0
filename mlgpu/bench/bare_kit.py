"""The calls into NumPy that a workload is made of, and nothing around them.

About what a library on NumPy would take if its own work were free: the matrix products on all
threads; of other workloads the passes over memory, cut into blocks among the threads.  It is an
estimate, no bound: other formulas need other products and passes, and mlgpu is faster than some of
these.  Results are not kept, so they are not checked.  The peer `traffic` copies as many bytes as a
workload must read and write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlgpu.cpu.threads import parallel, set_num_threads

from . import clock
from .workload import Array, Arrays, Case, Workload

BLOCK = 1 << 16  # elements of a pass that are worked on at once
Call = Callable[[], object]


def _random(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _product(m: int, k: int, n: int, kept: dict[tuple[str, int, int], Array]) -> Call:
    """One matrix product; products of a shape share their operands, as layers share buffers."""
    keys = ("a", m, k), ("b", k, n), ("c", m, n)
    for key in keys:
        if key not in kept:
            kept[key] = _random(*key[1:])
    a, b, c = (kept[key] for key in keys)
    return lambda: np.matmul(a, b, out=c)


def _products(shapes: Sequence[tuple[int, int, int]]) -> list[Call]:
    kept: dict[tuple[str, int, int], Array] = {}
    return [_product(*shape, kept) for shape in shapes]


def _layer(rows: int, inputs: int, outputs: int, first: bool = False) -> list[tuple[int, int, int]]:
    """The products of a linear layer, forward and backward; the first has no gradient to pass."""
    return [(rows, inputs, outputs), (outputs, rows, inputs)] + (
        [] if first else [(rows, outputs, inputs)])


def _many(batch: int, *shapes: tuple[int, int, int]) -> Call:
    """Products of many small matrices, several threads at once."""
    operands = [[_random(batch, *pair) for pair in ((m, k), (k, n), (m, n))] for m, k, n in shapes]

    def run(task: int) -> None:
        for a, b, c in operands:
            np.matmul(a[task], b[task], out=c[task])

    return lambda: parallel(batch, lambda: run, 1 << 30)


def _passes(elements: int, *steps: Callable[[Array, Array, Array], object]) -> Call:
    """Steps over (output, input, workspace), a block at a time."""
    given, made = _random(elements), np.empty(elements, np.float32)

    def start() -> Callable[[int], None]:
        work = np.empty(BLOCK, np.float32)

        def run(task: int) -> None:
            part = slice(task * BLOCK, (task + 1) * BLOCK)
            x, y = given[part], made[part]
            for step in steps:
                step(y, x, work[:len(x)])

        return run

    return lambda: parallel(-(-elements // BLOCK), start, elements)


def _exp(y: Array, x: Array, work: Array) -> None:
    np.exp(x, out=y)


def _times(y: Array, x: Array, work: Array) -> None:
    np.multiply(x, y, out=work)


def _into(y: Array, x: Array, work: Array) -> None:
    np.multiply(x, work, out=y)


def _root(y: Array, x: Array, work: Array) -> None:
    np.sqrt(x, out=work)


def _total(y: Array, x: Array, work: Array) -> None:
    np.add.reduce(x)


def _largest(y: Array, x: Array, work: Array) -> None:
    np.maximum.reduce(x)


def _sizes(arrays: Arrays) -> dict[str, int]:
    return dict(zip(*(arrays[name].tolist() for name in ("size names", "sizes")), strict=True))


def _gpt(arrays: Arrays) -> list[Call]:
    """The products of linear layers and of attention; nothing else."""
    s = _sizes(arrays)
    rows, d, t, heads = s["batch"] * s["tokens"], s["dim"], s["tokens"], s["heads"]
    each = [shape for widths in ((d, 3 * d), (d, d), (d, 4 * d), (4 * d, d))
            for shape in _layer(rows, *widths)]
    depth = d // heads
    attention = _many(s["batch"] * heads, *[(t, depth, t)] * 2, *[(t, t, depth)] * 4)
    head = _layer(rows, d, s["vocabulary"])
    return [*_products([*each * s["layers"], *head]), *[attention] * s["layers"]]


def _mlp(arrays: Arrays) -> list[Call]:
    s = _sizes(arrays)
    n, h = s["batch"], s["hidden"]
    return _products([*_layer(n, s["inputs"], h, True), *_layer(n, h, h),
                      *_layer(n, h, s["classes"])])


def _inference(arrays: Arrays) -> list[Call]:
    """Each layer's product, sum with the bias, and maximum with 0."""
    calls: list[Call] = []
    for place in (0, 2, 4):
        weight, bias = arrays[f"{place}.weight"], arrays[f"{place}.bias"]
        x, y = _random(1, weight.shape[1]), np.empty((1, len(weight)), np.float32)
        calls += [lambda x=x, w=weight.T, y=y: np.matmul(x, w, out=y),  # type: ignore[misc]
                  lambda y=y, b=bias: np.add(y, b, out=y),  # type: ignore[misc]
                  lambda y=y: np.maximum(y, 0, out=y)]  # type: ignore[misc]
    return calls[:-1]


def _columns(images: int, channels: int, outputs: int, side: int, first: bool) -> list[Call]:
    """A 3x3 convolution as products with columns, images at a time, and the columns' copies."""
    places, depth = side * side, 9 * channels
    shapes = [(outputs, depth, places), (outputs, places, depth)]
    shapes += [] if first else [(depth, outputs, places)]
    return [_many(images, *shapes)]


def _cnn(arrays: Arrays) -> list[Call]:
    s = _sizes(arrays)
    calls: list[Call] = []
    side = s["side"]
    for place in (0, 2, 5, 7, 10, 12):
        outputs, inputs = arrays[f"{place}.weight"].shape[:2]
        calls += _columns(s["batch"], inputs, outputs, side, place == 0)
        side //= 2 if place % 5 == 2 else 1
    n, flat, hidden = s["batch"], arrays["16.weight"].shape[1], s["hidden"]
    return [*calls, *_products([*_layer(n, flat, hidden), *_layer(n, hidden, 10)])]


def _conv(arrays: Arrays) -> list[Call]:
    n, channels, side, _ = arrays["x"].shape
    return _columns(n, channels, len(arrays["weight"]), side, False)


def _lstm(arrays: Arrays) -> list[Call]:
    """The products of all times at once, and those of each, forward and backward."""
    s = _sizes(arrays)
    t, b, n, h = s["tokens"], s["batch"], s["inputs"], s["hidden"]
    return _products([*_layer(t * b, n, 4 * h), (4 * h, t * b, h),
                      *[(b, h, 4 * h), (b, 4 * h, h)] * t])


def _attention(arrays: Arrays) -> list[Call]:
    """Products of the squares below the diagonal, and their exponentials, once each way."""
    batch, heads, t, d = arrays["q"].shape
    block = min(128, t)
    shapes: list[tuple[int, int, int]] = []
    for end in range(block, t + 1, block):
        shapes += [(block, d, end)] * 2 + [(block, end, d)] * 2 + [(end, block, d)] * 2
    exponentials = batch * heads * sum(block * end for end in range(block, t + 1, block))
    return [_many(batch * heads, *shapes), _passes(2 * exponentials, _exp)]


def _of(*steps: Callable[[Array, Array, Array], object], name: str = "x"
        ) -> Callable[[Arrays], list[Call]]:
    return lambda arrays: [_passes(arrays[name].size, *steps)]


def _adamw(arrays: Arrays) -> list[Call]:
    """Two moving means of two products each, a root, a quotient, and two changes."""
    elements = int(arrays["layers"]) * (arrays["matrix"].size + arrays["vector"].size)
    return [_passes(elements, _times, _into, _times, _into, _times, _root, _into, _times, _into)]


# By the family of the workload.
FORMS: dict[str, Callable[[Arrays], list[Call]]] = {
    "gpt_step": _gpt, "mlp_step": _mlp, "cnn_step": _cnn, "lstm_fb": _lstm,
    "mlp_infer1": _inference, "conv_fb": _conv, "attn_fb": _attention,
    "softmax": _of(_largest, _exp, _total, _into),
    # Sums and sums of products by BLAS; what is scaled, moved and added; the gradients' as well.
    "ln_fb": _of(*[_total] * 6, *[_times, _into] * 5),
    "xent_fb": _of(_largest, _exp, _total, _exp, _into),
    # With the slope kept by forward: one exponential; 15 (12) sums, products and quotients.
    "gelu_fb": _of(_exp, *[_times, _into] * 7, _times),
    "gelu_erf_fb": _of(_exp, _exp, _times, _into, _times, _into),
    "silu_fused_fb": _of(_exp, *[_times, _into] * 6),
    "adamw": _adamw,
}


def _copies(workload: Workload, arrays: Arrays) -> list[Call]:
    """As many bytes as the mathematics must read and write, copied; the whole is in no cache."""
    if workload.bytes is None:
        return []
    tiny = all(array.nbytes < 1 << 16 for array in arrays.values())
    elements = int(workload.bytes(workload.tiny if tiny else workload.sizes)) // 8
    given, made = _random(min(elements, 1 << 26)), np.empty(min(elements, 1 << 26), np.float32)

    def run(task: int) -> None:
        part = slice(task * BLOCK % len(given), task * BLOCK % len(given) + BLOCK)
        np.copyto(made[part], given[part])

    return [lambda: parallel(-(-elements // BLOCK), lambda: run, elements)]


class BareKit:
    """NumPy on the CPU in float32."""

    timer = staticmethod(clock.host)

    def __init__(self, peer: str) -> None:
        self.peer = peer

    def case(self, workload: Workload, arrays: Arrays) -> Case | None:
        """The calls; None where nobody has worked them out."""
        if self.peer == "traffic":
            calls = _copies(workload, arrays)
        else:
            form = FORMS.get(workload.family)
            calls = [] if form is None else form(arrays)
        if not calls:
            return None

        def call() -> None:
            for each in calls:
                each()

        return Case(call, dict)


def kit(peer: str, device: str, dtype: str, threads: int) -> Any:
    """The kit, with so many threads for BLAS and for passes."""
    set_num_threads(threads)
    return BareKit(peer)
