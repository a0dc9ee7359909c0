"""Write kernels/instances.txt: `PYTHONPATH=.:tests python tests/kernels/collect.py`.

Runs the op table, and usual layers of models at usual sizes, on a simulated device (CuPy and
mlgpu[sim] are needed) where launches are noted and nothing is computed.  So sizes cost nothing;
what depends on values that were never computed is left out.
"""

from __future__ import annotations

import itertools
import math
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from table.case import Case, rows, tensors

import mlgpu
from mlgpu import nn, peft
from mlgpu.cuda import launch
from mlgpu.cuda.instances import shipped
from mlgpu.nn import functional as F
from mlgpu.sim.cuda.install import install

DTYPES = ("float32", "float16", "bfloat16")
SECONDS = 20  # that a call may take: it may be waiting for what nobody computes

stopped: Counter[str] = Counter()
found: dict[str, tuple[int, int]] = {}  # "family expression": threads, bytes of shared memory


def note(kernel: launch.Kernel, grid: launch.Size, block: launch.Size, arguments: Any,
         shared: int = 0) -> None:
    """In place of a launch."""
    if not kernel.filename.startswith("fused_"):
        name = f"{Path(kernel.filename).stem} {kernel.expression}"
        threads, most = found.get(name, (0, 0))
        size = block if isinstance(block, int) else math.prod(block)
        found[name] = max(threads, size), max(most, shared)


def expired(number: int, frame: object) -> None:
    raise TimeoutError


def attempt(function: Callable[..., Any], *inputs: Any) -> None:
    """Run it and its gradient as far as they get."""
    signal.alarm(SECONDS)
    try:
        result = function(*inputs)
        outputs = [y for y in (result if isinstance(result, tuple) else (result,))
                   if isinstance(y, mlgpu.Tensor) and y.requires_grad]
        if outputs:
            mlgpu.autograd.grad(outputs, [x for x in inputs if x.requires_grad],
                                [mlgpu.empty_like(y) for y in outputs], allow_unused=True)
    except Exception as error:  # such as what needs values: there are none
        stopped[f"{type(error).__name__}: {error}".splitlines()[0][:100]] += 1
    finally:
        signal.alarm(0)


def of_table(case: Case, dtype: str, strided: bool) -> None:
    inputs = tensors(case, dtype, False, "cuda", strided)
    if case.gradient is not False:
        for x in inputs:
            x.requires_grad_(x.is_floating_point() or x.is_complex())
    attempt(case.fn, *inputs)


def some(dtype: str, *shape: int) -> mlgpu.Tensor:
    return mlgpu.empty(shape, dtype=getattr(mlgpu, dtype), device="cuda", requires_grad=True)


WIDTHS = ((100, 108), (70, 70), (1000, 1004), (1002, 1002))  # whose lines 16 bytes do not divide
SIZES = ((8, 512), (512, 768), (1024, 1024), (256, 4096), (64, 1000), (33, 77))
OF_ROWS = (
    lambda x: x.softmax(-1), lambda x: x.log_softmax(-1), lambda x: x.sum(), lambda x: x.sum(0),
    lambda x: x.mean(-1), lambda x: x.var(-1), lambda x: x.max(-1).values, lambda x: x.argmax(-1),
    lambda x: x.cumsum(-1), lambda x: x.topk(8), lambda x: x.sort(-1), lambda x: x.t().contiguous(),
    lambda x: F.dropout(x, 0.1), lambda x: F.layer_norm(x, x.shape[-1:]),
    lambda x: F.rms_norm(x, x.shape[-1:]),
    lambda x: F.cross_entropy(x, mlgpu.zeros(len(x), dtype=mlgpu.int64, device="cuda")),
    lambda x: F.embedding(mlgpu.zeros(64, dtype=mlgpu.int64, device="cuda"), x))
PRODUCTS = (lambda x: F.linear(x, x), lambda x: x.t() @ x)
OF_IMAGES = (
    *(nn.Conv2d(64, 64, kernel, stride, kernel // 2, groups=groups)
      for kernel, stride, groups in ((1, 1, 1), (3, 1, 1), (3, 2, 1), (7, 2, 1), (3, 1, 64))),
    nn.ConvTranspose2d(64, 32, 2, 2), nn.BatchNorm2d(64), nn.GroupNorm(8, 64), nn.MaxPool2d(2),
    nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=2, mode="bilinear"))
