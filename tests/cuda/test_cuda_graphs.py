"""Captured work: graphs as PyTorch has them, and steps that run as one."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, optim
from mlgpu.cuda import CUDAGraph, graph
from mlgpu.errors import CaptureError
from mlgpu.optim import lr_scheduler
from mlgpu.sim.cuda.install import installed
from mlgpu.sim.cuda.system import System


def test_a_graph_runs_again_on_the_same_memory():
    x = mlgpu.zeros(1000, device="cuda")
    (x * 2 + 1).relu()  # what is compiled, is compiled before
    g = CUDAGraph()
    with graph(g):
        y = (x * 2 + 1).relu()
    for value in (1.0, -3.0, 5.0):
        x.fill_(value)
        g.replay()
        assert y.tolist() == [max(2 * value + 1, 0)] * 1000


def test_temporaries_of_a_graph_are_nobody_elses():
    x = mlgpu.full((1 << 12,), 3.0, device="cuda")
    x * 2
    g = CUDAGraph()
    with graph(g):
        y = x
        for _ in range(6):
            y = y * 2  # each but the last is dropped, and its memory used again in the graph
    others = [mlgpu.full((1 << 12,), 7.0, device="cuda") for _ in range(20)]
    g.replay()
    assert y[::1000].tolist() == [192.0] * 5
    assert all(t[::1000].tolist() == [7.0] * 5 for t in others)
    del y, g
    gc.collect()
    assert all(t[::1000].tolist() == [7.0] * 5 for t in others)


def test_replays_on_another_stream_come_after_what_they_depend_on():
    side = mlgpu.cuda.Stream()
    x = mlgpu.zeros(4096, device="cuda")
    x * 2
    g = CUDAGraph()
    with graph(g):
        y = x * 2
    for value in (1.0, 2.0):
        with mlgpu.cuda.stream(side):
            x.fill_(value)
        g.replay()
        assert (y - 2 * value).abs().max().item() == 0
        with mlgpu.cuda.stream(side):
            total = y.sum()
        g.replay()
        assert total.item() == 2 * value * 4096


def test_versions_follow_the_replays():
    x = mlgpu.zeros(3, device="cuda")
    x.add_(1)
    g = CUDAGraph()
    before = x._version
    with graph(g):
        x.add_(1)
        x.mul_(2)
    assert x._version == before
    g.replay()
    g.replay()
    assert x._version == before + 4
    assert x.tolist() == [10.0] * 3


def step_function(device):
    mlgpu.manual_seed(1)
    w = mlgpu.linspace(-1, 1, 12, device=device).reshape(4, 3).requires_grad_()

    def step(x, scale=1.0):
        w.grad = None
        loss = ((x.unsqueeze(1) * w).sum(-1).sigmoid() * scale).sum()
        loss.backward()
        with mlgpu.no_grad():
            w.sub_(w.grad * 0.1)
        return {"loss": loss}

    return w, step


def test_a_captured_step_is_the_step():
    w, step = step_function("cpu")
    there, other = step_function("cuda")
    captured = graph(other)
    for k in range(6):
        x = mlgpu.linspace(0, 1 + k, 6).reshape(2, 3)
        loss = step(x)["loss"]
        found = captured(x.cuda())["loss"]
        np.testing.assert_allclose(found.item(), loss.item(), rtol=1e-6)
        np.testing.assert_allclose(there.cpu().detach().numpy(), w.detach().numpy(), rtol=1e-5)
        assert there._version == w._version
    assert captured.graph is not None


def test_on_the_cpu_it_is_the_function():
    captured = graph(step_function("cpu")[1])
    for _ in range(3):
        assert captured(mlgpu.ones(2, 3))["loss"].requires_grad
    assert captured.graph is None


def test_without_tensors_the_default_device_decides():
    x = mlgpu.zeros(3, device="cuda")
    captured = graph(lambda: x.add_(1).detach())
    captured()
    assert captured.graph is None
    with mlgpu.Device("cuda"):
        for _ in range(3):
            captured()
    assert captured.graph is not None
    assert x.tolist() == [4.0] * 3


def test_other_shapes_and_numbers_are_refused():
    captured = graph(step_function("cuda")[1])
    for _ in range(2):
        captured(mlgpu.ones(2, 3, device="cuda"), scale=1.0)
    for arguments in [(mlgpu.ones(3, 3, device="cuda"), 1.0),
                      (mlgpu.ones(2, 3, device="cuda"), 2.0),
                      (mlgpu.ones(2, 3, device="cuda", dtype=mlgpu.float64), 1.0)]:
        with pytest.raises(CaptureError, match="captured for other"):
            captured(arguments[0], scale=arguments[1])
    captured(mlgpu.ones(2, 3, device="cuda"), scale=1.0)


REFUSED = {
    "item": lambda x: x[0].item(),
    "bool": lambda x: bool(x[0] > 0),
    "print": lambda x: repr(x),
    "from the host": lambda x: x + mlgpu.tensor([1.0, 2.0, 3.0], device="cuda"),
    "to the host": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_captured_says_so(what):
    x = mlgpu.ones(3, device="cuda")
    x + x
    g = CUDAGraph()
    def capture():
        with graph(g):
            x + x
            REFUSED[what](x)

    with pytest.raises(CaptureError, match="cannot be part of a captured graph"):
        capture()
    assert not mlgpu.cuda.is_current_stream_capturing()
    with pytest.raises(CaptureError, match="nothing was captured"):
        g.replay()
    assert (x + x).tolist() == [2.0] * 3  # and the device goes on
    with graph(g):
        y = x + x
    g.replay()
    assert y.tolist() == [2.0] * 3


def test_misuse():
    g = CUDAGraph()
    with pytest.raises(CaptureError, match="nothing was captured"):
        g.replay()
    with pytest.raises(CaptureError, match="default stream"):
        g.capture_begin()
    with pytest.raises(CaptureError, match="no capture"):
        g.capture_end()
    with pytest.raises(CaptureError, match="capturing a graph already"), graph(g):
        CUDAGraph().capture_begin()
    with pytest.raises(TypeError, match="expected a CUDAGraph or a function"):
        graph(3)
    with pytest.raises(CaptureError, match="capture_error_mode"), graph(
            g, capture_error_mode="nice"):
        pass
    x = mlgpu.ones(3, device="cuda")
    with graph(g):
        x.add_(1)
    with pytest.raises(CaptureError, match="reset"), graph(g):
        pass
    g.reset()
    with graph(g):
        x.add_(1)


def test_kernels_of_ones_own_are_captured():
    kernel = mlgpu.cuda.kernel("__global__ void twice(float* x) { x[threadIdx.x] *= 2; }", "twice")
    x = mlgpu.ones(32, device="cuda")
    kernel(1, 32, (x,))
    before = x._version
    g = CUDAGraph()
    with graph(g):
        kernel(1, 32, (x,))
    g.replay()
    g.replay()
    assert x.tolist() == [8.0] * 32
    assert x._version == before + 2


def trained(capture: bool, steps: int = 12):
    """Parameters, state and random state after steps of AdamW, warm-up and cosine, clipping and
    dropout."""
    mlgpu.manual_seed(7)
    model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.GELU(), nn.Dropout(0.2),
                          nn.Linear(12, 1)).to("cuda")
    optimizer = mlgpu.optim.AdamW(model.parameters(), lr=0.02)
    schedule = lr_scheduler.SequentialLR(optimizer, [
        lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5),
        lr_scheduler.CosineAnnealingLR(optimizer, steps - 5)], milestones=[5])

    def step(x, y):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        return loss

    run = graph(step) if capture else step
    generator = mlgpu.Generator().manual_seed(3)
    losses = []
    for _ in range(steps):
        x = mlgpu.rand(8, 6, generator=generator).cuda()
        losses.append(run(x, x.sum(1, keepdim=True)).item())
    state = [optimizer.state[p] for p in model.parameters()]
    return {
        "losses": losses, "model": {n: t.tolist() for n, t in model.state_dict().items()},
        "state": [{n: t.tolist() for n, t in s.items()} for s in state],
        "rate": [g["lr"] for g in optimizer.param_groups], "epoch": schedule.last_epoch,
        "random": mlgpu.get_rng_state().tolist(),
        "versions": [p._version for p in model.parameters()]}


def test_a_captured_run_is_the_eager_run_to_the_bit():
    before, mlgpu.backends.cuda.gemm = mlgpu.backends.cuda.gemm, "own"
    try:
        eager, captured = trained(False), trained(True)
    finally:
        mlgpu.backends.cuda.gemm = before
    assert captured == eager
    assert eager["losses"][-1] < eager["losses"][0]


# --- schedules ------------------------------------------------------------------------------------

FORESEEN = {
    "step": lambda o: lr_scheduler.StepLR(o, 3, 0.7),
    "multi_step": lambda o: lr_scheduler.MultiStepLR(o, [2, 2, 7, 11], 0.5),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.3, 4),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.3, 0.9, 6),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.93),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 60, 1.7),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 17, 0.01),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    "one_cycle": lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.2], 60),
    "three_phases": lambda o: lr_scheduler.OneCycleLR(o, 0.1, 60, three_phase=True,
                                                      anneal_strategy="linear"),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 4), lr_scheduler.CosineAnnealingLR(o, 20),
            lr_scheduler.ExponentialLR(o, 0.5)], [4, 10]),
    "nested": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.SequentialLR(o, [lr_scheduler.ConstantLR(o, 0.1, 2),
                                          lr_scheduler.ExponentialLR(o, 0.9)], [2]),
            lr_scheduler.StepLR(o, 3, 0.5)], [6]),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)]),
}


class Halving(lr_scheduler.StepLR):
    """A user's own, of which nobody knows what it does."""

    def factor(self):
        return 0.5 if self.optimizer.param_groups[0]["lr"] > 1e-3 else 2.0


