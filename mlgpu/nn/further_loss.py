"""Losses that PyTorch has not, as layers; `reduction` is "mean", "sum" or "none"."""

from __future__ import annotations

from mlgpu.nn import functional as F
from mlgpu.nn.loss import _Loss
from mlgpu.tensor import Tensor

__all__ = ["ContrastiveLoss", "GramMatrixLoss", "HingeLoss", "InfoNCELoss", "LpLoss", "RNNTLoss",
           "SigmoidFocalLoss"]


class RNNTLoss(_Loss):
    """-log p(targets) of a transducer (Graves 2012): see `F.rnnt_loss`; as torchaudio's."""

    def __init__(self, blank: int = -1, clamp: float = -1.0, reduction: str = "mean",
                 fused_log_softmax: bool = True) -> None:
        super().__init__(reduction=reduction)
        self.blank = blank
        self.clamp = clamp
        self.fused_log_softmax = fused_log_softmax

    def forward(self, logits: Tensor, targets: Tensor, logit_lengths: Tensor,
                target_lengths: Tensor) -> Tensor:
        return F.rnnt_loss(logits, targets, logit_lengths, target_lengths, self.blank, self.clamp,
                           self.reduction, self.fused_log_softmax)


class SigmoidFocalLoss(_Loss):
    """Binary cross-entropy that weighs what is well classified less (Lin et al. 2017)."""

    def __init__(self, alpha: float = 0.25, gamma: float = 2, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.sigmoid_focal_loss(input, target, self.alpha, self.gamma, self.reduction)


class HingeLoss(_Loss):
    """max(0, margin - target * input), or its square; targets 1 or -1."""

    def __init__(self, margin: float = 1.0, squared: bool = False, reduction: str = "mean"
                 ) -> None:
        super().__init__(reduction=reduction)
        self.margin = margin
        self.squared = squared

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.hinge_loss(input, target, self.margin, self.squared, self.reduction)


class ContrastiveLoss(_Loss):
    """Draws vectors together where the target is 1, apart by a margin where it is 0."""

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.contrastive_loss(input1, input2, target, self.margin, self.reduction)


class InfoNCELoss(_Loss):
    """Cross-entropy of telling each query's key from the others'."""

    def __init__(self, temperature: float = 0.1, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.temperature = temperature

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return F.info_nce_loss(query, key, self.temperature, self.reduction)


class LpLoss(_Loss):
    """|input - target|^p."""

    def __init__(self, p: float = 2.0, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.p = p

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.lp_loss(input, target, self.p, self.reduction)


class GramMatrixLoss(_Loss):
    """The squared difference of the features' Gram matrices: style (Gatys et al. 2016)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.gram_matrix_loss(input, target, self.reduction)
