"""The Trainer: exact resumption, checkpoints that survive, stopping, accumulation, failures."""

from __future__ import annotations

import itertools
import json
import math
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import mlgpu
from mlgpu import data, nn
from mlgpu.errors import FormatError, MlgpuError, NonFiniteError
from mlgpu.nn import functional as F
from mlgpu.optim import lr_scheduler
from mlgpu.random import Generator
from mlgpu.train import (
    Callback,
    Checkpoints,
    EarlyStopping,
    SystemMonitor,
    Trainer,
    checkpoints,
    read_run,
)


class Noisy(data.Dataset):
    """Points of two classes, with noise from every generator there is."""

    def __init__(self, n=22):
        self.x = np.linspace(-2, 2, 4 * n, dtype=np.float32).reshape(n, 4)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = np.float32(random.random() + np.random.rand())
        return self.x[index] + noise + mlgpu.rand(4, device="cpu").numpy(), index % 2


class Stream(data.IterableDataset):
    def __iter__(self):
        return (sample for sample in [(row, i % 2) for i, row in enumerate(Noisy().x)])


class Accuracy:
    """A metric without state_dict: its attributes are its state."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.right = self.all = 0

    def update(self, prediction, target):
        self.right += int((prediction.argmax(1) == target).sum().item())
        self.all += len(target)

    def compute(self):
        return self.right / self.all


class Counting(Callback):
    """A callback with a state, which can be told to fail at a step."""

    def __init__(self, fail_at=None):
        self.seen, self.fail_at = 0, fail_at

    def on_step_end(self, trainer):
        self.seen += 1
        if trainer.progress.step == self.fail_at:
            raise ZeroDivisionError("as it was told")

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def seed(number=0):
    mlgpu.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def made(folder=None, *callbacks, device="cpu", every=1, model=None, **options):
    """A Trainer of a model in which everything is random that can be."""
    seed()
    model = model or nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4),
                                   nn.Linear(8, 2))
    model.to(device)
    optimizer = mlgpu.optim.AdamW(model.parameters(), lr=1e-2)
    if folder is not None:
        options.setdefault("checkpoints", Checkpoints(every_steps=every, keep_last=2))
    return Trainer(model, optimizer, **{
        "loss": None if "step" in options else nn.CrossEntropyLoss(), "folder": folder,
        "callbacks": callbacks, "display": "none", "log_every": 1, "accumulate": 2,
        "clip_norm": 1.0, "scheduler": lr_scheduler.StepLR(optimizer, 3, 0.7),
        "metrics": {"accuracy": Accuracy()}, "train_metrics": {"accuracy": Accuracy()},
        "also": {"noise": Generator().manual_seed(5)}, **options})


def loaders(kind="shuffled"):
    train = {
        "shuffled": lambda: data.DataLoader(Noisy(), batch_size=4, shuffle=True),
        "generator": lambda: data.DataLoader(Noisy(), batch_size=4, shuffle=True,
                                             generator=Generator().manual_seed(3)),
        "workers": lambda: data.DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=2,
                                           multiprocessing_context="fork"),
        "stream": lambda: data.DataLoader(Stream(), batch_size=4),
        "list": lambda: list(data.DataLoader(Stream(), batch_size=4)),
    }[kind]()
    return train, data.DataLoader(Noisy(10), batch_size=4, shuffle=True)


def told(run):
    """Everything that a run told, but for what the clock and the allocator say."""
    clock = {"samples_per_second", "memory"}
    return [(r.kind, r.step, r.epoch, {k: v for k, v in r.values.items() if k not in clock})
            for r in run.history]


def weights(trainer):
    return {name: value.tolist() for name, value in trainer.model.state_dict().items()}


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shuffled", "generator", "stream", "list", "workers"])
@pytest.mark.parametrize("evaluate_every", [None, 2])
def test_a_run_that_crashed_goes_on_bit_for_bit(tmp_path, kind, evaluate_every, device):
    """After a crash at each step, and one after the other: epochs of 6 batches, 3 steps each."""
    options = {"epochs": 3, "evaluate_every": evaluate_every}
    whole = made(None, Counting(), device=device)
    expected = whole.fit(*loaders(kind), **options)
    assert [record.step for record in expected.history if record.kind == "train"] == [*range(1, 10)]
    crashes = range(1, 9) if kind == "shuffled" and not evaluate_every else (2, 6)
    for crash in crashes:
        with pytest.raises(ZeroDivisionError):
            made(tmp_path, Counting(fail_at=crash), device=device, every=1).fit(
                *loaders(kind), **options, resume=True)
        seed(99)
    counting = Counting()
    resumed = made(tmp_path, counting, device=device)
    run = resumed.fit(*loaders(kind), **options, resume=True)
    assert told(run) == told(expected)
    assert weights(resumed) == weights(whole)
    assert counting.seen == 9
    assert run.best == expected.best or run.best.path.exists()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "train"] == [*range(1, 10)]


def test_metrics_go_on_in_the_middle_of_an_epoch(tmp_path):
    def measured(folder, *callbacks):
        both = [{kind.__name__: kind("multiclass", num_classes=2)
                 for kind in (mlgpu.metrics.Accuracy, mlgpu.metrics.ConfusionMatrix)}
                for _ in range(2)]
        return made(folder, *callbacks, metrics=both[0], train_metrics=both[1])

    expected = measured(None).fit(*loaders(), epochs=2)
    with pytest.raises(ZeroDivisionError):
        measured(tmp_path, Counting(fail_at=3)).fit(*loaders(), epochs=2)
    run = measured(tmp_path).fit(*loaders(), epochs=2, resume=True)
    assert told(run) == told(expected)
    assert {"Accuracy", "val_Accuracy", "val_ConfusionMatrix_3"} <= set(run.names())


@pytest.mark.parametrize("dtype", [mlgpu.bfloat16, mlgpu.float16], ids=["bfloat16", "float16"])
def test_mixed_precision_goes_on_bit_for_bit(tmp_path, dtype, device):
    def precise(folder, *callbacks):
        # So small an interval, and so large a scale, that it grows and overflows on the way.
        scaler = (mlgpu.amp.GradScaler(device, init_scale=2.0**15, growth_interval=2)
                  if dtype is mlgpu.float16 else None)
        return made(folder, *callbacks, autocast=dtype, scaler=scaler, device=device)

    expected = precise(None).fit(*loaders(), epochs=3)
    if dtype is mlgpu.float16:
        scales = expected.curve("loss_scale")[1]
        assert any(b > a for a, b in itertools.pairwise(scales))
        assert any(b < a for a, b in itertools.pairwise(scales))
    for crash in (2, 5, 7):
        with pytest.raises(ZeroDivisionError):
            precise(tmp_path, Counting(fail_at=crash)).fit(*loaders(), epochs=3, resume=True)
        seed(99)
    run = precise(tmp_path).fit(*loaders(), epochs=3, resume=True)
    assert told(run) == told(expected)


@pytest.mark.parametrize("every", [2, 4])
def test_steps_after_the_last_checkpoint_are_taken_again(tmp_path, every):
    expected = made().fit(*loaders(), epochs=3)
    with pytest.raises(ZeroDivisionError):
        made(tmp_path, Counting(fail_at=8), every=every).fit(*loaders(), epochs=3)
    seed(99)
    run = made(tmp_path, every=every).fit(*loaders(), epochs=3, resume=True)
    assert told(run) == told(expected)


def test_any_kept_checkpoint_goes_on_in_a_folder_of_its_own(tmp_path):
    expected = made().fit(*loaders(), epochs=3)
    made(tmp_path / "a", checkpoints=Checkpoints(every_steps=1, keep_last=20)).fit(
        *loaders(), epochs=3)
    files = sorted((tmp_path / "a" / "checkpoints").glob("step-*.safetensors"))
    assert len(files) == 9
    for path in files[::3]:
        seed(99)
        run = made(tmp_path / path.stem).fit(*loaders(), epochs=3, resume=path)
        assert told(run) == told(expected)
        assert run.best.path is None or run.best.path.exists()
    with pytest.raises(MlgpuError, match="not the end of"):
        made(tmp_path / "a").fit(*loaders(), epochs=3, resume=files[2])


def test_a_stream_that_cannot_be_repeated_is_said(tmp_path):
    class Drawing(data.IterableDataset):
        def __iter__(self):
            return ((mlgpu.rand(4), i % 2) for i in range(16))

    def loader():
        return data.DataLoader(Drawing(), batch_size=2)

    made(tmp_path).fit(loader(), steps=2)
    with pytest.warns(UserWarning, match="draws from the process's own random numbers"):
        made(tmp_path).fit(loader(), steps=3, resume=True)


def test_fit_again_goes_on(tmp_path):
    expected = made().fit(*loaders(), epochs=3)
    trainer, (train, val) = made(), loaders()
    for steps in (2, 4, 7):
        assert trainer.fit(train, val, steps=steps).step == steps
    with pytest.raises(MlgpuError, match="the same loader"):
        trainer.fit(loaders()[0], val, epochs=3)
    for wrong in ({"overwrite": True}, {"resume": tmp_path / "x"}):
        with pytest.raises(ValueError, match="make another Trainer"):
            trainer.fit(train, val, epochs=3, **wrong)
    assert told(trainer.fit(train, val, epochs=3)) == told(expected)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import test_train as t
run = t.made(sys.argv[1], every=1).fit(*t.loaders(), epochs=40, resume=True)
"""


