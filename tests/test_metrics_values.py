"""Metrics against their definitions in float64; streams, merges, states and errors of all."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy import linalg, ndimage, special, stats

import mlgpu
from mlgpu import metrics
from mlgpu.errors import DTypeError, ShapeError

RNG = np.random.default_rng(0)
SIZES = (7, 1, 24)


@dataclass
class Row:
    """A metric, its batches, and what it must be of all of them: a number, array or dict."""

    name: str
    options: dict
    batches: list[tuple]
    reference: object
    tag: str = ""
    expected: dict = field(default_factory=dict)

    @property
    def id(self):
        return "-".join([self.name, *map(str, self.options.values()), self.tag][:5]).strip("-")


def per_batch(make, sizes=SIZES):
    return [make(n) for n in sizes]


# --- classification -------------------------------------------------------------------------------

PROBS = per_batch(lambda n: (RNG.random(n).astype(np.float32), RNG.integers(0, 2, n)))
LOGITS = per_batch(lambda n: (RNG.standard_normal((n, 4)).astype(np.float32) * 3,
                              RNG.integers(0, 4, n)))
CLASSES = per_batch(lambda n: (RNG.integers(0, 4, n), RNG.integers(0, 4, n)))
RARE = per_batch(lambda n: (RNG.integers(0, 2, n), RNG.integers(0, 3, n)))  # class 3 never
LABELS = per_batch(lambda n: (RNG.random((n, 3, 2)), RNG.integers(0, 2, (n, 3, 2))))
TIED = per_batch(lambda n: (np.round(RNG.random(n), 1), RNG.integers(0, 2, n)))
IGNORED = [(p, np.where(np.arange(len(t)) % 3 == 0, -1, t)) for p, t in PROBS]


def bits(task, preds, target, count, top_k=1):
    """Predictions and targets as 0 and 1 by class, (n, classes); one column if binary."""
    if task == "multiclass":
        if preds.dtype.kind == "f":
            ranked = np.argsort(-preds, 1)[:, :top_k]
            preds = np.where((ranked == target[:, None]).any(1), target, ranked[:, 0])
        return np.eye(count, dtype=int)[preds], np.eye(count, dtype=int)[target]
    if task == "multilabel":
        preds, target = (np.moveaxis(x, 1, -1).reshape(-1, count) for x in (preds, target))
        return (preds > 0.5).astype(int), target
    kept = target >= 0
    return (preds[kept, None] > 0.5).astype(int), target[kept, None]


def divided(a, b):
    return np.divide(a, b, out=np.zeros(np.shape(a)), where=np.asarray(b) != 0)


def averaged(quantity):
    def reference(task, average="micro", num_classes=None, num_labels=None, top_k=1,
                  ignore_index=None, **options):
        def compute(preds, target):
            p, t = bits(task, preds, target, num_classes or num_labels or 1, top_k)
            tp, fp, tn, fn = ((p * t).sum(0), (p * (1 - t)).sum(0), ((1 - p) * (1 - t)).sum(0),
                              ((1 - p) * t).sum(0))
            if average == "micro" or task == "binary":
                return quantity(tp.sum(), fp.sum(), tn.sum(), fn.sum(), task, **options)
            each = quantity(tp, fp, tn, fn, task, **options)
            if average in ("none", None):
                return each
            weights = tp + fn if average == "weighted" else np.ones(len(tp))
            if average == "macro" and task == "multiclass":
                weights = weights * (tp + fp + fn > 0)
            return (each * weights).sum() / weights.sum()
        return compute
    return reference


def accuracy(tp, fp, tn, fn, task):
    if task == "multiclass":
        return divided(tp, tp + fn)
    return divided(tp + tn, tp + fp + tn + fn)


def f_beta(tp, fp, tn, fn, task, beta=1.0):
    p, r = divided(tp, tp + fp), divided(tp, tp + fn)
    return divided((1 + beta**2) * p * r, beta**2 * p + r)


COUNTED = {
    "Accuracy": accuracy,
    "HammingDistance": lambda *x: 1 - accuracy(*x),
    "Precision": lambda tp, fp, tn, fn, task: divided(tp, tp + fp),
    "Recall": lambda tp, fp, tn, fn, task: divided(tp, tp + fn),
    "Specificity": lambda tp, fp, tn, fn, task: divided(tn, tn + fp),
    "FBetaScore": f_beta, "F1Score": f_beta, "Dice": f_beta,
    "JaccardIndex": lambda tp, fp, tn, fn, task: divided(tp, tp + fp + fn),
}
FOUR = {"task": "multiclass", "num_classes": 4}
SETTINGS = [
    ({"task": "binary"}, PROBS), ({"task": "binary", "ignore_index": -1}, IGNORED),
    ({**FOUR, "average": "micro"}, LOGITS), ({**FOUR, "average": "macro"}, RARE),
    ({**FOUR, "average": "weighted"}, CLASSES), ({**FOUR, "average": "none"}, LOGITS),
    ({"task": "multilabel", "num_labels": 3, "average": "macro"}, LABELS),
    ({"task": "multilabel", "num_labels": 3, "average": "micro"}, LABELS),
]


def counted_rows():
    for name, quantity in COUNTED.items():
        chosen = SETTINGS if name in ("Accuracy", "FBetaScore") else SETTINGS[3:6:2]
        for options, batches in chosen:
            options = {**options, **({"beta": 0.5} if name == "FBetaScore" else {})}
            yield Row(name, options, batches, averaged(quantity)(**options))
    top = {**FOUR, "top_k": 2, "average": "macro"}
    yield Row("Accuracy", top, LOGITS, averaged(accuracy)(**top))


def matrix(preds, target, count=4):
    preds = preds.argmax(1) if preds.ndim > target.ndim else preds
    counts = np.zeros((count, count), int)
    np.add.at(counts, (target, preds), 1)
    return counts


def kappa(power):
    def reference(preds, target):
        counts = matrix(preds, target).astype(float)
        i, j = np.indices(counts.shape)
        apart = (i != j) * np.abs(i - j) ** power
        expected = counts.sum(1)[:, None] * counts.sum(0) / counts.sum()
        return 1 - (apart * counts).sum() / (apart * expected).sum()
    return reference


def matthews(preds, target):
    p, t = (np.eye(4)[x] for x in (preds.argmax(1), target))
    cov = [[np.cov(a, b, bias=True)[0, 1] for a, b in zip(x.T, y.T, strict=True)]
           for x, y in ((p, t), (p, p), (t, t))]
    return sum(cov[0]) / math.sqrt(sum(cov[1]) * sum(cov[2]))


def auc(scores, truth):
    pairs = list(itertools.product(scores[truth == 1], scores[truth == 0]))
    return np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]) if pairs else 0.0


def precision_area(scores, truth):
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        recall = truth[taken].sum() / truth.sum()
        total += (recall - before) * truth[taken].mean()
        before = recall
    return total


def of_curves(area, average=None):
    def reference(preds, target):
        if preds.ndim == 1:
            return area(preds.astype(float), target)
        if preds.shape[1:] == target.shape[1:]:  # labels
            preds, target = (np.moveaxis(x, 1, -1).reshape(-1, 3) for x in (preds, target))
            columns = [(p, t) for p, t in zip(preds.T, target.T, strict=True)]
        else:
            preds = special.softmax(preds.astype(float), 1)
            columns = [(p, target == c) for c, p in enumerate(preds.T)]
        if average == "micro":
            return area(preds.reshape(-1), target.reshape(-1))
        each = [area(p, t.astype(int)) for p, t in columns]
        if average == "none":
            return each
        return np.average(each, weights=[t.sum() for _, t in columns]
                          if average == "weighted" else None)
    return reference


def calibration(norm, bins=5):
    def reference(preds, target):
        if preds.ndim == 2:
            p = special.softmax(preds.astype(float), 1)
            preds, target = p.max(1), p.argmax(1) == target
        place = np.minimum((preds.astype(float) * bins).astype(int), bins - 1)
        apart, share = [], []
        for b in range(bins):
            inside = place == b
            if inside.any():
                apart.append(abs(target[inside].mean() - preds[inside].astype(float).mean()))
                share.append(inside.mean())
        apart, share = np.array(apart), np.array(share)
        return {"l1": (apart * share).sum(), "l2": np.sqrt((apart**2 * share).sum()),
                "max": apart.max()}[norm]
    return reference


def curve_rows():
    for name, area in (("AUROC", auc), ("AveragePrecision", precision_area)):
        yield Row(name, {"task": "binary"}, TIED, of_curves(area))
        yield Row(name, {**FOUR, "average": "macro"}, LOGITS, of_curves(area))
        yield Row(name, {**FOUR, "average": "weighted"}, LOGITS, of_curves(area, "weighted"))
        for average in ("none", "micro"):
            yield Row(name, {"task": "multilabel", "num_labels": 3, "average": average}, LABELS,
                      of_curves(area, average))
        # Counted between 11 thresholds, which hold all scores: exact.
        yield Row(name, {"task": "binary", "thresholds": 101}, TIED, of_curves(area))
    for norm in ("l1", "l2", "max"):
        yield Row("CalibrationError", {"task": "binary", "n_bins": 5, "norm": norm}, PROBS,
                  calibration(norm))
    yield Row("CalibrationError", {**FOUR, "n_bins": 5}, LOGITS, calibration("l1"))
    yield Row("LogLoss", FOUR, LOGITS, lambda p, t: -np.mean(
        special.log_softmax(p.astype(float), 1)[np.arange(len(t)), t]))
    yield Row("LogLoss", {"task": "binary"}, PROBS, lambda p, t: -np.mean(
        np.log(np.where(t == 1, p.astype(float), 1 - p.astype(float)))))
    yield Row("ConfusionMatrix", FOUR, CLASSES, matrix)
    yield Row("ConfusionMatrix", {**FOUR, "normalize": "true"}, CLASSES,
              lambda p, t: divided(matrix(p, t), matrix(p, t).sum(1, keepdims=True) * np.ones(4)))
    yield Row("ConfusionMatrix", {"task": "multilabel", "num_labels": 3}, LABELS, lambda p, t: [
        matrix((p[:, c] > 0.5).astype(int).ravel(), t[:, c].ravel(), 2) for c in range(3)])
    for weights, power in ((None, 0), ("linear", 1), ("quadratic", 2)):
        yield Row("CohenKappa", {**FOUR, "weights": weights}, CLASSES, kappa(power))
    yield Row("MatthewsCorrCoef", FOUR, LOGITS, matthews)
    yield Row("StatScores", FOUR, CLASSES, lambda p, t: np.stack([
        [((p == c) & (t == c)).sum(), ((p == c) & (t != c)).sum(), ((p != c) & (t != c)).sum(),
         ((p != c) & (t == c)).sum(), (t == c).sum()] for c in range(4)]))


# --- regression -----------------------------------------------------------------------------------

PAIRS = per_batch(lambda n: (RNG.random(n) + 1e6, RNG.random(n) + 1e6))
SMALL = per_batch(lambda n: (RNG.random((n, 2)) + 0.1, RNG.random((n, 2)) + 0.1))
LINE = [(np.round(p - 1e6, 1), np.round(p - 1e6 + t * 0 + RNG.random(len(p)) * 0.3, 1))
        for p, t in PAIRS]


def r2(p, t):
    return 1 - ((p - t)**2).sum(0) / ((t - t.mean(0))**2).sum(0)


def explained(p, t):
    return 1 - np.var(p - t, 0) / np.var(t, 0)


def concordance(p, t):
    return 2 * np.cov(p, t, bias=True)[0, 1] / (p.var() + t.var() + (p.mean() - t.mean())**2)


REGRESSION = [
    Row("MeanSquaredError", {}, SMALL, lambda p, t: ((p - t)**2).mean()),
    Row("MeanSquaredError", {"squared": False, "num_outputs": 2}, SMALL,
        lambda p, t: np.sqrt(((p - t)**2).mean(0))),
    Row("MeanAbsoluteError", {}, SMALL, lambda p, t: np.abs(p - t).mean()),
    Row("MeanSquaredLogError", {}, SMALL, lambda p, t: ((np.log1p(p) - np.log1p(t))**2).mean()),
    Row("MeanAbsolutePercentageError", {}, SMALL, lambda p, t: (np.abs(p - t) / t).mean()),
    Row("SymmetricMeanAbsolutePercentageError", {}, SMALL,
        lambda p, t: (2 * np.abs(p - t) / (p + t)).mean()),
    Row("WeightedMeanAbsolutePercentageError", {}, SMALL,
        lambda p, t: np.abs(p - t).sum() / t.sum()),
    Row("MinkowskiDistance", {"p": 3}, SMALL, lambda p, t: (np.abs(p - t)**3).sum() ** (1 / 3)),
    Row("CosineSimilarity", {"reduction": "mean"}, SMALL, lambda p, t: (
        (p * t).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(t, axis=1)).mean()),
    Row("R2Score", {}, PAIRS, r2),
    Row("R2Score", {"num_outputs": 2, "adjusted": 3}, SMALL, lambda p, t: 1 - (
        1 - r2(p, t).mean()) * (len(p) - 1) / (len(p) - 4)),
    Row("R2Score", {"num_outputs": 2, "multioutput": "variance_weighted"}, SMALL,
        lambda p, t: np.average(r2(p, t), weights=t.var(0))),
    Row("ExplainedVariance", {"num_outputs": 2, "multioutput": "raw_values"}, SMALL, explained),
    Row("PearsonCorrCoef", {}, PAIRS, lambda p, t: np.corrcoef(p, t)[0, 1]),
    Row("ConcordanceCorrCoef", {}, PAIRS, concordance),
    Row("SpearmanCorrCoef", {}, LINE, lambda p, t: stats.spearmanr(p, t).statistic),
]

# --- ranking --------------------------------------------------------------------------------------

QUERIES = per_batch(lambda n: (RNG.random((n, 6)), RNG.integers(0, 3, (n, 6))
                               * (RNG.random((n, 1)) < 0.8)))
BY_INDEX = per_batch(lambda n: (RNG.random(n), RNG.integers(0, 2, n), RNG.integers(0, 4, n)))


def ranking(quantity, k=None, empty="neg"):
    def reference(preds, target, indexes=None):
        rows = zip(preds, target, strict=True) if indexes is None else [
            (preds[indexes == i], target[indexes == i]) for i in np.unique(indexes)]
        found = []
        for p, t in rows:
            if (t > 0).any():
                found.append(quantity(t[np.argsort(-p, kind="stable")], k or len(p)))
            elif empty != "skip":
                found.append(float(empty == "pos"))
        return np.mean(found)
    return reference


def average_precision(t, k):
    hits = [i for i in range(min(k, len(t))) if t[i] > 0]
    return np.mean([(t[:i + 1] > 0).mean() for i in hits]) if hits else 0.0


def gain(t, k):
    def total(r):
        return sum(x / math.log2(i + 2) for i, x in enumerate(r[:k]))
    return total(t) / total(np.sort(t)[::-1])


RANKINGS = {
    "RetrievalMAP": average_precision,
    "RetrievalMRR": lambda t, k: max([1 / (i + 1) for i in range(min(k, len(t))) if t[i] > 0],
                                     default=0),
    "RetrievalHitRate": lambda t, k: float((t[:k] > 0).any()),
    "RetrievalPrecision": lambda t, k: (t[:k] > 0).sum() / k,
    "RetrievalRecall": lambda t, k: (t[:k] > 0).sum() / (t > 0).sum(),
    "RetrievalNormalizedDCG": gain,
}
RANKING = [row for name, quantity in RANKINGS.items() for row in (
    Row(name, {"top_k": 2}, QUERIES, ranking(quantity, 2)),
    Row(name, {"empty_target_action": "skip"}, QUERIES, ranking(quantity, empty="skip")),
    Row(name, {"empty_target_action": "pos", "top_k": 3}, BY_INDEX, ranking(quantity, 3, "pos")))]

# --- text -----------------------------------------------------------------------------------------

WORDS = "the cat sat on a mat while dogs ran".split()


def sentence(n):
    return " ".join(RNG.choice(WORDS, n))


TEXTS = per_batch(lambda n: ([sentence(3 + i % 5) for i in range(n)],
                             [sentence(2 + i % 6) for i in range(n)]))
REFERENCES = [(p, [[t, sentence(5)] for t in ts]) for p, ts in TEXTS]
TOKENS = per_batch(lambda n: (RNG.standard_normal((n, 3, 5)).astype(np.float32),
                              RNG.integers(0, 5, (n, 3))))


def edits(a, b):
    """Levenshtein's recursion as it is written."""
    table = {(0, j): j for j in range(len(b) + 1)} | {(i, 0): i for i in range(len(a) + 1)}
    for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
        table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1,
                          table[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
    return table[len(a), len(b)]


def error_rate(split, length):
    def reference(preds, target):
        pairs = [(split(a), split(b)) for a, b in zip(preds, target, strict=True)]
        return sum(edits(a, b) for a, b in pairs) / sum(length(a, b) for a, b in pairs)
    return reference


def bleu(smooth):
    def reference(preds, target):
        pairs = [(p.split(), [t.split() for t in ts]) for p, ts in zip(preds, target, strict=True)]
        logs = []
        for n in range(1, 5):
            hits = total = 0
            for words, refs in pairs:
                grams = [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
                total += len(grams)
                for gram in set(grams):
                    most = max(sum(tuple(r[i:i + n]) == gram for i in range(len(r) - n + 1))
                               for r in refs)
                    hits += min(grams.count(gram), most)
            more = smooth and n > 1
            logs.append(math.log((hits + more) / (total + more)) if hits + more else -math.inf)
        length = sum(len(w) for w, _ in pairs)
        closest = sum(min((abs(len(r) - len(w)), len(r)) for r in refs)[1] for w, refs in pairs)
        return math.exp(sum(logs) / 4 + min(0, 1 - closest / length))
    return reference


def subsequence(a, b):
    return max((len(c) for n in range(len(a) + 1) for c in itertools.combinations(a, n)
                if _inside(c, b)), default=0)


def _inside(c, b):
    rest = iter(b)
    return all(word in rest for word in c)


def rouge(preds, target):
    rows = []
    for p, t in zip(preds, target, strict=True):
        a, b = p.split(), t.split()
        shared = sum(min(a.count(w), b.count(w)) for w in set(a))
        rows.append([f for hits in (shared, subsequence(a, b)) for f in (
            hits / len(a), hits / len(b), 2 * hits / (len(a) + len(b)))])
    names = [f"{k}_{n}" for k in ("rouge1", "rougeL") for n in ("precision", "recall", "fmeasure")]
    return dict(zip(names, np.mean(rows, 0), strict=True))


TEXT = [
    Row("WordErrorRate", {}, TEXTS, error_rate(str.split, lambda a, b: len(b))),
    Row("CharErrorRate", {}, TEXTS, error_rate(list, lambda a, b: len(b))),
    Row("MatchErrorRate", {}, TEXTS, error_rate(str.split, lambda a, b: max(len(a), len(b)))),
    Row("EditDistance", {}, TEXTS, error_rate(list, lambda a, b: 1)),
    Row("BLEUScore", {"smooth": True}, REFERENCES, bleu(True)),
    Row("BLEUScore", {}, [(["the cat sat on a mat"], [["the cat sat on the mat", "x y"]]),
                          (["a b c d"], [["a b c d e"]])], bleu(False)),
    Row("ROUGEScore", {"rouge_keys": ("rouge1", "rougeL")}, TEXTS, rouge),
    Row("Perplexity", {}, TOKENS, lambda p, t: math.exp(-np.take_along_axis(
        special.log_softmax(p.astype(float), -1), t[..., None], -1).mean())),
    Row("Perplexity", {"ignore_index": 2}, TOKENS, lambda p, t: math.exp(-np.take_along_axis(
        special.log_softmax(p.astype(float), -1), t[..., None], -1)[t != 2].mean())),
]

# --- images ---------------------------------------------------------------------------------------

IMAGES = per_batch(lambda n: (lambda x: (x, np.clip(x + 0.1 * RNG.standard_normal(x.shape), 0, 1)))(
    RNG.random((n, 2, 14, 13))), (2, 1))
LARGE = per_batch(lambda n: (lambda x: (x, np.clip(x + 0.2 * RNG.standard_normal(x.shape), 0, 1)))(
    RNG.random((n, 1, 24, 26))), (1, 2))
FEATURES = [(RNG.standard_normal((9, 3)) * (1 + i) + i, i != 1) for i in range(4)]


def structure(x, y, data_range=1.0):
    """SSIM and its contrast of two images (h, w), by scipy's filter."""
    def blur(image):
        return ndimage.gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]
    c1, c2 = (0.01 * data_range)**2, (0.03 * data_range)**2
    mx, my = blur(x), blur(y)
    xx, yy, xy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    contrast = (2 * xy + c2) / (xx + yy + c2)
    return (contrast * (2 * mx * my + c1) / (mx**2 + my**2 + c1)), contrast


def ssim(p, t):
    return np.mean([structure(a, b)[0] for x, y in zip(p, t, strict=True)
                    for a, b in zip(x, y, strict=True)])


def multi_scale(p, t):
    found = []
    for x, y in zip(p[:, 0], t[:, 0], strict=True):
        first = structure(x, y)[1].mean()
        halves = [i.reshape(12, 2, 13, 2).mean((1, 3)) for i in (x, y)]
        found.append(max(first, 0)**0.4 * max(structure(*halves)[0].mean(), 0)**0.6)
    return np.mean(found)


def frechet(features, real):
    a, b = features[real], features[~real]
    ca, cb = np.cov(a.T), np.cov(b.T)
    return ((a.mean(0) - b.mean(0))**2).sum() + np.trace(ca + cb - 2 * linalg.sqrtm(ca @ cb).real)


def layers(x):
    """Two layers of features, of arrays or tensors."""
    return [x, x[:, :, ::2, ::2] * 2 - 0.3]


def lpips(p, t):
    total = 0
    for a, b in zip(layers(p), layers(t), strict=True):
        a, b = (x / np.sqrt((x**2).sum(1, keepdims=True)) for x in (a, b))
        total += ((a - b)**2).sum(1).mean((1, 2))
    return total.mean()


def dists(p, t):
    total, weight = 0, 0
    for a, b in zip(layers(p), layers(t), strict=True):
        ma, mb = a.mean((2, 3)), b.mean((2, 3))
        cov = (a * b).mean((2, 3)) - ma * mb
        total += ((2 * ma * mb + 1e-6) / (ma**2 + mb**2 + 1e-6)).sum(1)
        total += ((2 * cov + 1e-6) / (a.var((2, 3)) + b.var((2, 3)) + 1e-6)).sum(1)
        weight += 2 * ma.shape[1]
    return (1 - total / weight).mean()


IMAGE = [
    Row("PeakSignalNoiseRatio", {"data_range": 2.0}, IMAGES,
        lambda p, t: 10 * math.log10(4 / ((p - t)**2).mean())),
    Row("StructuralSimilarityIndexMeasure", {}, IMAGES, ssim),
    Row("MultiScaleStructuralSimilarityIndexMeasure", {"betas": (0.4, 0.6)}, LARGE, multi_scale),
    Row("TotalVariation", {"reduction": "mean"}, [(p,) for p, _ in IMAGES], lambda p: (
        np.abs(np.diff(p, axis=2)).sum() + np.abs(np.diff(p, axis=3)).sum()) / len(p)),
    Row("LearnedPerceptualImagePatchSimilarity", {"features": layers}, IMAGES, lpips),
    Row("DeepImageStructureAndTextureSimilarity", {"features": layers}, IMAGES, dists),
]

# --- aggregation and clustering -------------------------------------------------------------------

VALUES = per_batch(lambda n: (RNG.standard_normal(n), RNG.random(n)))
ALONE = [(v,) for v, _ in VALUES]
CLUSTERS = per_batch(lambda n: (RNG.integers(0, 4, n), RNG.integers(3, 6, n)))


def entropies(p, t):
    """Entropy of the classes, of the clusters, and of both together."""
    return [stats.entropy(np.unique(x, return_counts=True, axis=0)[1])
            for x in (t, p, np.stack([t, p], 1))]


def homogeneity(p, t):
    h, k, both = entropies(p, t)
    return (h + k - both) / h


def v_measure(beta):
    def reference(p, t):
        h, c = homogeneity(p, t), homogeneity(t, p)
        return (1 + beta) * h * c / (beta * h + c)
    return reference


def rand(p, t):
    pairs = list(itertools.combinations(range(len(p)), 2))
    same = np.array([[p[i] == p[j], t[i] == t[j]] for i, j in pairs], float)
    both, a, b = (same[:, 0] * same[:, 1]).sum(), same[:, 0].sum(), same[:, 1].sum()
    expected = a * b / len(pairs)
    return (both - expected) / ((a + b) / 2 - expected)


OTHER = [
    Row("MeanMetric", {}, VALUES, lambda v, w: np.average(v, weights=w)),
    Row("SumMetric", {}, ALONE, lambda v: v.sum()),
    Row("MaxMetric", {}, ALONE, lambda v: v.max()),
    Row("MinMetric", {}, ALONE, lambda v: v.min()),
    Row("CatMetric", {}, ALONE, lambda v: v),
    Row("HomogeneityScore", {}, CLUSTERS, homogeneity),
    Row("CompletenessScore", {}, CLUSTERS, lambda p, t: homogeneity(t, p)),
    Row("VMeasureScore", {"beta": 2.0}, CLUSTERS, v_measure(2.0)),
    Row("AdjustedRandScore", {}, CLUSTERS, rand),
]

ROWS = [*counted_rows(), *curve_rows(), *REGRESSION, *RANKING, *TEXT, *IMAGE, *OTHER]
IDS = [f"{i}-{row.name}" for i, row in enumerate(ROWS)]


def tensors(batch):
    return [mlgpu.tensor(x) if isinstance(x, np.ndarray) else x for x in batch]


def joined(batches):
    return [np.concatenate(x) if isinstance(x[0], np.ndarray) else [t for part in x for t in part]
            for x in zip(*batches, strict=True)]


def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value.cpu().numpy() if isinstance(value, mlgpu.Tensor) else np.asarray(value)


def same(found, expected, rtol=1e-6):
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for key, value in expected.items():
            same(found[key], value, rtol)
        return
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_metric(row, device, tmp_path):
    """Streams; merges of halves; a state that was saved; batches alone; and after a reset."""
    metric = getattr(metrics, row.name)(**row.options)
    fresh = copy.deepcopy(metric)
    # Scores in float32 meet exponentials there; sums are in float64 throughout.
    single = any(x.dtype == np.float32 for x in row.batches[0] if isinstance(x, np.ndarray))
    rtol = 1e-5 if single else 1e-8
    given = [tensors(batch) for batch in row.batches]
    metric.update(*given[0])
    parts = [copy.deepcopy(fresh) for _ in given]
    for batch in given[1:]:
        metric.update(*batch)
    expected = row.reference(*joined(row.batches))
    same(plain(metric.compute()), expected, rtol)
    for part, batch in zip(parts, given, strict=True):
        part.update(*batch)
    for part in parts[1:]:
        parts[0].merge(part)
    same(plain(parts[0].compute()), expected, rtol)
    mlgpu.save(metric.state_dict(), tmp_path / "state.safetensors")
    fresh.load_state_dict(mlgpu.load(tmp_path / "state.safetensors"))
    same(plain(fresh.compute()), plain(metric.compute()), 1e-15)
    if row.name in ("R2Score", "PearsonCorrCoef", "SpearmanCorrCoef", "AUROC"):
        return
    last = row.reference(*joined(row.batches[-1:]))
    metric.reset()
    same(plain(metric(*given[-1])), last, rtol)
    same(plain(metric.compute()), last, rtol)


def test_frechet_distance(device):
    metric = metrics.FrechetInceptionDistance(3)
    for features, real in FEATURES:
        metric.update(mlgpu.tensor(features), real)
    expected = frechet(np.concatenate([f for f, _ in FEATURES]),
                       np.repeat([r for _, r in FEATURES], 9))
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-9)
    network = metrics.FrechetInceptionDistance(3, lambda images: images.mean((2, 3)))
    network.update(mlgpu.tensor(RNG.random((5, 3, 4, 4))), real=True)
    with pytest.raises(ShapeError, match="two fake images"):
        network.compute()


