"""The operations of the table: elementwise, rows, products, convolution, attention, overhead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .workload import Array, Arrays, Case, Kit, Sizes, Workload, both, forward, normal

MEGABYTES = (4, 16, 64)
ROWS = {"rows": 4096, "columns": 1024}
TINY_ROWS = {"rows": 8, "columns": 16}


def _gelu(lib: Any, x: Any) -> Any:
    return lib.nn.functional.gelu(x, approximate="tanh")


def _gelu_erf(lib: Any, x: Any) -> Any:
    return lib.nn.functional.gelu(x)


def _silu(lib: Any, x: Any, gate: Any) -> Any:
    return lib.nn.functional.silu(x) * gate


def _silu_fused(lib: Any, x: Any, gate: Any) -> Any:
    """As one function where the library can be told so in eager mode."""
    return _fused(lib)(x, gate)


@functools.cache
def _fused(lib: Any) -> Callable[..., Any]:
    def gated(x: Any, gate: Any) -> Any:
        return lib.nn.functional.silu(x) * gate

    return lib.fuse(gated) if hasattr(lib, "fuse") else gated


def _add(lib: Any, x: Any, y: Any) -> Any:
    return x + y


def _operands(*names: str) -> Callable[[np.random.Generator, Sizes], Arrays]:
    def inputs(random: np.random.Generator, sizes: Sizes) -> Arrays:
        return {name: normal(random, sizes["elements"]) for name in names}

    return inputs


def _elementwise() -> list[Workload]:
    found = []
    # The last numbers: what forward, and what both ways, read and write, in operands.
    cases: list[tuple[str, str, Callable[..., Any], tuple[str, ...], int, int]] = [
        ("gelu", "GELU, tanh form", _gelu, ("x",), 2, 5),
        ("gelu_erf", "GELU", _gelu_erf, ("x",), 2, 5),
        ("silu", "SiLU(x) * gate", _silu, ("x", "gate"), 3, 8),
        ("silu_fused", "SiLU(x) * gate, in mlgpu as one mlgpu.fuse", _silu_fused, ("x", "gate"),
         3, 5),
        ("add", "x + y", _add, ("x", "y"), 3, 6)]
    for megabytes in MEGABYTES:
        sizes, tiny = {"elements": megabytes << 18}, {"elements": 64}
        for name, title, function, names, once, moved in cases:
            found.append(Workload(
                f"{name}_{megabytes}MB", "elementwise", f"{title}, {megabytes} MB",
                _operands(*names), forward(function, *names), sizes, tiny,
                bytes=lambda s, n=once: 4 * n * s["elements"]))  # type: ignore[misc]
            found.append(Workload(
                f"{name}_fb_{megabytes}MB", "elementwise",
                f"{title}, {megabytes} MB, forward + backward", _operands(*names, "gradient"),
                both(function, *names, wrt=" ".join(names)), sizes, tiny,
                bytes=lambda s, n=moved: 4 * n * s["elements"]))  # type: ignore[misc]
        found += _dropout(megabytes, sizes)
    found.append(Workload(
        "gelu_b_16MB", "elementwise", "GELU, tanh form, 16 MB, backward alone",
        _operands("x", "gradient"), both(_gelu, "x", wrt="x", timed="backward"),
        {"elements": 16 << 18}, {"elements": 64}, bytes=lambda s: 12 * s["elements"]))
    return found


DROPPED = 0.1


def _dropout(megabytes: int, sizes: Sizes) -> list[Workload]:
    # What is random is checked by what holds of every mask: the share that is kept, that what is
    # kept is scaled, and that output and gradient have one mask.
    def build(kit: Kit, arrays: Arrays, backward: bool) -> Case:
        x = kit.tensor(arrays["x"], backward)
        upstream = kit.tensor(arrays["gradient"])
        dropout = kit.lib.nn.functional.dropout
        run = kit.compile(lambda given: dropout(given, DROPPED))

        def step() -> Any:
            x.grad = None
            output = run(x)
            if backward:
                output.backward(upstream)
            return output

        def results() -> Arrays:
            output = kit.numpy(step())
            kept = output != 0
            found = {"share": kept.mean(keepdims=True, dtype=np.float64),
                     "kept": np.where(kept, output, arrays["x"] / (1 - DROPPED))}
            if backward:
                gradient = kit.numpy(x.grad)
                found["d x"] = np.where(kept, gradient, arrays["gradient"] / (1 - DROPPED))
                found["one mask"] = (gradient[~kept] == 0).mean(keepdims=True, dtype=np.float64)
            return found

        return Case(step, results)

    def reference(arrays: Arrays, backward: bool) -> Arrays:
        scale = 1 / (1 - DROPPED)
        found = {"share": np.array([1 - DROPPED]), "kept": arrays["x"].astype(np.float64) * scale}
        if backward:
            found |= {"d x": arrays["gradient"].astype(np.float64) * scale, "one mask": np.ones(1)}
        return found

    found = []
    for backward in (False, True):
        found.append(Workload(
            f"dropout{'_fb' if backward else ''}_{megabytes}MB", "elementwise",
            f"dropout, {megabytes} MB{', forward + backward' if backward else ''}",
            _operands("x", "gradient"), lambda k, a, b=backward: build(k, a, b),  # type: ignore[misc]
            sizes, {"elements": 1 << 16},
            bytes=lambda s, b=backward: (16 if b else 8) * s["elements"],  # type: ignore[misc]
            statistics={"share": 1e-2},  # seven standard deviations of the tiny size
            reference=lambda a, b=backward: reference(a, b)))  # type: ignore[misc]
    return found


def _rows() -> list[Workload]:
    def normed(random: np.random.Generator, s: Sizes) -> Arrays:
        shape = s["rows"], s["columns"]
        return {"x": normal(random, *shape), "weight": normal(random, s["columns"]),
                "bias": normal(random, s["columns"]), "gradient": normal(random, *shape)}

    def layer_norm(lib: Any, x: Any, weight: Any, bias: Any) -> Any:
        return lib.nn.functional.layer_norm(x, weight.shape, weight, bias)

    def softmax(lib: Any, x: Any) -> Any:
        return lib.softmax(x, -1)

    def scores(random: np.random.Generator, s: Sizes) -> Arrays:
        return {"x": normal(random, s["rows"], s["columns"]),
                "gradient": normal(random, s["rows"], s["columns"])}

    def logits(random: np.random.Generator, s: Sizes) -> Arrays:
        return {"x": normal(random, s["rows"], s["columns"]),
                "target": random.integers(0, s["columns"], s["rows"])}

    def table(random: np.random.Generator, s: Sizes) -> Arrays:
        return {"ids": random.integers(0, s["rows"], s["ids"]),
                "weight": normal(random, s["rows"], s["columns"]),
                "gradient": normal(random, s["ids"], s["columns"])}

    def images(random: np.random.Generator, s: Sizes) -> Arrays:
        shape = s["batch"], s["channels"], s["side"], s["side"]
        return {"x": normal(random, *shape),
                "gradient": normal(random, *shape[:2], s["side"] // 2, s["side"] // 2)}

    maps = {"batch": 32, "channels": 64, "side": 32}
    return [
        Workload("softmax", "rows", "softmax 4096 x 1024", scores, forward(softmax, "x"),
                 ROWS, TINY_ROWS, bytes=lambda s: 8 * s["rows"] * s["columns"]),
        Workload("softmax_fb", "rows", "softmax 4096 x 1024, forward + backward", scores,
                 both(softmax, "x", wrt="x"), ROWS, TINY_ROWS,
                 bytes=lambda s: 20 * s["rows"] * s["columns"]),
        Workload("ln_f", "rows", "LayerNorm 4096 x 1024", normed,
                 forward(layer_norm, "x", "weight", "bias"), ROWS, TINY_ROWS,
                 bytes=lambda s: 8 * s["rows"] * s["columns"]),
        Workload("ln_fb", "rows", "LayerNorm 4096 x 1024, forward + backward", normed,
                 both(layer_norm, "x", "weight", "bias", wrt="x weight bias"), ROWS, TINY_ROWS,
                 bytes=lambda s: 20 * s["rows"] * s["columns"]),
        *(Workload(name, "rows", f"cross-entropy {rows} x 32000, forward + backward", logits,
                   both(lambda lib, x, target: lib.nn.functional.cross_entropy(x, target),
                        "x", "target", wrt="x"), {"rows": rows, "columns": 32000}, TINY_ROWS,
                   bytes=lambda s: 12 * s["rows"] * s["columns"], reference=_cross_entropy)
          for name, rows in (("xent_fb", 4096), ("xent1024_fb", 1024))),
        Workload("emb_fb", "rows", "embedding 32000 x 512, 4096 ids, forward + backward", table,
                 both(lambda lib, ids, weight: lib.nn.functional.embedding(ids, weight),
                      "ids", "weight", wrt="weight"),
                 {"rows": 32000, "columns": 512, "ids": 4096}, {**TINY_ROWS, "ids": 12},
                 bytes=lambda s: 4 * s["columns"] * (3 * s["ids"] + s["rows"])),
        Workload("maxpool_fb", "rows", "max pooling 2x2 of 32 x 64 x 32 x 32, forward + backward",
                 images, both(lambda lib, x: lib.nn.functional.max_pool2d(x, 2), "x", wrt="x"),
                 maps, {"batch": 2, "channels": 3, "side": 8},
                 bytes=lambda s: 10 * s["batch"] * s["channels"] * s["side"] ** 2)]


def _cross_entropy(arrays: Arrays) -> Arrays:
    """By NumPy, some rows at a time: in float64 the whole would take gigabytes."""
    x, target = arrays["x"], arrays["target"]
    losses, gradient = np.empty(len(x)), np.empty(x.shape, np.float32)
    for start in range(0, len(x), 256):
        part = slice(start, start + 256)
        scores = x[part].astype(np.float64)
        scores -= scores.max(1, keepdims=True)
        places = np.arange(len(scores)), target[part]
        totals = np.exp(scores).sum(1)
        losses[part] = np.log(totals) - scores[places]
        share = np.exp(scores) / totals[:, None]
        share[places] -= 1
        gradient[part] = share / len(x)  # rounded once: 6e-8 of what is compared
    return {"output": losses.mean(keepdims=True).reshape(()), "d x": gradient}


def _products() -> list[Workload]:
    def square(random: np.random.Generator, s: Sizes) -> Arrays:
        return {"a": normal(random, s["n"], s["n"]), "b": normal(random, s["n"], s["n"])}

    def heads(random: np.random.Generator, s: Sizes) -> Arrays:
        shape = s["batch"], s["heads"], s["tokens"]
        return {"q": normal(random, *shape, s["dim"]), "k": normal(random, *shape, s["dim"]),
                "v": normal(random, *shape, s["dim"]), "p": normal(random, *shape, s["tokens"]),
                "gradient": normal(random, *shape, s["dim"])}

    def product(lib: Any, a: Any, b: Any) -> Any:
        return a @ b

    def scores(lib: Any, q: Any, k: Any) -> Any:
        return q @ k.transpose(-1, -2)

    def attention(lib: Any, q: Any, k: Any, v: Any) -> Any:
        return lib.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def work(s: Sizes) -> float:
        return 2.0 * s["batch"] * s["heads"] * s["tokens"] ** 2 * s["dim"]

    bmm = {"batch": 8, "heads": 12, "tokens": 128, "dim": 64}
    seen = {"batch": 8, "heads": 6, "tokens": 256, "dim": 64}
    tiny = {"batch": 2, "heads": 2, "tokens": 6, "dim": 4}
    return [
        *(Workload(f"gemm{n}", "products", f"matrix product {n} x {n} x {n}", square,
                   forward(product, "a", "b"), {"n": n}, {"n": 8},
                   flops=lambda s: 2.0 * s["n"] ** 3)
          for n in (256, 512, 1024, 2048)),
        Workload("bmm_qk", "products", "q @ k.T, 8 x 12 heads, 128 x 64", heads,
                 forward(scores, "q", "k"), bmm, tiny, flops=work),
        Workload("bmm_av", "products", "p @ v, 8 x 12 heads, 128 x 128 x 64", heads,
                 forward(product, "p", "v"), bmm, tiny, flops=work),
        Workload("attn_f", "products", "causal attention, B 8, H 6, T 256, D 64", heads,
                 forward(attention, "q", "k", "v"), seen, tiny, flops=lambda s: work(s)),
        Workload("attn_fb", "products",
                 "causal attention, B 8, H 6, T 256, D 64, forward + backward", heads,
                 both(attention, "q", "k", "v", wrt="q k v"), seen, tiny,
                 flops=lambda s: 3.5 * work(s))]


def _convolution() -> list[Workload]:
    def inputs(random: np.random.Generator, s: Sizes) -> Arrays:
        c, shape = s["channels"], (s["batch"], s["channels"], s["side"], s["side"])
        return {"x": normal(random, *shape), "weight": normal(random, c, c, 3, 3, scale=0.05),
                "bias": normal(random, c), "gradient": normal(random, *shape)}

    def conv(lib: Any, x: Any, weight: Any, bias: Any) -> Any:
        return lib.nn.functional.conv2d(x, weight, bias, padding=1)

    def work(s: Sizes) -> float:
        return 18.0 * s["batch"] * s["channels"] ** 2 * s["side"] ** 2

    sizes = {"batch": 32, "channels": 64, "side": 32}
    tiny = {"batch": 2, "channels": 3, "side": 6}
    names = ("x", "weight", "bias")
    return [Workload("conv_f", "convolution", "conv 3x3 64->64 of 32 x 64 x 32 x 32", inputs,
                     forward(conv, *names), sizes, tiny, flops=work),
            Workload("conv_fb", "convolution",
                     "conv 3x3 64->64 of 32 x 64 x 32 x 32, forward + backward", inputs,
                     both(conv, *names, wrt="x weight bias"), sizes, tiny,
                     flops=lambda s: 3 * work(s), tolerance=5e-5)]


CHAIN = 100


def _overhead() -> list[Workload]:
    """A chain of small operations: what a library's own work costs for each of them."""

    def inputs(random: np.random.Generator, s: Sizes) -> Arrays:
        # Near 1 and 0, so that a hundred of them neither vanish nor overflow.
        return {"x": normal(random, s["n"]), "w": 1 + normal(random, s["n"], scale=0.01),
                "b": normal(random, s["n"], scale=0.01), "gradient": normal(random, s["n"])}

    def chain(lib: Any, x: Any, w: Any, b: Any) -> Any:
        for _ in range(CHAIN // 2):
            x = x * w
            x = x + b
        return x

    n, names = {"n": 4}, ("x", "w", "b")
    return [
        Workload("tiny_f", "overhead", "one small operation, forward with its graph", inputs,
                 _graphed(chain), n, n, CHAIN),
        Workload("tiny_b", "overhead", "one small operation, backward", inputs,
                 both(chain, *names, wrt="x", timed="backward"), n, n, CHAIN),
        Workload("tiny_fb", "overhead", "one small operation, forward + backward", inputs,
                 both(chain, *names, wrt="x"), n, n, CHAIN),
        Workload("tiny_fb_all", "overhead",
                 "one small operation, forward + backward, every operand a parameter", inputs,
                 both(chain, *names, wrt="x w b"), n, n, CHAIN)]


def _graphed(function: Callable[..., Any]) -> Callable[[Kit, Arrays], Case]:
    def build(kit: Kit, arrays: Arrays) -> Case:
        lib = kit.lib
        x, w, b = (kit.tensor(arrays[name], name == "x") for name in ("x", "w", "b"))
        run = kit.compile(lambda *given: function(lib, *given))
        kept: list[Any] = []

        def call() -> None:
            kept.append(run(x, w, b))

        def results() -> dict[str, Array]:
            return {"output": kit.numpy(run(x, w, b))}

        return Case(call, results, prepare=kept.clear)  # freeing a graph is backward's

    return build


def workloads() -> list[Workload]:
    """All of them, in the order of the table."""
    return [*_convolution(), *_products(), *_rows(), *_elementwise(), *_overhead()]