def test_killed_at_any_moment(tmp_path):
    """SIGKILL while checkpoints are written: the index always names whole ones."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(__import__("pathlib").Path(__file__).parent)))
    folder, clock = tmp_path / "run", random.Random(0)
    index = folder / "checkpoints" / "index.json"
    for _ in range(2):
        before = index.stat().st_mtime_ns if index.exists() else 0
        process = subprocess.Popen([sys.executable, str(script), str(folder)])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None and not (
                index.exists() and index.stat().st_mtime_ns != before):
            time.sleep(0.002)
        time.sleep(clock.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        newest = json.loads(index.read_text())["checkpoints"][-1]
        saved = mlgpu.load(folder / "checkpoints" / newest["file"])
        assert saved["progress"]["step"] == newest["step"]
    run = made(folder).fit(*loaders(), epochs=40, resume=True)
    assert told(run) == told(made().fit(*loaders(), epochs=40))
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    entries = json.loads(index.read_text())["checkpoints"]
    assert names == {"index.json", *(entry["file"] for entry in entries)}


# --- ending ---------------------------------------------------------------------------------------


class CtrlC(Callback):
    def __init__(self, step, times=1, evaluating=False):
        self.step, self.times, self.evaluating = step, times, evaluating

    def on_step_end(self, trainer):
        if trainer.progress.step == self.step and not self.evaluating:
            self.press()

    def on_evaluation_batch(self, trainer, done, total):
        if trainer.progress.step == self.step and self.evaluating and done == 2:
            assert total == 3
            self.press()

    def press(self):
        for _ in range(self.times):
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interruptible():
    """Python's own handler, also where whoever started the tests has interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("evaluating", [False, True])
