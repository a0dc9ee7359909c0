"""Workloads in JAX: each call is one function compiled by jax.jit, and waits for its result."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import clock
from .models import CNN_PLACES
from .operations import DROPPED
from .optimizers import STEPS
from .workload import Arrays, Case, Workload

Builder = Callable[[Arrays], Case]


def _done(value: Any) -> Any:
    return jax.block_until_ready(value)


def forward(function: Callable[..., Any], *names: str) -> Builder:
    """A build that calls the function on the inputs of these names."""

    def build(arrays: Arrays) -> Case:
        operands = [jnp.asarray(arrays[name]) for name in names]
        run = jax.jit(function)
        return Case(lambda: _done(run(*operands)), lambda: {"output": np.array(run(*operands))})

    return build


def both(function: Callable[..., Any], *names: str, wrt: str) -> Builder:
    """A build of the function and its gradients, for "gradient" of the output or of a number."""

    def build(arrays: Arrays) -> Case:
        operands = [jnp.asarray(arrays[name]) for name in names]
        places = [names.index(name) for name in wrt.split()]
        upstream = jnp.asarray(arrays["gradient"]) if "gradient" in arrays else jnp.ones(())

        def step(upstream: Any, *given: Any) -> Any:
            def of(*leaves: Any) -> Any:
                whole = list(given)
                for place, leaf in zip(places, leaves, strict=True):
                    whole[place] = leaf
                return function(*whole)

            output, back = jax.vjp(of, *(given[place] for place in places))
            return output, back(upstream)

        run = jax.jit(step)

        def results() -> Arrays:
            output, gradients = run(upstream, *operands)
            return {"output": np.array(output)} | {
                f"d {name}": np.array(g) for name, g in zip(wrt.split(), gradients, strict=True)}

        return Case(lambda: _done(run(upstream, *operands)), results)

    return build


def _conv(x: Any, weight: Any, bias: Any) -> Any:
    out = lax.conv_general_dilated(x, weight, (1, 1), "SAME",
                                   dimension_numbers=("NCHW", "OIHW", "NCHW"))
    return out + bias[:, None, None]


def _pool(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def _norm(x: Any, weight: Any, bias: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    variance = x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * weight + bias


def _cross_entropy(x: Any, target: Any) -> Any:
    picked = jnp.take_along_axis(jax.nn.log_softmax(x), target[:, None], 1)
    return -picked.mean()


def _attention(q: Any, k: Any, v: Any) -> Any:
    """Heads second, as PyTorch's."""
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).transpose(0, 2, 1, 3)


def _dropout(arrays: Arrays) -> Case:
    """Forward alone: a mask that both ways share would be stored, which is another workload."""
    x, key, calls = jnp.asarray(arrays["x"]), jax.random.key(0), [0]

    def draw(number: int, x: Any) -> Any:
        keep = jax.random.bernoulli(jax.random.fold_in(key, number), 1 - DROPPED, x.shape)
        return jnp.where(keep, x / (1 - DROPPED), 0)

    run = jax.jit(draw)

    def call() -> Any:
        calls[0] += 1
        return _done(run(calls[0], x))

    def results() -> Arrays:
        output = np.array(call())
        kept = output != 0
        return {"share": kept.mean(keepdims=True, dtype=np.float64),
                "kept": np.where(kept, output, arrays["x"] / (1 - DROPPED))}

    return Case(call, results)