OF_SEQUENCES = (
    nn.Linear(256, 1024), nn.LayerNorm(256), nn.RMSNorm(256), nn.LSTM(256, 256), nn.GRU(256, 256),
    nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True))
OPTIMIZERS = (mlgpu.optim.SGD, mlgpu.optim.Adam, mlgpu.optim.AdamW)


def step(kind: Any, dtype: str) -> None:
    parameters = [some(dtype, 300, 300), some(dtype, 7)]
    for p in parameters:
        p.grad = mlgpu.empty_like(p)
    nn.utils.clip_grad_norm_(parameters, 1.0)
    kind(parameters, lr=1e-3).step()


def of_products(dtype: str) -> None:
    for size, function in itertools.product((*SIZES, *WIDTHS, (64, 50257)), PRODUCTS):
        attempt(function, some(dtype, *size))
    for size in (64, 128, 256, 512):
        attempt(mlgpu.bmm, some(dtype, 8, size, size), some(dtype, 8, size, size))


def of_tf32() -> None:
    """Products of float32 that may lose precision."""
    mlgpu.set_float32_matmul_precision("high")
    of_products("float32")
    mlgpu.set_float32_matmul_precision("highest")


def of_models(dtype: str) -> None:
    for size, function in itertools.product((*SIZES, (64, 50257)), OF_ROWS):
        attempt(function, some(dtype, *size))
    of_products(dtype)
    for width, causal, length in itertools.product((32, 64, 80, 96, 128, 256), (False, True),
                                                   (1, 128, 512)):
        attempt(lambda q, k, v, causal=causal: F.scaled_dot_product_attention(
            q, k, v, is_causal=causal), some(dtype, 2, 4, length, width),
            some(dtype, 2, 4, 512, width), some(dtype, 2, 4, 512, width))
    place = {"device": "cuda", "dtype": getattr(mlgpu, dtype)}
    for module in OF_IMAGES:
        attempt(module.to(**place), some(dtype, 4, 64, 56, 56))
    attempt(nn.Conv2d(3, 64, 7, 2, 3).to(**place), some(dtype, 4, 3, 56, 56))
    for module in OF_SEQUENCES:
        attempt(module.to(**place), some(dtype, 4, 128, 256))
    for kind in OPTIMIZERS:
        attempt(lambda kind=kind: step(kind, dtype))