def test_ctrl_c_ends_cleanly_and_the_run_goes_on(tmp_path, evaluating):
    expected = made().fit(*loaders(), epochs=3)
    handler = signal.getsignal(signal.SIGINT)
    first = made(tmp_path, CtrlC(3, evaluating=evaluating), every=100)
    run = first.fit(*loaders(), epochs=3)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (run.status, run.step) == ("interrupted", 3)
    assert all(module.training for module in first.model.modules())
    seed(99)
    resumed = made(tmp_path, every=100)
    assert told(resumed.fit(*loaders(), epochs=3, resume=True)) == told(expected)
    assert resumed.load_best().step == expected.best.step


@pytest.mark.usefixtures("interruptible")
def test_the_second_ctrl_c_acts_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, CtrlC(4, times=2)).fit(*loaders(), epochs=3)
    assert made(tmp_path).fit(*loaders(), steps=4, resume=True).step == 4


def test_another_thread_trains_without_touching_signals():
    runs = []
    thread = threading.Thread(target=lambda: runs.append(made().fit(*loaders(), epochs=1)))
    thread.start()
    thread.join()
    assert runs[0].status == "finished"


class Scripted(nn.Module):
    """A model whose evaluations have the losses that it was given."""

    def __init__(self, losses):
        super().__init__()
        self.weight = nn.Parameter(mlgpu.zeros(1))
        self.losses, self.evaluations = losses, 0

    def loss(self):
        if not self.training:
            self.evaluations += 1
            return mlgpu.tensor(self.losses[self.evaluations - 1])
        return (self.weight + 1).square().sum()