def _adamw(p: Any, g: Any, m: Any, v: Any, t: Any, lr: float) -> tuple[Any, Any, Any]:
    m, v = m + 0.1 * (g - m), v + 0.001 * (g * g - v)
    step = (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p * (1 - lr * 1e-2) - lr * step, m, v


def _optimizer(arrays: Arrays) -> Case:
    names = ("matrix", "vector") * int(arrays["layers"])
    gradients = [jnp.array(arrays[f"d {name}"]) for name in names]
    state: list[Any] = [[(jnp.array(arrays[name]), jnp.zeros_like(g), jnp.zeros_like(g))
                         for name, g in zip(names, gradients, strict=True)], 0.0]

    def update(held: Any, gradients: Any, t: Any) -> Any:
        return [_adamw(p, g, m, v, t, 1e-3)
                for (p, m, v), g in zip(held, gradients, strict=True)]

    run = jax.jit(update, donate_argnums=0)

    def call() -> None:
        state[1] += 1
        state[0] = _done(run(state[0], gradients, state[1]))

    def results() -> Arrays:
        for _ in range(STEPS):
            call()
        return {"matrix": np.array(state[0][0][0]), "vector": np.array(state[0][-1][0])}

    return Case(call, results)


def _linear(p: Any, name: str, x: Any) -> Any:
    found = x @ p[name + ".weight"].T
    return found + p[name + ".bias"] if name + ".bias" in p else found


def _mlp(p: Any, x: Any) -> Any:
    for name in ("0", "2"):
        x = jax.nn.relu(_linear(p, name, x))
    return _linear(p, "4", x)


def _cnn(p: Any, x: Any) -> Any:
    for place in CNN_PLACES:
        x = jax.nn.relu(_conv(x, p[f"{place}.weight"], p[f"{place}.bias"]))
        x = _pool(x) if place % 5 == 2 else x
    return _linear(p, "18", jax.nn.relu(_linear(p, "16", x.reshape(len(x), -1))))


def _gpt(heads: int) -> Callable[[Any, Any], Any]:
    def run(p: Any, ids: Any) -> Any:
        x = p["embedding.weight"][ids] + p["embedding_of_place.weight"]
        b, t, d = x.shape
        layers = sum(name.endswith("qkv.weight") for name in p)
        for layer in range(layers):
            of = f"blocks.{layer}."
            y = _norm(x, p[of + "norm1.weight"], p[of + "norm1.bias"])
            qkv = _linear(p, of + "qkv", y).reshape(b, t, 3, heads, -1)
            y = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2],
                                             is_causal=True)
            x = x + _linear(p, of + "out", y.reshape(b, t, d))
            y = _norm(x, p[of + "norm2.weight"], p[of + "norm2.bias"])
            y = jax.nn.gelu(_linear(p, of + "mlp.0", y), approximate=True)
            x = x + _linear(p, of + "mlp.2", y)
        x = _norm(x, p["norm.weight"], p["norm.bias"])
        return _linear(p, "head", x).reshape(b * t, -1)

    return run


def _sizes(arrays: Arrays) -> dict[str, int]:
    return dict(zip(*(arrays[name].tolist() for name in ("size names", "sizes")), strict=True))


def _parameters(arrays: Arrays) -> dict[str, Any]:
    return {name: jnp.array(value) for name, value in arrays.items()
            if name.endswith(("weight", "bias"))}


def _training(arrays: Arrays, model: Callable[[Any, Any], Any], adam: bool) -> Case:
    x, target = jnp.asarray(arrays["x"]), jnp.asarray(arrays["target"])
    p = _parameters(arrays)
    zeros = {name: jnp.zeros_like(value) for name, value in p.items()}
    state: list[Any] = [p, zeros, dict(zeros), 0.0]
    gradient = jax.value_and_grad(lambda p, x, target: _cross_entropy(model(p, x), target))

    def update(p: Any, m: Any, v: Any, t: Any, x: Any, target: Any) -> Any:
        loss, g = gradient(p, x, target)
        if not adam:
            return loss, {name: p[name] - 1e-3 * g[name] for name in p}, m, v
        new = {name: _adamw(p[name], g[name], m[name], v[name], t, 1e-4) for name in p}
        return (loss, *({name: found[i] for name, found in new.items()} for i in range(3)))

    run = jax.jit(update)

    def call() -> Any:
        state[3] += 1
        loss, *state[:3] = _done(run(*state, x, target))
        return loss

    def results() -> Arrays:
        found = {f"d {name}": np.array(value)
                 for name, value in jax.jit(gradient)(state[0], x, target)[1].items()}
        return {"losses": np.array([call() for _ in range(3)])} | found

    return Case(call, results)


