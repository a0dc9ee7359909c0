"""An output layer for many classes of very unequal frequency."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import ShapeError
from mlgpu.nn import functional as F
from mlgpu.nn.containers import ModuleList, Sequential
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.ops.join import cat
from mlgpu.tensor import Tensor

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class AdaptiveOutput(NamedTuple):
    """log p of each target, and the mean of their negatives."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Classes in clusters, by frequency: rarer ones cost less (Grave et al. 2017).

    Classes are ordered by frequency; `cutoffs` are where clusters begin.  The head tells the first
    cutoffs[0] classes and the clusters apart; cluster i tells its own apart, from
    in_features / div_value^(i + 1) features.  forward(input (n, in_features), target (n,)) gives
    log p of the targets and the loss; only the clusters that occur are computed.
    """

    def __init__(self, in_features: int, n_classes: int, cutoffs: Sequence[int],
                 div_value: float = 4.0, head_bias: bool = False,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        cutoffs = list(cutoffs)
        if not cutoffs or any(a >= b for a, b in pairwise([0, *cutoffs, n_classes])):
            raise ShapeError("AdaptiveLogSoftmaxWithLoss: cutoffs must rise between 1 and "
                             f"{n_classes - 1}, got {cutoffs}")
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*cutoffs, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = cutoffs[0]
        self.n_clusters = len(cutoffs)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, device=device, dtype=dtype)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(pairwise(self.cutoffs)):
            hidden = int(in_features // div_value ** (i + 1))
            self.tail.append(Sequential(
                Linear(in_features, hidden, bias=False, device=device, dtype=dtype),
                Linear(hidden, high - low, bias=False, device=device, dtype=dtype)))

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        self.head.reset_parameters()
        for cluster in self.tail:
            for layer in cluster:
                layer.reset_parameters()

    def forward(self, input: Tensor, target: Tensor) -> AdaptiveOutput:
        single = target.ndim == 0
        if single:
            input, target = input[None], target[None]
        if target.ndim != 1 or input.ndim != 2 or len(input) != len(target):
            raise ShapeError("AdaptiveLogSoftmaxWithLoss: expected input (n, in_features) and "
                             f"target (n,), got {tuple(input.shape)} and {tuple(target.shape)}")
        if len(target) and not 0 <= int(target.min()) <= int(target.max()) < self.n_classes:
            raise ShapeError(f"AdaptiveLogSoftmaxWithLoss: targets must be below {self.n_classes}, "
                             f"got {int(target.min())} to {int(target.max())}")
        chosen, output = target, input.new_zeros(len(target))
        for i, (low, high) in enumerate(pairwise(self.cutoffs)):
            rows = ((target >= low) & (target < high)).nonzero()[:, 0]
            if len(rows):
                within = F.log_softmax(self.tail[i](input[rows]), dim=1)
                known = within.gather(1, (target[rows] - low)[:, None])[:, 0]
                output = output.index_add(0, rows, known)
                chosen = chosen.index_fill(0, rows, self.shortlist_size + i)
        head = F.log_softmax(self.head(input), dim=1)
        output = output + head.gather(1, chosen[:, None])[:, 0]
        return AdaptiveOutput(output[0] if single else output, -output.mean())

    def log_prob(self, input: Tensor) -> Tensor:
        """log p of all classes: (n, in_features) to (n, n_classes)."""
        head = F.log_softmax(self.head(input), dim=1)
        short = self.shortlist_size
        clusters = [F.log_softmax(cluster(input), dim=1) + head[:, short + i:short + i + 1]
                    for i, cluster in enumerate(self.tail)]
        return cat([head[:, :short], *clusters], 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each row; clusters are computed only if one may win."""
        head = self.head(input)
        best: Tensor = head.argmax(dim=1)
        if bool((best < self.shortlist_size).all()):
            return best
        return self.log_prob(input).argmax(dim=1)