OTHERS = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.9 ** t),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.9),
    "own": lambda o: Halving(o, 3),
    "with another": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ExponentialLR(o, 0.95), lr_scheduler.LambdaLR(o, lambda t: 0.9 ** t)]),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=2),
}


class Training:
    """Steps of an optimizer with two groups of float64, where the last bit shows."""

    def __init__(self, kind, make):
        w = mlgpu.linspace(-1, 1, 12, dtype=mlgpu.float64, device="cuda").reshape(4, 3)
        self.params = [w.clone().requires_grad_(), w[0].clone().requires_grad_()]
        self.optimizer = kind([{"params": self.params[:1]}, {"params": self.params[1:],
                                                             "lr": 0.05}], lr=0.02)
        self.scheduler = make(self.optimizer)

    def step(self):
        w, b = self.params
        loss = ((w + b) * w).sigmoid().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(3.0)
        else:
            self.scheduler.step()

    def state(self):
        """All there is, as plain numbers."""
        settings = [[g["lr"], g.get("betas", g.get("momentum"))]
                    for g in self.optimizer.param_groups]
        kept = [{name: t.tolist() for name, t in self.optimizer.state[p].items()}
                for p in self.params]
        return (settings, kept, [p.tolist() for p in self.params],
                self.scheduler.get_last_lr(), repr(self.scheduler.state_dict()))

    def saved(self):
        """Copies of the states, as a checkpoint has them."""
        return copy.deepcopy((self.optimizer.state_dict(), self.scheduler.state_dict()))

    def load(self, saved):
        optimizer, scheduler = copy.deepcopy(saved)
        self.optimizer.load_state_dict(optimizer)
        self.scheduler.load_state_dict(scheduler)