def _lstm(arrays: Arrays) -> Case:
    def run(x: Any, w: Any, u: Any, b: Any, c: Any) -> Any:
        projected = x @ w.T + (b + c)

        def cell(state: Any, row: Any) -> Any:
            h, s = state
            i, f, g, o = jnp.split(row + h @ u.T, 4, -1)
            s = jax.nn.sigmoid(f) * s + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(s)
            return (h, s), h

        zero = jnp.zeros((x.shape[1], u.shape[1]), x.dtype)
        return lax.scan(cell, (zero, zero), projected)[1]

    names = ("x", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return both(run, *names, wrt=" ".join(names))(arrays)


def _inference(arrays: Arrays) -> Case:
    p, x, run = _parameters(arrays), jnp.asarray(arrays["x"]), jax.jit(_mlp)
    return Case(lambda: _done(run(p, x)), lambda: {"output": np.array(run(p, x))})


def _gelu(x: Any) -> Any:
    return jax.nn.gelu(x, approximate=True)


def _gelu_erf(x: Any) -> Any:
    return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


def _silu(x: Any, gate: Any) -> Any:
    return jax.nn.silu(x) * gate


# By the family of the workload.
FORMS: dict[str, Builder] = {
    "gpt_step": lambda a: _training(a, _gpt(_sizes(a)["heads"]), True),
    "mlp_step": lambda a: _training(a, _mlp, False),
    "cnn_step": lambda a: _training(a, _cnn, False),
    "lstm_fb": _lstm,
    "mlp_infer1": _inference,
    "conv_f": forward(_conv, "x", "weight", "bias"),
    "conv_fb": both(_conv, "x", "weight", "bias", wrt="x weight bias"),
    "gemm": forward(jnp.matmul, "a", "b"),
    "bmm_qk": forward(lambda q, k: q @ k.swapaxes(-1, -2), "q", "k"),
    "bmm_av": forward(jnp.matmul, "p", "v"),
    "attn_f": forward(_attention, "q", "k", "v"),
    "attn_fb": both(_attention, "q", "k", "v", wrt="q k v"),
    "softmax": forward(jax.nn.softmax, "x"),
    "softmax_fb": both(jax.nn.softmax, "x", wrt="x"),
    "ln_f": forward(_norm, "x", "weight", "bias"),
    "ln_fb": both(_norm, "x", "weight", "bias", wrt="x weight bias"),
    "xent_fb": both(_cross_entropy, "x", "target", wrt="x"),
    "emb_fb": both(lambda ids, weight: weight[ids], "ids", "weight", wrt="weight"),
    "maxpool_fb": both(_pool, "x", wrt="x"),
    "gelu": forward(_gelu, "x"),
    "gelu_fb": both(_gelu, "x", wrt="x"),
    "gelu_erf": forward(_gelu_erf, "x"),
    "gelu_erf_fb": both(_gelu_erf, "x", wrt="x"),
    "silu": forward(_silu, "x", "gate"), "silu_fused": forward(_silu, "x", "gate"),
    "silu_fb": both(_silu, "x", "gate", wrt="x gate"),
    "silu_fused_fb": both(_silu, "x", "gate", wrt="x gate"),
    "add": forward(jnp.add, "x", "y"),
    "add_fb": both(jnp.add, "x", "y", wrt="x y"),
    "dropout": _dropout,
    "adamw": _optimizer,
}


class JaxKit:
    """JAX on the CPU in float32."""

    timer = staticmethod(clock.host)

    def case(self, workload: Workload, arrays: Arrays) -> Case | None:
        """The workload set up; None where it has no form here."""
        form = FORMS.get(workload.family)
        return None if form is None else form(arrays)


def kit(peer: str, device: str, dtype: str, threads: int) -> JaxKit:
    """The kit.  JAX takes its threads from the cores that the process may use."""
    if device == "cpu":  # by itself it would take a GPU that is there
        jax.config.update("jax_platforms", "cpu")
    return JaxKit()