def test_running_mean_and_throughput():
    running = metrics.RunningMean(2)
    for value in (1.0, 5.0, 7.0):
        running.update(value)
    assert float(running.compute()) == 6
    speed = metrics.Throughput(window=2)
    assert speed.compute() == 0.0
    for items, seconds in ((9, 1.0), (10, 1.0), (20, 0.5)):
        speed.update(items, seconds)
    assert speed.compute() == 20
    again = metrics.Throughput(window=2)
    again.load_state_dict(speed.state_dict())
    assert again.compute() == 20
    speed.reset()
    speed.update(3)
    speed.update(3)
    assert speed.compute() > 0


def test_collection(device):
    both = metrics.MetricCollection([metrics.Accuracy(**FOUR), metrics.F1Score(**FOUR)])
    for batch in LOGITS:
        both.update(*tensors(batch))
    found = both.compute()
    assert list(found) == ["Accuracy", "F1Score"]
    assert float(found["Accuracy"]) == pytest.approx(
        averaged(accuracy)(**FOUR)(*joined(LOGITS)))
    state = both.state_dict()
    both.reset()
    both.load_state_dict(state)
    assert float(both.compute()["F1Score"]) == float(found["F1Score"])


def test_no_gradient_is_recorded(device):
    metric = metrics.MeanSquaredError()
    x = mlgpu.ones(3).requires_grad_()
    metric.update(x * 2, mlgpu.zeros(3))
    assert not metric.total.requires_grad
    assert float(metric.compute()) == 4