def momentum(groups, lr):
    return optim.SGD(groups, lr=lr, momentum=0.9)


@pytest.fixture
def submitted(monkeypatch):
    """What the host asks of simulated devices; None where they are real."""
    if installed() is None:
        return None
    asked, plain = [], System.submit

    def submit(self, stream, run, what, *rest, **options):
        asked.append(what)
        return plain(self, stream, run, what, *rest, **options)

    monkeypatch.setattr(System, "submit", submit)
    return asked


ALONE = ["a graph's launch", "the end of a graph's launch"]  # how a simulated one is submitted


@pytest.mark.parametrize(("kind", "name"), [
    *((momentum, name) for name in (*FORESEEN, *OTHERS)),
    *((optim.Adam, name) for name in ("one_cycle", "cosine", "own"))])
def test_schedules_of_captured_steps_are_those_of_eager_ones(kind, name, submitted):
    make = {**FORESEEN, **OTHERS}[name]
    eager, captured = Training(kind, make), Training(kind, make)
    for training in (eager, captured):
        training.step()  # which makes the state
    g = CUDAGraph()
    with graph(g):
        captured.step()
    assert captured.state() == eager.state()  # the capture has changed nothing
    early = eager.saved()
    for k in range(18):
        if k == 12:  # both go back to step 5 of the schedule
            for training in (eager, captured):
                training.scheduler.load_state_dict(copy.deepcopy(early[1]))
        if k == 15:
            captured.optimizer.param_groups[0]["lr"] = 0.3
            eager.optimizer.param_groups[0]["lr"] = 0.3
        if submitted is not None:
            submitted.clear()
        g.replay()
        if submitted is not None and name in FORESEEN and k not in (0, 12, 13, 15):
            assert submitted == ALONE, k
        eager.step()
        if k == 5:
            early = eager.saved()
        if k % 7 == 0 or k > 15:
            assert captured.state() == eager.state(), k


def test_draws_of_a_graph_move_on_by_themselves(submitted):
    x = mlgpu.ones(64, device="cuda")
    other = mlgpu.Generator("cuda")

    def draw():
        return nn.functional.dropout(x, 0.5), mlgpu.rand(5, device="cuda", generator=other)

    draw()
    g = CUDAGraph()
    with graph(g):
        made = draw()

    def drawn(function):
        mlgpu.manual_seed(5)
        other.manual_seed(2**64 - 1)
        seen = []
        for k in range(6):
            if k == 3:
                mlgpu.rand(7)  # an eager draw of the same generator
            if submitted is not None:
                submitted.clear()
            results = function() or made
            if submitted is not None and function == g.replay:
                assert (submitted == ALONE) == (k not in (0, 3))
            seen.append([t.tolist() for t in results])
        return seen, mlgpu.get_rng_state().tolist(), other.get_state().tolist()

    assert drawn(g.replay) == drawn(draw)