def scripted(folder, losses, *callbacks, **options):
    model = Scripted(losses)
    return Trainer(model, mlgpu.optim.SGD(model.parameters(), lr=0.1), folder=folder,
                   step=lambda model, batch: model.loss(), display="none", callbacks=callbacks,
                   **options)


BATCH = [mlgpu.zeros(1)]


@pytest.mark.parametrize(("settings", "epochs"), [
    ({"patience": 2}, 4), ({"patience": 3}, 8), ({"patience": 4}, 9),
    ({"patience": 2, "warmup": 3}, 7), ({"patience": 2, "min_delta": 0.5}, 3),
    ({"patience": 1, "monitor": "val_loss", "mode": "max"}, 2)],
    ids=["patience 2", "patience 3", "patience 4", "warmup", "min_delta", "max"])
def test_early_stopping(settings, epochs):
    losses = [5.0, 4.8, 4.9, math.nan, 4.7, 4.9, 4.9, 4.9, 4.6]
    run = scripted(None, losses, EarlyStopping(**settings)).fit(BATCH, BATCH, epochs=9)
    assert run.epoch == epochs
    assert run.status == ("stopped" if epochs < 9 else "finished")
    assert ("has not improved on" in run.reason) == (epochs < 9)


def test_the_best_and_the_last_checkpoints_stay(tmp_path):
    losses = [5.0, 3.0, 4.0, 3.5, 3.0, 6.0]
    settings = Checkpoints(keep_last=2, keep_best=2)
    trainer = scripted(tmp_path, losses, checkpoints=settings)
    run = trainer.fit(BATCH, BATCH, epochs=6)
    kept = sorted(int(p.stem[5:]) for p in (tmp_path / "checkpoints").glob("*.safetensors"))
    assert kept == [2, 5, 6]
    assert (run.best.step, run.best.value, run.best.monitor) == (2, 3.0, "val_loss")
    last = trainer.model.weight.item()
    assert trainer.load_best() == run.best
    assert trainer.model.weight.item() > last
    again = scripted(tmp_path, losses, checkpoints=settings)
    assert again.fit(BATCH, BATCH, epochs=6, resume=True).best == run.best
    assert again.model.weight.item() == last


def test_a_stopped_run_is_still_stopped_when_resumed(tmp_path):
    for _ in range(2):
        run = scripted(tmp_path, [1.0, 2.0, 2.0, 2.0], EarlyStopping(patience=1)).fit(
            BATCH, BATCH, epochs=4, resume=True)
        assert (run.status, run.epoch) == ("stopped", 2)


# --- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[4, 4, 4], [4, 3, 1], [5, 2]], ids=str)
def test_accumulation_gives_the_gradient_of_all_samples(sizes, device):
    x, y = mlgpu.randn(sum(sizes), 4, device=device), mlgpu.randint(2, (sum(sizes),), device=device)

    def losses(batches, **options):
        seed()
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).to(device)
        trainer = Trainer(model, mlgpu.optim.SGD(model.parameters(), lr=0.5),
                          nn.CrossEntropyLoss(), display="none", log_every=1, **options)
        trainer.fit(batches, epochs=4)
        return trainer.run.curve("loss", "train")[1], weights(trainer)

    parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
    for wanted, found in zip(losses([(x, y)]), losses(parts, accumulate=3), strict=True):
        if isinstance(wanted, dict):
            for name in wanted:
                np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_allclose(found, wanted, rtol=1e-6)