def of_the_rest(dtype: str) -> None:
    """What neither the table nor models have."""
    place = {"device": "cuda", "dtype": getattr(mlgpu, dtype)}
    zeros = mlgpu.zeros(4096, dtype=mlgpu.int64, device="cuda")
    for n in (5, 6, 4096):
        x = mlgpu.zeros(3, n, **place)
        for function in (
                lambda n=n: mlgpu.rand(n, **place), lambda n=n: mlgpu.randn(n, **place),
                lambda n=n: mlgpu.randint(0, 10, (n,), device="cuda"),
                lambda n=n: mlgpu.randint(0, 1 << 40, (n,), device="cuda"),
                lambda n=n: mlgpu.randperm(n, device="cuda"),
                lambda x=x: mlgpu.bernoulli(x), lambda x=x: x.bernoulli_(0.3),
                lambda x=x: mlgpu.poisson(x), lambda x=x: mlgpu.multinomial(x, 2),
                lambda x=x: mlgpu.multinomial(x, 2, replacement=True),
                lambda x=x: x.exponential_(), lambda x=x: x.geometric_(0.2),
                lambda x=x: x.cauchy_(), lambda x=x: x.log_normal_(), lambda x=x: x.random_(),
                lambda x=x: F.gumbel_softmax(x), lambda x=x: x.nonzero(),
                lambda x=x: x.masked_select(x > 0), lambda x=x: x.unique()):
            attempt(function)
    for n in (1, 64):
        attempt(lambda x, w: F.embedding(zeros, w), some(dtype, 1), some(dtype, 5000, n))
        attempt(lambda x, n=n: x.index_add(0, zeros, mlgpu.zeros(4096, n, **place)),
                some(dtype, 5000, n))
    for kind, way in itertools.product((mlgpu.int32, mlgpu.int64), ("atomic", "deterministic")):
        many = mlgpu.zeros(16384, dtype=kind, device="cuda")
        mlgpu.backends.cuda.embedding_backward = way
        for frequency in (False, True):
            attempt(lambda x, w, many=many, frequency=frequency: F.embedding(
                many, w, scale_grad_by_freq=frequency), some(dtype, 1), some(dtype, 5000, 64))
    images = some(dtype, 2, 8, 15, 15)
    for function in (lambda x: F.max_pool2d(x, 2, return_indices=True), F.dropout2d,
                     lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: F.adaptive_max_pool2d(x, 4),
                     lambda x: F.interpolate(x, size=(7, 31), mode="bicubic", antialias=True),
                     lambda x: F.interpolate(x, size=(31, 7), mode="area")):
        attempt(function, images)
    attempt(lambda x: F.cross_entropy(x, zeros[:64], weight=mlgpu.ones(10, **place)),
            some(dtype, 64, 10))
    for size in (32, 1000, 1024):
        attempt(lambda x: F.rnnt_loss(x, zeros[:12].reshape(2, 6), zeros[:2] + 5, zeros[:2] + 6),
                some(dtype, 2, 5, 7, size))
    for size in (16, 64, 256):
        attempt(lambda x, w, mask: F.deform_conv2d(x, mlgpu.zeros(2, 18, 14, 14, **place), w,
                                                   padding=1, mask=mask),
                some(dtype, 2, size, 14, 14), some(dtype, size, size, 3, 3),
                some(dtype, 2, 9, 14, 14))
    for double, n in itertools.product((False, True), (1, 4, 64)):
        model = nn.Sequential(nn.Linear(256, 256).to(**place))
        peft.quantize(model, ["0"], double_quant=double)
        attempt(model, some(dtype, n, 256))
        attempt(lambda model=model: model[0].weight)
    attempt(lambda x, w: F.linear(x, w), some(dtype, 1, 1024), some(dtype, 4096, 1024))
    attempt(lambda x, w: x @ w, some(dtype, 1, 1024), some(dtype, 1024, 4096))
    for module in (nn.RNN(64, 64), nn.LSTM(64, 64, proj_size=16), nn.GRUCell(64, 64),
                   nn.LSTMCell(64, 64), nn.RNNCell(64, 64)):
        shape = (8, 64) if "Cell" in type(module).__name__ else (5, 8, 64)
        attempt(module.to(**place), some(dtype, *shape))
    parameter = some(dtype, 100, 100)
    parameter.grad = mlgpu.empty_like(parameter)
    attempt(lambda: nn.utils.clip_grad_value_([parameter], 1.0))


def jobs() -> Iterator[Callable[[], None]]:
    for dtype in (*DTYPES, "float64"):
        yield lambda dtype=dtype: of_the_rest(dtype)
    for dtype in DTYPES:
        yield lambda dtype=dtype: of_models(dtype)
    yield of_tf32
    for _, case in rows():
        for dtype in case.dtypes:
            yield lambda case=case, dtype=dtype: of_table(case, dtype, False)
        yield lambda case=case: of_table(case, case.dtypes[0], True)


def main() -> None:
    install(devices=1, memory="8 GiB", checks=())
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, expired)
    launch.Kernel.__call__ = note  # type: ignore[method-assign]
    with mlgpu.Device("cuda"):
        for job in jobs():
            job()
    head = ["# Instances of kernels, each with the threads and the bytes of shared memory of its",
            "# launches.  Made by tests/kernels/collect.py; see mlgpu/cuda/instances.py."]
    lines = [f"{name} @{threads} {shared}" for name, (threads, shared) in sorted(found.items())]
    shipped().write_text("\n".join([*head, *lines, ""]), encoding="utf-8")
    print(f"{len(lines)} instances in {shipped()}; calls that ended early, by why:")
    for reason, count in stopped.most_common():
        print(f"{count:6} {reason}")


if __name__ == "__main__":
    main()