def test_draws_on_several_streams_of_a_graph():
    """All come after the graph has moved on, whichever stream it was that did."""
    side, joined = mlgpu.cuda.Stream(), mlgpu.cuda.Event()
    mlgpu.rand(300, device="cuda")
    g = CUDAGraph()
    with graph(g):
        forked = mlgpu.cuda.Event()
        forked.record()
        first = mlgpu.rand(300, device="cuda")
        with mlgpu.cuda.stream(side):
            forked.wait()
            second = mlgpu.rand(300, device="cuda")
            joined.record()
        joined.wait()
    mlgpu.manual_seed(3)
    expected = [mlgpu.rand(300) for _ in range(6)]
    mlgpu.manual_seed(3)
    for turn in range(3):
        g.replay()
        assert first.tolist() == expected[2 * turn].tolist()
        assert second.tolist() == expected[2 * turn + 1].tolist()


def test_a_capture_of_a_loaded_run_goes_on():
    eager = Training(optim.Adam, FORESEEN["one_cycle"])
    for _ in range(20):
        eager.step()
    captured = Training(optim.Adam, FORESEEN["one_cycle"])
    captured.load(eager.saved())
    with mlgpu.no_grad():
        for mine, other in zip(captured.params, eager.params, strict=True):
            mine.copy_(other)
    g = CUDAGraph()
    with graph(g):
        captured.step()
    for _ in range(10):
        g.replay()
        eager.step()
    assert captured.state() == eager.state()


@pytest.mark.parametrize("names", [("exponential", "cosine"), ("exponential", "lambda")])
def test_two_schedules_of_one_optimizer(names):
    both = {**FORESEEN, **OTHERS}

    def training():
        found = Training(momentum, both[names[0]])
        other = both[names[1]](found.optimizer)
        plain = found.step

        def step():
            plain()
            other.step()

        found.step = step
        found.step()
        return found

    eager, captured = training(), training()
    g = CUDAGraph()
    with graph(g):
        captured.step()
    for _ in range(12):
        g.replay()
        eager.step()
    assert captured.state() == eager.state()


def test_several_steps_of_one_graph_have_rates_of_their_own():
    eager, captured = (Training(optim.Adam, FORESEEN["exponential"]) for _ in range(2))
    for training in (eager, captured):
        training.step()
    g = CUDAGraph()
    with graph(g):
        captured.step()
        captured.step()
        captured.step()
    for _ in range(4):
        g.replay()
        for _ in range(3):
            eager.step()
    assert captured.state() == eager.state()


def test_the_table_of_rates_is_made_anew_at_its_end(monkeypatch, submitted):
    from mlgpu.optim import ahead

    monkeypatch.setattr(ahead, "ROWS", 5)
    eager, captured = (Training(momentum, FORESEEN["cosine"]) for _ in range(2))
    for training in (eager, captured):
        training.step()
    g = CUDAGraph()
    with graph(g):
        captured.step()
    written = []
    for _ in range(12):
        if submitted is not None:
            submitted.clear()
        g.replay()
        written.append(submitted is not None and submitted != ALONE)
        eager.step()
    assert captured.state() == eager.state()
    if submitted is not None:
        assert [k for k, wrote in enumerate(written) if wrote] == [0, 5, 10]


def test_the_end_of_a_schedule_is_told_when_it_comes():
    captured = Training(momentum, lambda o: lr_scheduler.OneCycleLR(o, 0.1, 5))
    captured.step()
    g = CUDAGraph()
    with graph(g):
        captured.step()
    for _ in range(4):
        g.replay()
    with pytest.raises(mlgpu.errors.ShapeError, match="past the last"):
        g.replay()


def test_no_groups_are_added_to_a_captured_step():
    captured = Training(momentum, FORESEEN["step"])
    captured.step()
    g = CUDAGraph()

    def capture():
        with graph(g):
            captured.step()
            captured.optimizer.add_param_group({"params": [mlgpu.ones(2, requires_grad=True)]})
            captured.step()

    with pytest.raises(CaptureError, match="no more groups"):
        capture()


def test_what_a_graph_writes_is_known_though_blocks_before_it_are_gone():
    x = mlgpu.ones(1000, device="cuda")
    (x + 1) * 2
    graph, kept = mlgpu.cuda.CUDAGraph(), None
    with mlgpu.cuda.graph(graph):
        for _ in range(20):
            temporary = x + 1
            del temporary
            kept = x * 2
    for _ in range(2):
        with mlgpu.cuda.stream(mlgpu.cuda.Stream()):
            graph.replay()
        assert kept.sum().item() == 2000  # on the default stream, which waits for the graph's
        kept.zero_()