def by_closure(kind, parameters):
    if kind == "lbfgs":
        return mlgpu.optim.LBFGS(parameters, lr=0.5, max_iter=4, history_size=5)
    return mlgpu.optim.SAM(mlgpu.optim.SGD(parameters, lr=0.1, momentum=0.9))


@pytest.mark.parametrize("kind", ["lbfgs", "sam"])
def test_optimizers_that_compute_gradients_anew(kind, tmp_path):
    """As by hand, and going on in the middle."""
    seed()
    x, y = mlgpu.randn(12, 4), mlgpu.randint(2, (12,))
    batches, loss = list(zip(x.split(4), y.split(4), strict=True)), nn.CrossEntropyLoss()

    def begun():
        seed()
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        return model, by_closure(kind, model.parameters())

    model, optimizer = begun()
    wanted = []
    for _ in range(3):
        for inputs, classes in batches:
            def closure(inputs=inputs, classes=classes):
                optimizer.zero_grad()
                value = loss(model(inputs), classes)
                value.backward()
                return value

            wanted.append(float(optimizer.step(closure)))

    def trainer():
        model, optimizer = begun()
        return Trainer(model, optimizer, loss, display="none", log_every=1, folder=tmp_path)

    trainer().fit(batches, steps=4)
    run = trainer().fit(batches, epochs=3, resume=True)
    assert run.curve("loss", "train")[1] == wanted


def test_a_scale_that_could_change_within_a_step_is_refused():
    model = nn.Linear(4, 2)
    with pytest.raises(ValueError, match="LBFGS computes gradients several times"):
        Trainer(model, by_closure("lbfgs", model.parameters()), nn.CrossEntropyLoss(),
                scaler=mlgpu.amp.GradScaler("cpu"))


def test_a_search_looks_at_all_batches_of_a_step():
    seed()
    x, y = mlgpu.randn(6, 4), mlgpu.randint(2, (6,))

    def trained(batches, **options):
        seed()
        model = nn.Linear(4, 2)
        Trainer(model, by_closure("lbfgs", model.parameters()), nn.CrossEntropyLoss(),
                display="none", clip_norm=1e3, **options).fit(batches, epochs=1)
        return model.weight.detach().numpy()

    np.testing.assert_allclose(
        trained([(x[:4], y[:4]), (x[4:], y[4:])], accumulate=2), trained([(x, y)]), rtol=1e-3)


def test_clipping_bounds_what_the_optimizer_sees():
    class Seen(mlgpu.optim.SGD):
        def step(self, closure=None):
            grads.append([p.grad.tolist() for g in self.param_groups for p in g["params"]])
            return super().step(closure)

    def fitted(**options):
        grads.clear()
        model = nn.Linear(1, 2, bias=False)
        with mlgpu.no_grad():
            model.weight.copy_(mlgpu.tensor([[3.0], [-4.0]]))
        run = Trainer(model, Seen(model.parameters(), lr=0.1), lambda y, _: (5 * y).sum(),
                      display="none", log_every=1, **options).fit(
            [(mlgpu.ones(1, 1), mlgpu.ones(1))], epochs=1)
        return np.array(grads[0][0]).ravel(), run.last

    grads: list = []
    plain, _ = fitted()
    np.testing.assert_allclose(plain, [5, 5])
    clipped, last = fitted(clip_norm=1.0)
    np.testing.assert_allclose(clipped, [5 / math.sqrt(50)] * 2, rtol=1e-5)
    assert last["grad_norm"] == pytest.approx(math.sqrt(50))
    assert list(fitted(clip_value=0.25)[0]) == [0.25, 0.25]


