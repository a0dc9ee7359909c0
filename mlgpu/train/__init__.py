"""Training as people do it: a Trainer around a model, an optimizer and a loss.

    trainer = Trainer(model, optimizer, nn.CrossEntropyLoss(), folder="runs/first")
    run = trainer.fit(train_loader, val_loader, epochs=10)
    run.report("report.html")

Checkpoints in the background, exact resumption, early stopping, metrics, callbacks, a dashboard.
"""

from mlgpu.train.callback import Callback
from mlgpu.train.checkpoints import Checkpoints
from mlgpu.train.dashboard import Dashboard
from mlgpu.train.folder import read_run
from mlgpu.train.log import JsonLines
from mlgpu.train.monitor import EarlyStopping, Monitor
from mlgpu.train.plain import PlainLog
from mlgpu.train.record import Best, Record, Run
from mlgpu.train.sinks import MLflow, TensorBoard, WandB
from mlgpu.train.system import SystemMonitor
from mlgpu.train.trainer import Trainer

__all__ = ["Best", "Callback", "Checkpoints", "Dashboard", "EarlyStopping", "JsonLines", "MLflow",
           "Monitor", "PlainLog", "Record", "Run", "SystemMonitor", "TensorBoard", "Trainer",
           "WandB", "read_run"]
