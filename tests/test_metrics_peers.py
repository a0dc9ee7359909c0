"""Metrics beside torchmetrics', where that is installed: the same names give the same numbers.

Not compared: SSIM, which computes past the edges there, ConcordanceCorrCoef, which mixes variances
of n and n - 1, and BLEU with smoothing of no match at all, which is 0 there.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from test_metrics_values import (
    BY_INDEX,
    CLASSES,
    CLUSTERS,
    FOUR,
    IGNORED,
    IMAGES,
    LABELS,
    LOGITS,
    PROBS,
    REFERENCES,
    SMALL,
    TEXTS,
    TOKENS,
    tensors,
)

from mlgpu import metrics

torchmetrics = pytest.importorskip("torchmetrics", reason="comparison needs torchmetrics")
torch = pytest.importorskip("torch")

THREE = {"task": "multilabel", "num_labels": 3}
ROWS = [
    *[(name, {**options, **({"beta": 2.0} if name == "FBetaScore" else {})}, batches, "")
      for name in ("Accuracy", "Precision", "Recall", "Specificity", "FBetaScore", "F1Score",
                   "HammingDistance", "JaccardIndex")
      for options, batches in (
          ({"task": "binary"}, PROBS), ({"task": "binary", "ignore_index": -1}, IGNORED),
          ({**FOUR, "average": "macro"}, LOGITS), (THREE, LABELS))],
    ("StatScores", {"task": "binary"}, PROBS, ""),
    ("Accuracy", {**FOUR, "top_k": 2, "average": "micro"}, LOGITS, ""),
    *[(name, {**FOUR, **options}, CLASSES, "") for name, options in (
        ("ConfusionMatrix", {"normalize": "pred"}), ("CohenKappa", {"weights": "linear"}),
        ("MatthewsCorrCoef", {}))],
    ("MatthewsCorrCoef", THREE, LABELS, ""),
    *[(name, options, batches, "") for name in ("AUROC", "AveragePrecision")
      for options, batches in (({"task": "binary"}, PROBS), ({**FOUR}, LOGITS),
                               ({**THREE, "average": "micro"}, LABELS),
                               ({"task": "binary", "thresholds": 11}, PROBS))],
    ("CalibrationError", {**FOUR, "n_bins": 7, "norm": "l2"}, LOGITS, ""),
    ("CalibrationError", {"task": "binary", "norm": "max"}, PROBS, ""),
    *[(name, {}, SMALL, "regression") for name in (
        "MeanSquaredError", "MeanAbsoluteError", "MeanSquaredLogError",
        "MeanAbsolutePercentageError", "SymmetricMeanAbsolutePercentageError",
        "WeightedMeanAbsolutePercentageError", "CosineSimilarity")],
    ("PearsonCorrCoef", {"num_outputs": 2}, SMALL, "regression"),
    ("R2Score", {"adjusted": 2}, [(p[:, 0], t[:, 0]) for p, t in SMALL], "regression"),
    ("ExplainedVariance", {}, [(p[:, 0], t[:, 0]) for p, t in SMALL], "regression"),
    *[(name, {"top_k": 2}, BY_INDEX, "retrieval") for name in (
        "RetrievalMAP", "RetrievalMRR", "RetrievalHitRate", "RetrievalPrecision",
        "RetrievalRecall", "RetrievalNormalizedDCG")],
    *[(name, {}, TEXTS, "text") for name in ("WordErrorRate", "CharErrorRate", "MatchErrorRate",
                                             "EditDistance")],
    ("BLEUScore", {"n_gram": 2, "smooth": True}, REFERENCES, "text"),
    ("ROUGEScore", {"rouge_keys": ("rouge1", "rouge2", "rougeL"), "accumulate": "avg"},
     REFERENCES, "text"),
    ("ROUGEScore", {"rouge_keys": ("rouge2", "rougeL")}, TEXTS, "text"),
    ("Perplexity", {"ignore_index": 1}, TOKENS, "text"),
    ("PeakSignalNoiseRatio", {"data_range": 1.0}, IMAGES, "image"),
    ("TotalVariation", {}, [(p,) for p, _ in IMAGES], "image"),
    *[(name, {}, CLUSTERS, "clustering") for name in (
        "HomogeneityScore", "CompletenessScore", "VMeasureScore", "AdjustedRandScore")],
]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("row", ROWS, ids=[f"{i}-{row[0]}" for i, row in enumerate(ROWS)])
def test_equals_torchmetrics(row):
    name, options, batches, home = row
    mine = getattr(metrics, name)(**options)
    library = importlib.import_module(f"torchmetrics.{home}") if home else torchmetrics
    theirs = getattr(library, name)(**options)
    for batch in batches:
        mine.update(*tensors(batch))
        given = [torch.tensor(x) if isinstance(x, np.ndarray) else x for x in batch]
        theirs.update(given[0], given[1], indexes=given[2]) if len(given) == 3 else (
            theirs.update(*given))
    found, expected = mine.compute(), theirs.compute()
    if not isinstance(found, dict):
        found, expected = {"": found}, {"": expected}
    for key, value in found.items():
        np.testing.assert_allclose(value.numpy(), expected[key].numpy(), rtol=1e-5, atol=1e-6)