class Scaler:
    """A loss scale in the manner of PyTorch's GradScaler."""

    def __init__(self):
        self.scale_factor, self.calls = 1024.0, []

    def scale(self, loss):
        return loss * self.scale_factor

    def unscale_(self, optimizer):
        self.calls.append("unscale_")
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad.mul_(1 / self.scale_factor)

    def step(self, optimizer):
        self.calls.append("step")
        optimizer.step()

    def update(self):
        self.scale_factor *= 2

    def state_dict(self):
        return {"scale": self.scale_factor}

    def load_state_dict(self, state):
        self.scale_factor = state["scale"]


def test_a_scaler_scales_and_is_resumed(tmp_path):
    entered = []

    class Casting:
        def __enter__(self):
            entered.append(1)

        def __exit__(self, *exception):
            pass

    expected = told(made().fit(*loaders(), epochs=2))
    scaler = Scaler()
    run = made(tmp_path, scaler=scaler, autocast=Casting).fit(*loaders(), steps=4)
    assert scaler.calls == ["unscale_", "step"] * 4
    scaler = Scaler()
    run = made(tmp_path, scaler=scaler, autocast=Casting).fit(*loaders(), epochs=2, resume=True)
    assert scaler.scale_factor == 1024.0 * 2**6
    assert told(run) == expected  # powers of two: no digit changes
    assert len(entered) == 2 * 6 + 2 * 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(tmp_path, bad):
    batches = [(mlgpu.ones(2, 1), mlgpu.ones(2, 1)) for _ in range(4)]
    batches[2] = (mlgpu.full((2, 1), bad), mlgpu.ones(2, 1))

    def trainer(policy, folder=None):
        seed()
        model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
        return Trainer(model, mlgpu.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss(),
                       display="none", nonfinite=policy, folder=folder, log_every=1)

    raising = trainer("raise", tmp_path)
    with pytest.raises(NonFiniteError, match=r"the loss of step 3 \(epoch 1, batch 3\) is "):
        raising.fit(batches, epochs=1)
    other = trainer("raise")
    other.fit(batches, steps=2)
    assert [p.tolist() for p in raising.model.parameters()] == [
        p.tolist() for p in other.model.parameters()]
    skipping = trainer("skip")
    run = skipping.fit(batches, epochs=1)
    assert run.last["skipped"] == 1
    assert all(map(math.isfinite, run.curve("loss")[1]))
    without = trainer("raise")
    without.fit([batches[0], batches[1], batches[3]], epochs=1)
    assert weights(skipping) == weights(without)  # buffers, too
    ignoring = trainer("ignore")
    ignoring.fit(batches, epochs=1)
    assert not np.isfinite(ignoring.model[1].weight.item())


@pytest.mark.parametrize("schedule", ["step", "epoch", "evaluation", "plateau"])
def test_schedules(schedule):
    model = Scripted([1.0, 2.0, 2.0])
    optimizer = mlgpu.optim.SGD(model.parameters(), lr=1.0)
    scheduler = (lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
                 if schedule == "plateau" else lr_scheduler.ExponentialLR(optimizer, 0.5))
    options = {} if schedule == "plateau" else {"schedule": schedule}
    Trainer(model, optimizer, step=lambda model, batch: model.loss(), scheduler=scheduler,
            display="none", **options).fit(BATCH * 2, BATCH, epochs=3)
    steps = {"step": 6, "epoch": 3, "evaluation": 3, "plateau": 2}[schedule]
    assert optimizer.param_groups[0]["lr"] == 0.5**steps


# --- evaluation -----------------------------------------------------------------------------------


def test_evaluation_leaves_no_trace():
    once = made().fit(*loaders(), epochs=2)
    often = made().fit(*loaders(), epochs=2, evaluate_every=1)
    losses = [[values["loss"] for kind, _, _, values in told(run) if kind == "train"]
              for run in (once, often)]
    assert losses[0] == losses[1]


def test_evaluation_means_are_over_samples():
    x = mlgpu.arange(5.0)
    trainer = made(step=lambda model, batch: {"loss": batch.mean(), "largest": batch.max()},
                   metrics={})
    trainer.model[3].eval()
    values = trainer.evaluate(list(x.split(3)))
    assert values == {"loss": 2.0, "largest": (2 * 3 + 4 * 2) / 5}
    assert [module.training for module in trainer.model] == [True, True, True, False, True]


