"""Metrics of text: perplexity, and comparisons of sequences of words or letters."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from mlgpu.dtypes import float64
from mlgpu.errors import ShapeError
from mlgpu.metrics.metric import Metric, ratio
from mlgpu.ops.creation import tensor, zeros
from mlgpu.ops.loss_class import cross_entropy
from mlgpu.tensor import Tensor

__all__ = ["BLEUScore", "CharErrorRate", "EditDistance", "MatchErrorRate", "Perplexity",
           "ROUGEScore", "WordErrorRate"]

Texts = str | Sequence[str]


def _texts(owner: str, preds: Texts, target: Any) -> tuple[list[str], list[Any]]:
    """Both as lists of one length."""
    preds, target = ([x] if isinstance(x, str) else list(x) for x in (preds, target))
    if len(preds) != len(target):
        raise ShapeError(f"{owner}: expected as many preds as targets, got {len(preds)} and "
                         f"{len(target)}")
    return preds, target


def edit_distance(first: Sequence[Any], second: Sequence[Any], substitution: int = 1) -> int:
    """How many insertions, deletions and substitutions lead from one to the other.

    Levenshtein 1966; a substitution costs `substitution`.
    """
    if len(first) < len(second):
        first, second = second, first
    names = {token: i for i, token in enumerate({*first, *second})}
    row = np.array([names[token] for token in second], np.int64)
    place = np.arange(len(second) + 1)
    costs = place.copy()
    for i, token in enumerate(first, 1):
        changed = np.where(row == names[token], 0, substitution)
        best = np.minimum(costs[1:] + 1, costs[:-1] + changed)
        # An insertion costs 1 more than its left neighbour: a running minimum.
        costs = np.minimum.accumulate(np.concatenate([[i], best]) - place) + place
    return int(costs[-1])


class Perplexity(Metric):
    """exp of the mean of -log p(target): logits (n, tokens, vocabulary), targets (n, tokens)."""

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.add_state("total", 0.0)
        self.add_state("count", 0.0)

    total: Tensor
    count: Tensor

    def _update(self, preds: Tensor, target: Tensor) -> None:
        if preds.ndim != 3 or preds.shape[:2] != target.shape:
            raise ShapeError("Perplexity: expected preds (n, tokens, vocabulary) and target (n, "
                             f"tokens), got {tuple(preds.shape)} and {tuple(target.shape)}")
        target = target.reshape(-1).long()
        ignored = -100 if self.ignore_index is None else self.ignore_index
        losses = cross_entropy(preds.reshape(-1, preds.shape[-1]).float(), target,
                               ignore_index=ignored, reduction="none")
        self.total = self.total + losses.to(float64).sum()
        self.count = self.count + (target != ignored).sum()

    def compute(self) -> Tensor:
        return ratio(self.total, self.count).exp()


class _ErrorRate(Metric):
    """Edits from predictions to targets, over a length."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("errors", 0.0)
        self.add_state("total", 0.0)

    errors: Tensor
    total: Tensor

    def _tokens(self, text: str) -> Sequence[str]:
        return text.split()

    def _length(self, preds: Sequence[str], target: Sequence[str]) -> int:
        return len(target)

    def _update(self, preds: Texts, target: Texts) -> None:
        for given, true in zip(*_texts(type(self).__name__, preds, target), strict=True):
            a, b = self._tokens(given), self._tokens(true)
            self.errors = self.errors + edit_distance(a, b)
            self.total = self.total + self._length(a, b)

    def compute(self) -> Tensor:
        return ratio(self.errors, self.total)


class WordErrorRate(_ErrorRate):
    """Words inserted, deleted or substituted, over the number of target words."""


class CharErrorRate(_ErrorRate):
    """Characters inserted, deleted or substituted, over the number of target characters."""

    def _tokens(self, text: str) -> Sequence[str]:
        return text


class MatchErrorRate(_ErrorRate):
    """Words inserted, deleted or substituted, over the longer one's number of words."""

    def _length(self, preds: Sequence[str], target: Sequence[str]) -> int:
        return max(len(preds), len(target))


