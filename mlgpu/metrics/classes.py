"""Predictions and targets of classes, brought to one form for all metrics of classification."""

from __future__ import annotations

from mlgpu.dtypes import int64
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.metrics.metric import check_alike
from mlgpu.ops.choice import where
from mlgpu.tensor import Tensor

TASKS = ("binary", "multiclass", "multilabel")


class Task:
    """How a metric reads its inputs.

    binary: scores or 0 and 1 of any shape, targets of the same.  multiclass: scores (n, classes,
    ...) or classes (n, ...), targets (n, ...).  multilabel: scores or 0 and 1 (n, labels, ...),
    targets of the same.  Scores outside [0, 1] are logits: they go through a sigmoid, in
    multiclass through softmax where probabilities are needed.  Targets that are `ignore_index` do
    not count.
    """

    def __init__(self, owner: str, task: str, num_classes: int | None, num_labels: int | None,
                 threshold: float, top_k: int, ignore_index: int | None) -> None:
        if task not in TASKS:
            raise ShapeError(f"{owner}: task must be one of {TASKS}, got {task!r}")
        count = {"binary": 1, "multiclass": num_classes, "multilabel": num_labels}[task]
        if not isinstance(count, int) or count < (2 if task == "multiclass" else 1):
            name = "num_classes" if task == "multiclass" else "num_labels"
            raise ShapeError(f"{owner}: task {task!r} needs {name}, an int above "
                             f"{1 if task == 'multiclass' else 0}, got {count}")
        if not 0 <= threshold <= 1:
            raise ShapeError(f"{owner}: threshold must be between 0 and 1, got {threshold}")
        if not 1 <= top_k <= count:
            raise ShapeError(f"{owner}: top_k must be between 1 and {count}, got {top_k}")
        self.owner, self.task, self.count = owner, task, count
        self.threshold, self.top_k, self.ignore_index = threshold, top_k, ignore_index

    def _check(self, preds: Tensor, target: Tensor) -> None:
        if not isinstance(preds, Tensor) or not isinstance(target, Tensor):
            raise TypeError(f"{self.owner}: preds and target must be Tensors, got "
                            f"{type(preds).__name__} and {type(target).__name__}")
        if target.is_floating_point() or target.is_complex():
            raise DTypeError(f"{self.owner}: target must hold integers, got {target.dtype.name}; "
                             "convert with .long()")
        if self.task == "multiclass" and preds.is_floating_point():
            if preds.ndim < 2 or preds.shape[1] != self.count or (
                    preds.shape[:1] + preds.shape[2:] != target.shape):
                raise ShapeError(f"{self.owner}: expected preds (n, {self.count}, ...) and target "
                                 f"(n, ...), got {tuple(preds.shape)} and {tuple(target.shape)}")
            return
        check_alike(self.owner, preds, target)
        if self.task == "multilabel" and (preds.ndim < 2 or preds.shape[1] != self.count):
            raise ShapeError(f"{self.owner}: expected preds (n, {self.count}, ...), got "
                             f"{tuple(preds.shape)}")

    def scores(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and targets: (n,) and (n,), or (n, classes) and (n,) or (n, labels)."""
        self._check(preds, target)
        if not preds.is_floating_point():
            raise DTypeError(f"{self.owner}: preds must be floating scores, got "
                             f"{preds.dtype.name}")
        if self.task == "binary":
            preds, target = _probabilities(preds.reshape(-1)), target.reshape(-1)
        elif self.task == "multiclass":
            preds = preds.movedim(1, -1).reshape(-1, self.count)
            target = target.reshape(-1)
            if preds.numel() and bool(((preds < 0) | (preds > 1)).any()):
                preds = preds.softmax(1)
        else:
            preds = _probabilities(preds.movedim(1, -1).reshape(-1, self.count))
            target = target.movedim(1, -1).reshape(-1, self.count)
            return preds, target.to(int64)  # what is ignored is left out for each label
        target = target.to(int64)
        if self.ignore_index is not None:
            kept = target != self.ignore_index
            preds, target = preds[kept], target[kept]
        return preds, target

    def decided(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted and true classes (n,), or bits (n, labels) in multilabel, and what counts.

        With `top_k` a prediction is the target where that is among the k highest scores.
        """
        self._check(preds, target)
        if self.task == "multiclass":
            target = target.reshape(-1).to(int64)
            if preds.is_floating_point():
                preds = preds.movedim(1, -1).reshape(-1, self.count)
                best = preds.argmax(1)
                if self.top_k > 1:
                    among = (preds.topk(self.top_k, 1).indices == target[:, None]).any(1)
                    best = where(among, target, best)
                preds = best
            else:
                if self.top_k > 1:
                    raise DTypeError(f"{self.owner}: top_k needs scores of all classes, got "
                                     f"{preds.dtype.name}")
                preds = preds.reshape(-1).to(int64)
        else:
            if preds.is_floating_point():
                preds = _probabilities(preds) > self.threshold
            shape = (-1,) if self.task == "binary" else (-1, self.count)
            if self.task == "multilabel":
                preds, target = preds.movedim(1, -1), target.movedim(1, -1)
            preds, target = preds.reshape(*shape).to(int64), target.reshape(*shape).to(int64)
        counts = target == target if self.ignore_index is None else target != self.ignore_index
        self._check_range(preds, target, counts)
        return preds, target, counts

    def _check_range(self, preds: Tensor, target: Tensor, counts: Tensor) -> None:
        bound = self.count if self.task == "multiclass" else 2
        outside = ((target < 0) | (target >= bound)) & counts
        outside = outside | (((preds < 0) | (preds >= bound)) & counts)
        if outside.numel() and bool(outside.any()):
            raise ShapeError(f"{self.owner}: classes must be below {bound}, and targets that do "
                             f"not count {self.ignore_index}; got others")


def _probabilities(preds: Tensor) -> Tensor:
    """Scores as they are if all lie in [0, 1], else their sigmoid."""
    if preds.numel() and bool(((preds < 0) | (preds > 1)).any()):
        return preds.sigmoid()
    return preds


def confusion(task: Task, preds: Tensor, target: Tensor) -> Tensor:
    """Counts int64 by [true, predicted] class: (2, 2), (c, c), or (labels, 2, 2)."""
    preds, target, counts = task.decided(preds, target)
    if task.task != "multilabel":
        size = task.count if task.task == "multiclass" else 2
        place = (target * size + preds)[counts]
        return place.bincount(minlength=size * size).reshape(size, size)
    label = preds.new_tensor(list(range(task.count)))
    place = (4 * label + 2 * target + preds)[counts]
    return place.bincount(minlength=4 * task.count).reshape(task.count, 2, 2)