# --- checkpoints and the folder -------------------------------------------------------------------


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    released = threading.Event()

    class Release(Callback):
        def on_step_end(self, trainer):
            if trainer.progress.step == 5:
                released.set()

    def slow(state, path, save=checkpoints.save):
        assert released.wait(30)
        save(state, path)

    monkeypatch.setattr(checkpoints, "save", slow)
    settings = Checkpoints(every_steps=3, every_epochs=None, keep_best=0)
    made(tmp_path, Release(), checkpoints=settings).fit(loaders()[0], steps=5)
    monkeypatch.undo()
    state = mlgpu.load(tmp_path / "checkpoints" / "step-00000005.safetensors")
    assert state["progress"]["step"] == 5


def test_a_folder_tells_of_its_run(tmp_path):
    trainer = made(tmp_path, Counting(fail_at=5), config={"note": "x"})
    with pytest.raises(ZeroDivisionError):
        trainer.fit(*loaders(), epochs=3)
    run = read_run(tmp_path)
    assert told(run) == told(trainer.run)
    assert (run.status, run.reason) == ("failed", "ZeroDivisionError: as it was told")
    assert (run.step, run.epoch, run.config["note"]) == (5, 1, "x")
    assert run.best == trainer.run.best
    assert run.summary == trainer.run.summary
    log = tmp_path / "log.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]) + '{"event": "tra')
    assert read_run(tmp_path).status == "running"
    log.write_text("[]\n")
    with pytest.raises(FormatError, match="line 1 of"):
        read_run(tmp_path)
    with pytest.raises(FormatError, match=r"has no log\.jsonl"):
        read_run(tmp_path / "checkpoints")


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_write_that_failed_is_raised_at_the_next_step(tmp_path):
    class Breaking(Callback):
        def on_checkpoint(self, trainer, path):
            if trainer.progress.step == 2:
                path.mkdir()

    trainer = made(tmp_path, Breaking())
    with pytest.raises(OSError, match="step-00000002"):
        trainer.fit(*loaders(), epochs=3)
    assert trainer.progress.step in (2, 3)
    assert trainer.run.status == "failed"
    index = json.loads((tmp_path / "checkpoints" / "index.json").read_text())
    assert [entry["step"] for entry in index["checkpoints"]] == [1]


def test_a_failed_write_is_shown_with_another_error(tmp_path):
    class Writing(Counting):
        def on_step_end(self, trainer):
            trainer._store._background.start((tmp_path / "nowhere" / "at all").read_bytes)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        made(tmp_path, Writing()).fit(*loaders(), epochs=1)
    assert isinstance(caught.value.__context__, FileNotFoundError)


SHARED = Accuracy()


