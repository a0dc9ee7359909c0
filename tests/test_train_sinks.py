"""The Trainer's sinks: each library really writes, and a resumed run goes on in the same place."""

from __future__ import annotations

import pytest

import mlgpu
from mlgpu import extras, train
from mlgpu.errors import MissingExtraError

# The libraries warn of things of their own.
pytestmark = pytest.mark.filterwarnings("default")
BATCH = [mlgpu.zeros(2, 1)]


def fit(folder, sink, epochs, **options):
    mlgpu.manual_seed(0)
    model = mlgpu.nn.Linear(1, 1)
    trainer = train.Trainer(
        model, mlgpu.optim.SGD(model.parameters(), lr=0.1), folder=folder, callbacks=[sink],
        step=lambda model, batch: (model(batch) - 1).square().mean(), log_every=1, display="none")
    return trainer.fit(BATCH, BATCH, epochs=epochs, **options)


def fail(trainer, record):
    raise ZeroDivisionError


@pytest.mark.parametrize(("make", "module", "extra"), [
    (train.TensorBoard, "tensorboardX", "tensorboard"), (train.MLflow, "mlflow", "mlflow"),
    (lambda: train.WandB("p"), "wandb", "wandb")], ids=["tensorboard", "mlflow", "wandb"])
def test_what_is_missing_is_named(monkeypatch, make, module, extra):
    def absent(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras, "import_module", absent)
    with pytest.raises(MissingExtraError, match=rf"{module}.*pip install 'mlgpu\[{extra}\]'"):
        make()


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(tmp_path, train.TensorBoard(), 2)
    run = fit(tmp_path, train.TensorBoard(), 4, resume=True)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    points = events.Scalars("train/loss")
    assert [point.step for point in points] == [1, 2, 3, 4]
    assert [point.value for point in points] == pytest.approx(run.curve("loss", "train")[1])
    assert len(events.Scalars("evaluation/val_loss")) == 4
    assert "config/text_summary" in events.Tags()["tensors"]
    with pytest.raises(ValueError, match="say where"):
        fit(None, train.TensorBoard(), 1)


def test_mlflow(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy", reason="a local store needs all of MLflow")
    store = f"sqlite:///{tmp_path}/mlflow.db"

    def sink():
        return train.MLflow("digits", tracking_uri=store, name="first", tags={"by": "test"})

    fit(tmp_path / "run", sink(), 2)
    run = fit(tmp_path / "run", sink(), 4, resume=True)
    failing = sink()
    failing.on_record = fail
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path / "other", failing, 1)
    client = mlflow.MlflowClient(store)
    found = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert sorted(each.info.status for each in found) == ["FAILED", "FINISHED"]
    finished = next(each for each in found if each.info.status == "FINISHED")
    assert finished.info.run_name == "first"
    assert finished.data.params["optimizer"] == "SGD"
    history = client.get_metric_history(finished.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [*zip(*run.curve("loss", "train"),
                                                                     strict=True)]


def test_wandb(tmp_path):
    wandb = pytest.importorskip("wandb")

    def sink():
        return train.WandB("digits", name="first", mode="offline", dir=str(tmp_path),
                           settings=wandb.Settings(console="off"))

    fit(tmp_path / "run", sink(), 2)
    fit(tmp_path / "run", sink(), 3, resume=True)
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert files[0].stem == files[1].stem  # the same run
    written = b"".join(file.read_bytes() for file in files)
    for name in (b"train/loss", b"evaluation/val_loss", b"best/val_loss"):
        assert name in written