def t(*values):
    return mlgpu.tensor(values[0] if len(values) == 1 else list(values), device="cpu")


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: metrics.Accuracy("ternary"), ShapeError, "task must be"),
    (lambda: metrics.Accuracy("multiclass"), ShapeError, "needs num_classes"),
    (lambda: metrics.Accuracy("multilabel", num_labels=0), ShapeError, "needs num_labels"),
    (lambda: metrics.Accuracy("binary", threshold=2), ShapeError, "threshold"),
    (lambda: metrics.Accuracy(**FOUR, top_k=5), ShapeError, "top_k"),
    (lambda: metrics.Accuracy(**FOUR, average="mean"), ShapeError, "average"),
    (lambda: metrics.Accuracy("binary").update([1], [1]), TypeError, "Tensors"),
    (lambda: metrics.Accuracy("binary").update(t(0.5, 0.1), t(1.0, 0.0)), DTypeError, "integers"),
    (lambda: metrics.Accuracy(**FOUR).update(t([[0.5, 0.1]]), t([1])), ShapeError, "expected"),
    (lambda: metrics.Accuracy(**FOUR).update(t(1, 2), t(1, 4)), ShapeError, "below 4"),
    (lambda: metrics.Accuracy("binary").update(t(1, 2), t(1, 0)), ShapeError, "below 2"),
    (lambda: metrics.Accuracy(**FOUR, top_k=2).update(t(1, 2), t(1, 3)), DTypeError, "scores"),
    (lambda: metrics.FBetaScore("binary", beta=0), ShapeError, "beta"),
    (lambda: metrics.ConfusionMatrix("binary", normalize="rows"), ShapeError, "normalize"),
    (lambda: metrics.CohenKappa("binary", weights="cubic"), ShapeError, "weights"),
    (lambda: metrics.AUROC("binary", thresholds=1), ShapeError, "thresholds"),
    (lambda: metrics.AUROC("binary", average="micro"), ShapeError, "average"),
    (lambda: metrics.AUROC("binary").update(t(1, 0), t(1, 0)), DTypeError, "scores"),
    (lambda: metrics.AUROC("binary").compute(), ShapeError, "no batches"),
    (lambda: metrics.CalibrationError("binary", norm="l3"), ShapeError, "norm"),
    (lambda: metrics.MeanSquaredError().update(t(1.0), t(1.0, 2.0)), ShapeError, "one shape"),
    (lambda: metrics.R2Score(multioutput="x"), ShapeError, "multioutput"),
    (lambda: metrics.R2Score().update(t([[1.0, 2.0]]), t([[1.0, 2.0]])), ShapeError, "expected"),
    (lambda: metrics.R2Score().compute(), ShapeError, "at least two"),
    (lambda: metrics.MinkowskiDistance(0.5), ShapeError, "at least 1"),
    (lambda: metrics.RetrievalMAP("maybe"), ShapeError, "empty_target_action"),
    (lambda: metrics.RetrievalMAP(top_k=0), ShapeError, "top_k"),
    (lambda: metrics.RetrievalMAP().update(t(1.0, 2.0), t(0, 1)), ShapeError, "queries"),
    (lambda: metrics.WordErrorRate().update(["a"], ["a", "b"]), ShapeError, "as many"),
    (lambda: metrics.BLEUScore(2, weights=[1.0]), ShapeError, "weights"),
    (lambda: metrics.ROUGEScore("rouge0"), ShapeError, "rouge_keys"),
    (lambda: metrics.Perplexity().update(t([[1.0]]), t([1])), ShapeError, "vocabulary"),
    (lambda: metrics.PeakSignalNoiseRatio(0), ShapeError, "data_range"),
    (lambda: metrics.StructuralSimilarityIndexMeasure().update(
        mlgpu.ones(1, 1, 5, 5), mlgpu.ones(1, 1, 5, 5)), ShapeError, "at least 11"),
    (lambda: metrics.HomogeneityScore().update(t(1.0, 2.0), t(1, 2)), DTypeError, "integers"),
    (lambda: metrics.HomogeneityScore().compute(), ShapeError, "no samples"),
    (lambda: metrics.MeanMetric().merge(metrics.SumMetric()), TypeError, "one of its kind"),
    (lambda: metrics.MetricCollection([metrics.MeanMetric(), metrics.MeanMetric()]), ShapeError,
     "need names"),
], ids=range(38))
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_every_metric_has_a_row():
    tested = {row.name for row in ROWS} | {"FrechetInceptionDistance", "Metric", "Throughput",
                                           "MetricCollection", "RunningMean"}
    assert set(metrics.__all__) == tested