@pytest.mark.parametrize(("options", "fit", "error", "message"), [
    ({"step": lambda model, batch: 3.0}, {}, TypeError, "must return the loss"),
    ({"step": lambda model, batch: model(batch[0])}, {}, ValueError, "one element"),
    ({"step": lambda model, batch: model(batch[0]).mean()}, {}, KeyError, "'?prediction"),
    ({"schedule": "sometimes"}, {}, ValueError, "schedule must be"),
    ({"accumulate": 0}, {}, ValueError, "accumulate must be above 0"),
    ({"checkpoints": Checkpoints()}, {}, ValueError, "need a folder"),
    ({"callbacks": [print]}, {}, TypeError, "must derive from"),
    ({"display": "loud"}, {}, ValueError, "display must be"),
    ({}, {"epochs": None}, ValueError, "say how long"),
    ({}, {"epochs": -1}, ValueError, "epochs must be above 0"),
    ({}, {"resume": True}, ValueError, "needs the folder"),
    ({"metrics": {"a": SHARED}, "train_metrics": {"b": SHARED}}, {}, ValueError, "give two"),
    ({"monitor": "val_acc"}, {}, ValueError, "which way is better"),
    ({"monitor": "val_error"}, {}, KeyError, "no 'val_error'"),
], ids=lambda value: None)
def test_mistakes_are_named(tmp_path, monkeypatch, options, fit, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        made(**options).fit(*loaders(), **{"epochs": 1, **fit})


def test_loaders_that_are_used_up_or_of_another_form():
    with pytest.raises(MlgpuError, match="no batch in epoch 2"):
        made().fit(iter(list(loaders()[0])), epochs=2)
    with pytest.raises(TypeError, match=r"must be \(input, ..., target\), got dict"):
        made().fit([{"x": mlgpu.zeros(1)}], epochs=1)


def test_a_folder_with_a_run_is_not_overwritten_by_chance(tmp_path):
    made(tmp_path).fit(*loaders(), epochs=1)
    with pytest.raises(MlgpuError, match=r"up to step 3; pass resume=True"):
        made(tmp_path).fit(*loaders(), epochs=2)
    with pytest.raises(FormatError, match="accumulate=2"):
        made(tmp_path, accumulate=1).fit(*loaders(), epochs=2, resume=True)
    with pytest.raises(FormatError, match="scheduler"):
        made(tmp_path, scheduler=None).fit(*loaders(), epochs=2, resume=True)
    with pytest.raises(FormatError, match="also"):
        made(tmp_path, also={}).fit(*loaders(), epochs=2, resume=True)

    class Meddling(Callback):
        def on_fit_begin(self, trainer):
            made(tmp_path).fit(*loaders(), epochs=2, resume=True)

    with pytest.raises(MlgpuError, match="another run is under way"):
        made(tmp_path, Meddling()).fit(*loaders(), epochs=2, resume=True)
    assert made(tmp_path).fit(*loaders(), epochs=1, overwrite=True).step == 3


def test_files_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "x.safetensors"
    mlgpu.save({"weight": mlgpu.ones(2)}, path)
    with pytest.raises(FormatError, match="is no checkpoint"):
        made().fit(*loaders(), epochs=1, resume=path)
    made(tmp_path / "run").fit(*loaders(), epochs=1)
    (tmp_path / "run" / "checkpoints" / "index.json").write_text("[1]")
    with pytest.raises(FormatError, match="no index"):
        made(tmp_path / "run")


def test_memory_stays_flat(device):
    trainer = made(device=device)
    train, _ = loaders("list")
    trainer.fit(train, epochs=2)
    before = mlgpu.memory.stats(device).allocated
    trainer.fit(train, epochs=4)
    assert mlgpu.memory.stats(device).allocated == before
    assert all(p.grad is None for p in trainer.model.parameters())


def test_the_ten_lines_of_the_guide():
    """A regression that is learnt, from nothing but what a newcomer writes."""
    mlgpu.manual_seed(0)
    x = mlgpu.rand(256, 2) * 2 - 1
    y = x[:, :1] * x[:, 1:]
    loader = data.DataLoader(data.TensorDataset(x, y), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(2, 32), nn.GELU(), nn.Linear(32, 1))
    trainer = Trainer(model, mlgpu.optim.AdamW(model.parameters(), lr=1e-2), F.mse_loss,
                      display="none")
    run = trainer.fit(loader, loader, epochs=12)
    assert run.best.value < run.curve("val_loss")[1][0] / 5


def test_readings_of_the_machine(monkeypatch):
    psutil = pytest.importorskip("psutil", reason="needs mlgpu[train]")

    class Sensor:
        current = 51.5

    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: {"nvme": [], "k10temp": [Sensor]},
                        raising=False)
    run = made(None, SystemMonitor()).fit(*loaders(), epochs=1)
    for record in run.history:
        assert ("ram" in record.values) is (record.kind == "train")
    values = next(record for record in run.history if record.kind == "train").values
    assert 0.0 <= values["cpu_use"] <= 100.0
    assert values["ram"] > 2**20
    assert values["cpu_temperature"] == 51.5
    monkeypatch.setattr(psutil, "sensors_temperatures", dict, raising=False)
    assert SystemMonitor()._temperature() is None
