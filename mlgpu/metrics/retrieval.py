"""Metrics of ranking: how well the relevant documents of each query stand in front.

update(preds, target): scores and relevances (queries, documents), each row a query; sums are all
that is kept.  update(preds, target, indexes): one dimension, with the query of each document, whose
documents may come in several batches; all are kept.  Queries without a relevant document count as
`empty_target_action` says: as 0 ("neg"), as 1 ("pos"), or not at all ("skip").
"""

from __future__ import annotations

from mlgpu.dtypes import bool_, float64, int64
from mlgpu.errors import ShapeError
from mlgpu.metrics.metric import Metric, check_alike, ratio
from mlgpu.ops.choice import where
from mlgpu.ops.creation import arange, full, ones, zeros
from mlgpu.tensor import Tensor

__all__ = ["RetrievalHitRate", "RetrievalMAP", "RetrievalMRR", "RetrievalNormalizedDCG",
           "RetrievalPrecision", "RetrievalRecall"]


class _Retrieval(Metric):
    def __init__(self, empty_target_action: str = "neg", top_k: int | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        if empty_target_action not in ("neg", "pos", "skip"):
            raise ShapeError(f"{name}: empty_target_action must be 'neg', 'pos' or 'skip', got "
                             f"{empty_target_action!r}")
        if top_k is not None and top_k < 1:
            raise ShapeError(f"{name}: top_k must be positive, got {top_k}")
        self.empty_target_action, self.top_k = empty_target_action, top_k
        self.add_state("total", 0.0)
        self.add_state("count", 0.0)
        for state in ("preds", "target", "indexes"):
            self.add_state(state, [])

    total: Tensor
    count: Tensor
    preds: list[Tensor]
    target: list[Tensor]
    indexes: list[Tensor]

    def _update(self, preds: Tensor, target: Tensor, indexes: Tensor | None = None) -> None:
        name = type(self).__name__
        check_alike(name, preds, target)
        if indexes is None:
            if preds.ndim != 2:
                raise ShapeError(f"{name}: expected (queries, documents), or indexes of the "
                                 f"queries; got {tuple(preds.shape)}")
            inside = ones(*preds.shape, dtype=bool_, device=preds.device)
            total, count = self._sums(preds.to(float64), target.to(float64), inside)
            self.total, self.count = self.total + total, self.count + count
            return
        check_alike(name, preds, indexes)
        self.preds = [*self.preds, preds.reshape(-1).to(float64)]
        self.target = [*self.target, target.reshape(-1).to(float64)]
        self.indexes = [*self.indexes, indexes.reshape(-1).to(int64)]

    def compute(self) -> Tensor:
        """The mean over queries, float64."""
        total, count = self.total, self.count
        if self.indexes:
            rows = _by_query(self._all("preds"), self._all("target"), self._all("indexes"))
            more, queries = self._sums(*rows)
            total, count = total + more, count + queries
        return ratio(total, count)

    def _sums(self, preds: Tensor, target: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over queries (rows), and how many there are; `inside`: what is a document."""
        scores = where(inside, preds, -float("inf"))
        target = where(inside, target, 0.0)
        order = scores.argsort(dim=1, descending=True, stable=True)
        ranked, documents = target.gather(1, order), inside.sum(1)
        limit = documents if self.top_k is None else documents.clamp(max=self.top_k)
        place = arange(1, preds.shape[1] + 1, dtype=float64, device=preds.device)
        each = self.of(ranked, place, place <= limit[:, None], target)
        empty = ~(target > 0).any(1)
        if self.empty_target_action == "skip":
            return where(empty, 0.0, each).sum(), (~empty).sum().to(float64)
        each = where(empty, 1.0 if self.empty_target_action == "pos" else 0.0, each)
        return each.sum(), full((), len(each), dtype=float64, device=each.device)

    def of(self, ranked: Tensor, place: Tensor, taken: Tensor, target: Tensor) -> Tensor:
        """The quantity of each row: relevances by rank, the ranks, which of them count."""
        raise NotImplementedError(f"{type(self).__name__}: of is not defined")


def _by_query(preds: Tensor, target: Tensor, indexes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of documents, one for each query, and which elements of them there are."""
    _, query, counts = indexes.unique(return_inverse=True, return_counts=True)
    order = query.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    column = arange(len(query), device=query.device) - starts[query[order]]
    shape = (len(counts), int(counts.max()))
    place = query[order] * shape[1] + column

    def laid(values: Tensor) -> Tensor:
        flat = zeros(shape[0] * shape[1], dtype=float64, device=values.device)
        return flat.index_copy(0, place, values.to(float64)[order]).reshape(shape)

    return laid(preds), laid(target), laid(preds * 0 + 1) > 0


class RetrievalMAP(_Retrieval):
    """Mean average precision: the mean over relevant documents of the precision down to them."""

    def of(self, ranked: Tensor, place: Tensor, taken: Tensor, target: Tensor) -> Tensor:
        hits = ((ranked > 0) & taken).to(float64)
        return ratio((hits * hits.cumsum(1) / place).sum(1), hits.sum(1))


class RetrievalMRR(_Retrieval):
    """The mean reciprocal rank of the first relevant document."""

    def of(self, ranked: Tensor, place: Tensor, taken: Tensor, target: Tensor) -> Tensor:
        return where((ranked > 0) & taken, 1 / place, 0.0).amax(1)


class RetrievalHitRate(_Retrieval):
    """The share of queries with a relevant document among the first `top_k`."""

    def of(self, ranked: Tensor, place: Tensor, taken: Tensor, target: Tensor) -> Tensor:
        return ((ranked > 0) & taken).any(1).to(float64)


class RetrievalPrecision(_Retrieval):
    """The share of the first `top_k` documents that are relevant."""

    def of(self, ranked: Tensor, place: Tensor, taken: Tensor, target: Tensor) -> Tensor:
        limit = ranked.shape[1] if self.top_k is None else self.top_k
        return ((ranked > 0) & taken).sum(1).to(float64) / limit


class RetrievalRecall(_Retrieval):
    """The share of the relevant documents that are among the first `top_k`."""

    def of(self, ranked: Tensor, place: Tensor, taken: Tensor, target: Tensor) -> Tensor:
        return ratio(((ranked > 0) & taken).sum(1), (target > 0).sum(1))


class RetrievalNormalizedDCG(_Retrieval):
    """Relevances discounted by log2(1 + rank), over those of the best order.

    Relevances may be any numbers of at least 0 (Järvelin and Kekäläinen 2002).
    """

    def of(self, ranked: Tensor, place: Tensor, taken: Tensor, target: Tensor) -> Tensor:
        discount = where(taken, 1 / (1 + place).log2(), 0.0)
        best = target.sort(dim=1, descending=True).values
        return ratio((ranked * discount).sum(1), (best * discount).sum(1))
