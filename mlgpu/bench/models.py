"""Training steps and inference of small models, as a user writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .workload import Arrays, Case, Kit, Sizes, Workload, normal

Shapes = dict[str, tuple[int, ...]]
GPT = {"layers": 4, "dim": 256, "heads": 4, "tokens": 128, "batch": 16, "vocabulary": 256}
TINY_GPT = {"layers": 1, "dim": 8, "heads": 2, "tokens": 6, "batch": 2, "vocabulary": 11}
MLP = {"batch": 128, "inputs": 784, "hidden": 512, "classes": 10}
TINY_MLP = {"batch": 4, "inputs": 12, "hidden": 8, "classes": 10}
CNN_CHANNELS = (3, 32, 32, 64, 64, 128, 128)
CNN_PLACES = (0, 2, 5, 7, 10, 12)  # of the convolutions among the modules


def weights(random: np.random.Generator, shapes: Shapes) -> Arrays:
    """Values for parameters: of matrices scaled by their inputs, of norms near 1."""
    found: Arrays = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            scale = 0.02 if "embedding" in name else float(np.prod(shape[1:])) ** -0.5
            found[name] = normal(random, *shape, scale=scale)
        elif "norm" in name and name.endswith("weight"):
            found[name] = 1 + normal(random, *shape, scale=0.1)
        else:
            found[name] = normal(random, *shape, scale=0.1)
    return found


def gpt_shapes(s: Sizes) -> Shapes:
    """The parameters of `gpt`, under the names that its modules give them."""
    d = s["dim"]
    found: Shapes = {"embedding.weight": (s["vocabulary"], d),
                     "embedding_of_place.weight": (s["tokens"], d)}
    for layer in range(s["layers"]):
        for name, shape in {"norm1": (d,), "norm2": (d,), "qkv": (3 * d, d), "out": (d, d),
                            "mlp.0": (4 * d, d), "mlp.2": (d, 4 * d)}.items():
            found[f"blocks.{layer}.{name}.weight"] = shape
            found[f"blocks.{layer}.{name}.bias"] = shape[:1]
    return found | {"norm.weight": (d,), "norm.bias": (d,), "head.weight": (s["vocabulary"], d)}


def gpt(lib: Any, s: Sizes) -> Any:
    """A GPT in plain PyTorch code."""
    nn, F = lib.nn, lib.nn.functional
    dim, heads = s["dim"], s["heads"]

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"),
                                     nn.Linear(4 * dim, dim))

        def forward(self, x: Any) -> Any:
            b, t, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, dim))
            return x + self.mlp(self.norm2(x))

    class GPT(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(s["vocabulary"], dim)
            self.embedding_of_place = nn.Embedding(s["tokens"], dim)
            self.blocks = nn.Sequential(*[Block() for _ in range(s["layers"])])
            self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, s["vocabulary"], bias=False)

        def forward(self, ids: Any) -> Any:
            places = lib.arange(ids.shape[1], device=ids.device)
            x = self.embedding(ids) + self.embedding_of_place(places)
            return self.head(self.norm(self.blocks(x))).flatten(0, 1)

    return GPT()


def mlp_shapes(s: Sizes) -> Shapes:
    """The parameters of `mlp`."""
    widths = s["inputs"], s["hidden"], s["hidden"], s["classes"]
    found: Shapes = {}
    for i in range(3):
        found[f"{2 * i}.weight"] = (widths[i + 1], widths[i])
        found[f"{2 * i}.bias"] = (widths[i + 1],)
    return found


def mlp(lib: Any, s: Sizes) -> Any:
    """Three linear layers with ReLU between them."""
    nn, h = lib.nn, s["hidden"]
    return nn.Sequential(nn.Linear(s["inputs"], h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(),
                         nn.Linear(h, s["classes"]))


def _cnn_layers(s: Sizes) -> Iterator[tuple[int, int, int]]:
    """Place among the modules, input and output channels of each convolution."""
    channels = [CNN_CHANNELS[0], *(c // s["divisor"] for c in CNN_CHANNELS[1:])]
    for i, place in enumerate(CNN_PLACES):
        yield place, channels[i], channels[i + 1]


def cnn_shapes(s: Sizes) -> Shapes:
    """The parameters of `cnn`."""
    found: Shapes = {}
    last = 0
    for place, inputs, last in _cnn_layers(s):
        found[f"{place}.weight"], found[f"{place}.bias"] = (last, inputs, 3, 3), (last,)
    flat = last * (s["side"] // 8) ** 2
    return found | {"16.weight": (s["hidden"], flat), "16.bias": (s["hidden"],),
                    "18.weight": (10, s["hidden"]), "18.bias": (10,)}


def cnn(lib: Any, s: Sizes) -> Any:
    """Six convolutions, a pooling after every second, two linear layers."""
    nn = lib.nn
    modules: list[Any] = []
    outputs = 0
    for place, inputs, outputs in _cnn_layers(s):
        modules += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        if place % 5 == 2:
            modules.append(nn.MaxPool2d(2))
    flat = outputs * (s["side"] // 8) ** 2
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(flat, s["hidden"]), nn.ReLU(),
                         nn.Linear(s["hidden"], 10))


def loaded(kit: Kit, model: Any, arrays: Arrays) -> Any:
    """The model with its parameters from the inputs, where and in what dtype the kit computes."""
    model = kit.place(model)
    model.load_state_dict({name: kit.tensor(arrays[name]) for name in model.state_dict()})
    return model


def _step(make: Callable[[Any, Sizes], Any], optimizer: Callable[[Any, Any], Any],
          captured: bool = False) -> Callable[[Kit, Arrays], Case]:
    """A build of a training step: forward, cross-entropy, backward, update.

    Captured, what is timed is the replay of a CUDA graph of it; on the CPU it is the step itself.
    """

    def build(kit: Kit, arrays: Arrays) -> Case:
        lib = kit.lib
        sizes = dict(zip(*(arrays[name].tolist() for name in ("size names", "sizes")), strict=True))
        model = loaded(kit, make(lib, sizes), arrays)
        x, target = kit.tensor(arrays["x"]), kit.tensor(arrays["target"])
        update = optimizer(lib.optim, model.parameters())
        run = kit.compile(model)
        cross_entropy = lib.nn.functional.cross_entropy

        def step() -> Any:
            update.zero_grad()
            loss = cross_entropy(run(x), target)
            loss.backward()
            update.step()
            return loss

        def results() -> Arrays:
            losses = [kit.numpy(step())]
            found = {f"d {name}": kit.numpy(parameter.grad)
                     for name, parameter in model.named_parameters()}
            losses += [kit.numpy(step()) for _ in range(2)]
            return {"losses": np.array(losses)} | found

        if captured and kit.device != "cpu":
            return _replayed(kit, model, step)
        return Case(step, results)

    return build


def _replayed(kit: Kit, model: Any, step: Callable[[], Any]) -> Case:
    """A step as a graph; the second of its losses is that of the warm-up before the capture."""
    lib = kit.lib
    graph, kept = lib.cuda.CUDAGraph(), []

    def results() -> Arrays:
        losses = [kit.numpy(step())]
        found = {f"d {name}": kit.numpy(parameter.grad)
                 for name, parameter in model.named_parameters()}
        side = lib.cuda.Stream()
        side.wait_stream(lib.cuda.current_stream())
        with lib.cuda.stream(side):
            losses.append(kit.numpy(step()))
        lib.cuda.current_stream().wait_stream(side)
        with lib.cuda.graph(graph):
            kept.append(step())
        graph.replay()
        return {"losses": np.array([*losses, kit.numpy(kept[0])])} | found

    return Case(graph.replay, results)


def _settings(s: Sizes) -> Arrays:
    """The sizes among the inputs: a build sees nothing else."""
    return {"size names": np.array(list(s)), "sizes": np.array(list(s.values()))}


def _gpt_inputs(random: np.random.Generator, s: Sizes) -> Arrays:
    ids = random.integers(0, s["vocabulary"], (s["batch"], s["tokens"] + 1))
    return weights(random, gpt_shapes(s)) | _settings(s) | {
        "x": ids[:, :-1].copy(), "target": ids[:, 1:].reshape(-1).copy()}


def _mlp_inputs(random: np.random.Generator, s: Sizes) -> Arrays:
    return weights(random, mlp_shapes(s)) | _settings(s) | {
        "x": normal(random, s["batch"], s["inputs"]),
        "target": random.integers(0, s["classes"], s["batch"])}


def _cnn_inputs(random: np.random.Generator, s: Sizes) -> Arrays:
    return weights(random, cnn_shapes(s)) | _settings(s) | {
        "x": normal(random, s["batch"], 3, s["side"], s["side"]),
        "target": random.integers(0, 10, s["batch"])}


def _lstm_shapes(s: Sizes) -> Shapes:
    n, h = s["inputs"], s["hidden"]
    return {"weight_ih_l0": (4 * h, n), "weight_hh_l0": (4 * h, h), "bias_ih_l0": (4 * h,),
            "bias_hh_l0": (4 * h,)}


def _lstm_inputs(random: np.random.Generator, s: Sizes) -> Arrays:
    return weights(random, _lstm_shapes(s)) | _settings(s) | {
        "x": normal(random, s["tokens"], s["batch"], s["inputs"]),
        "gradient": normal(random, s["tokens"], s["batch"], s["hidden"])}


def _lstm_build(kit: Kit, arrays: Arrays) -> Case:
    sizes = dict(zip(*(arrays[name].tolist() for name in ("size names", "sizes")), strict=True))
    model = loaded(kit, kit.lib.nn.LSTM(sizes["inputs"], sizes["hidden"]), arrays)
    x, gradient = kit.tensor(arrays["x"], True), kit.tensor(arrays["gradient"])
    run = kit.compile(model)
    leaves = {"x": x, **dict(model.named_parameters())}

    def step() -> Any:
        for leaf in leaves.values():
            leaf.grad = None
        output, _ = run(x)
        output.backward(gradient)
        return output

    def results() -> Arrays:
        found = {"output": kit.numpy(step())}
        return found | {f"d {name}": kit.numpy(leaf.grad) for name, leaf in leaves.items()}

    return Case(step, results)


def _inference_build(kit: Kit, arrays: Arrays) -> Case:
    sizes = dict(zip(*(arrays[name].tolist() for name in ("size names", "sizes")), strict=True))
    model = loaded(kit, mlp(kit.lib, sizes), arrays).eval()
    x, run, no_grad = kit.tensor(arrays["x"]), kit.compile(model), kit.lib.no_grad

    def call() -> Any:
        with no_grad():
            return run(x)

    return Case(call, lambda: {"output": kit.numpy(call())})


def workloads() -> list[Workload]:
    """All of them, in the order of the table."""
    def adamw(optim: Any, parameters: Any) -> Any:
        return optim.AdamW(parameters, lr=1e-4)

    def capturable(optim: Any, parameters: Any) -> Any:
        parameters = list(parameters)
        # PyTorch wants to know, on a GPU alone; mlgpu's optimizers can all be captured.
        told = optim.__name__ == "torch.optim" and parameters[0].is_cuda
        return optim.AdamW(parameters, lr=1e-4, **({"capturable": True} if told else {}))

    def sgd(optim: Any, parameters: Any) -> Any:
        return optim.SGD(parameters, lr=1e-3)

    lstm = {"tokens": 64, "batch": 32, "inputs": 64, "hidden": 256}
    cnn_sizes = {"batch": 64, "side": 32, "hidden": 256, "divisor": 1}
    tiny_cnn = {"batch": 2, "side": 8, "hidden": 8, "divisor": 8}
    close = {"losses": 1e-5}
    return [
        Workload("gpt_step", "models",
                 "GPT training step: 4 layers, d 256, 4 heads, T 128, batch 16, AdamW", _gpt_inputs,
                 _step(gpt, adamw), GPT, TINY_GPT,
                 tolerance=1e-4, tolerances=close),
        Workload("mlp_step", "models", "MLP training step: 784-512-512-10, batch 128, SGD",
                 _mlp_inputs, _step(mlp, sgd), MLP, TINY_MLP,
                 tolerance=1e-4, tolerances=close),
        Workload("cnn_step", "models",
                 "CNN training step: 6 conv (32 to 128), 3 pool, 2 linear, batch 64 of 32x32, SGD",
                 _cnn_inputs, _step(cnn, sgd), cnn_sizes,
                 tiny_cnn,
                 # A maximum or a ReLU near a tie falls to the other side by a rounding.
                 tolerance=1e-2, tolerances=close),
        Workload("lstm_fb", "models", "LSTM, T 64, B 32, 64 -> 256, forward + backward",
                 _lstm_inputs, _lstm_build, lstm,
                 {"tokens": 3, "batch": 2, "inputs": 4, "hidden": 5}, tolerance=1e-4),
        Workload("gpt_graph", "graphs", "the GPT training step as a CUDA graph", _gpt_inputs,
                 _step(gpt, capturable, True), GPT, TINY_GPT, tolerance=1e-4, tolerances=close,
                 cuda=True),
        Workload("mlp_graph", "graphs", "the MLP training step as a CUDA graph", _mlp_inputs,
                 _step(mlp, sgd, True), MLP, TINY_MLP, tolerance=1e-4, tolerances=close,
                 cuda=True),
        Workload("cnn_graph", "graphs", "the CNN training step as a CUDA graph", _cnn_inputs,
                 _step(cnn, sgd, True), cnn_sizes, tiny_cnn, tolerance=1e-2, tolerances=close,
                 cuda=True),
        Workload("mlp_infer1", "models", "one row through the MLP 784-512-512-10", _mlp_inputs,
                 _inference_build, {**MLP, "batch": 1}, {**TINY_MLP, "batch": 1}),
    ]