class EditDistance(Metric):
    """The mean (or "sum") of edits between pairs of texts."""

    def __init__(self, substitution_cost: int = 1, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise ShapeError(f"EditDistance: reduction must be 'mean' or 'sum', got {reduction!r}")
        self.substitution_cost, self.reduction = substitution_cost, reduction
        self.add_state("total", 0.0)
        self.add_state("count", 0.0)

    total: Tensor
    count: Tensor

    def _update(self, preds: Texts, target: Texts) -> None:
        pairs = list(zip(*_texts("EditDistance", preds, target), strict=True))
        self.total = self.total + sum(edit_distance(a, b, self.substitution_cost)
                                      for a, b in pairs)
        self.count = self.count + len(pairs)

    def compute(self) -> Tensor:
        return self.total if self.reduction == "sum" else ratio(self.total, self.count)


def ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n tokens occurs."""
    return Counter(tuple(tokens[i:i + n]) for i in range(len(tokens) - n + 1))


class BLEUScore(Metric):
    """The geometric mean of n-gram precisions times a penalty for brevity (Papineni et al. 2002).

    update(preds, targets): texts, and a list of references for each.  `weights` of 1- to
    `n_gram`-grams; `smooth` adds one to the counts of those longer than 1 (Lin and Och 2004).
    `tokenizer` makes words of a text.
    """

    def __init__(self, n_gram: int = 4, smooth: bool = False,
                 weights: Sequence[float] | None = None,
                 tokenizer: Callable[[str], Sequence[str]] = str.split) -> None:
        super().__init__()
        if weights is not None and len(weights) != n_gram:
            raise ShapeError(f"BLEUScore: weights must be {n_gram} numbers, got {len(weights)}")
        self.n_gram, self.smooth, self.tokenizer = n_gram, smooth, tokenizer
        self.weights = [1 / n_gram] * n_gram if weights is None else list(weights)
        self.add_state("matches", zeros(n_gram, dtype=float64))
        self.add_state("total", zeros(n_gram, dtype=float64))
        self.add_state("length", 0.0)
        self.add_state("reference", 0.0)

    matches: Tensor
    total: Tensor
    length: Tensor
    reference: Tensor

    def _update(self, preds: Texts, target: Sequence[Texts]) -> None:
        for given, texts in zip(*_texts("BLEUScore", preds, target), strict=True):
            words = self.tokenizer(given)
            references = [self.tokenizer(t) for t in ([texts] if isinstance(texts, str) else texts)]
            self.length = self.length + len(words)
            self.reference = self.reference + min(
                (abs(len(r) - len(words)), len(r)) for r in references)[1]
            matches, total = [], []
            for n in range(1, self.n_gram + 1):
                known: Counter[tuple[str, ...]] = Counter()
                for reference in references:
                    known |= ngrams(reference, n)
                found = ngrams(words, n)
                matches.append(sum((found & known).values()))
                total.append(sum(found.values()))
            self.matches = self.matches + self.matches.new_tensor(matches)
            self.total = self.total + self.total.new_tensor(total)

    def compute(self) -> Tensor:
        matches, total = self.matches.tolist(), self.total.tolist()
        if min(matches[:1] if self.smooth else matches) == 0:
            return tensor(0.0, dtype=float64)
        logs = [math.log((m + 1) / (t + 1)) if self.smooth and n else math.log(m / t)
                for n, (m, t) in enumerate(zip(matches, total, strict=True))]
        brevity = min(0.0, 1 - float(self.reference) / float(self.length))
        return tensor(math.exp(brevity + sum(w * x for w, x in zip(self.weights, logs,
                                                                  strict=True))), dtype=float64)


_KINDS = ("rouge1", "rouge2", "rouge3", "rouge4", "rouge5", "rouge6", "rouge7", "rouge8", "rouge9",
          "rougeL", "rougeLsum")


def _normal_words(text: str) -> list[str]:
    """Lower-case words of letters and digits."""
    return re.findall(r"[a-z0-9]+", text.lower())


class ROUGEScore(Metric):
    """Shared n-grams ("rouge1" ...) or common subsequences ("rougeL", "rougeLsum": by line).

    compute() gives precision, recall and F-measure of each kind, averaged over texts: a dict with
    keys such as "rouge1_fmeasure".  Of several references the one with the best F-measure of the
    first kind counts ("best"), or the mean of all ("avg").  Lin 2004.
    """

    def __init__(self, rouge_keys: str | Sequence[str] = ("rouge1", "rouge2", "rougeL",
                                                          "rougeLsum"),
                 accumulate: str = "best",
                 tokenizer: Callable[[str], Sequence[str]] = _normal_words) -> None:
        super().__init__()
        self.keys = [rouge_keys] if isinstance(rouge_keys, str) else list(rouge_keys)
        for key in self.keys:
            if key not in _KINDS:
                raise ShapeError(f"ROUGEScore: rouge_keys must be of {_KINDS}, got {key!r}")
        if accumulate not in ("best", "avg"):
            raise ShapeError(f"ROUGEScore: accumulate must be 'best' or 'avg', got {accumulate!r}")
        self.accumulate, self.tokenizer = accumulate, tokenizer
        self.add_state("total", zeros(len(self.keys), 3, dtype=float64))
        self.add_state("count", 0.0)

    total: Tensor
    count: Tensor

    def _update(self, preds: Texts, target: Sequence[Texts]) -> None:
        for given, texts in zip(*_texts("ROUGEScore", preds, target), strict=True):
            references = [texts] if isinstance(texts, str) else texts
            scores = [[self._score(key, given, text) for key in self.keys] for text in references]
            if self.accumulate == "best":
                chosen: Any = max(scores, key=lambda s: s[0][2])
            else:
                chosen = np.mean(scores, 0).tolist()
            self.total = self.total + self.total.new_tensor(chosen)
            self.count = self.count + 1

    def _score(self, key: str, given: str, true: str) -> list[float]:
        if key == "rougeLsum":
            lines = [[self.tokenizer(line) for line in text.split("\n") if line]
                     for text in (given, true)]
            return _by_line(*lines)
        a, b = self.tokenizer(given), self.tokenizer(true)
        if key == "rougeL":
            return _f_measure(len(common(a, b)), len(a), len(b))
        first, second = (ngrams(words, int(key[5:])) for words in (a, b))
        return _f_measure(sum((first & second).values()), sum(first.values()),
                          sum(second.values()))

    def compute(self) -> dict[str, Tensor]:
        means = ratio(self.total, self.count.expand(self.total.shape))
        return {f"{key}_{name}": means[i, j] for i, key in enumerate(self.keys)
                for j, name in enumerate(("precision", "recall", "fmeasure"))}


def _f_measure(shared: int, given: int, true: int) -> list[float]:
    precision, recall = shared / given if given else 0.0, shared / true if true else 0.0
    total = precision + recall
    return [precision, recall, 2 * precision * recall / total if total else 0.0]


def common(first: Sequence[str], second: Sequence[str]) -> list[int]:
    """The places in `second` of a longest common subsequence."""
    table = [[0] * (len(second) + 1)]
    for token in first:
        row, before = [0], table[-1]
        for j, other in enumerate(second):
            row.append(before[j] + 1 if token == other else max(row[-1], before[j + 1]))
        table.append(row)
    places, i, j = [], len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            places.append(j - 1)
            i, j = i - 1, j - 1
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return places[::-1]


def _by_line(given: list[Sequence[str]], true: list[Sequence[str]]) -> list[float]:
    """Words of each target line that are in a common subsequence with any line, each word once."""
    left, right = (Counter(_chain(lines)) for lines in (given, true))
    sizes, hits = (sum(left.values()), sum(right.values())), 0
    for line in true:
        union = sorted({place for other in given for place in common(other, line)})
        for place in union:
            word = line[place]
            if left[word] > 0 and right[word] > 0:
                hits += 1
                left[word] -= 1
                right[word] -= 1
    return _f_measure(hits, *sizes)


def _chain(lines: Iterable[Sequence[str]]) -> list[str]:
    return [word for line in lines for word in line]
