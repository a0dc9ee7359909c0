"""Metrics over batches, with torchmetrics' names.

    accuracy = mlgpu.metrics.Accuracy("multiclass", num_classes=10)
    for x, target in loader:
        accuracy.update(model(x), target)
    print(float(accuracy.compute()))

Each keeps a small exact state on its inputs' device, and merges with another of its kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlgpu.metrics.aggregation import *  # noqa: F403
    from mlgpu.metrics.classification import *  # noqa: F403
    from mlgpu.metrics.clustering import *  # noqa: F403
    from mlgpu.metrics.curves import *  # noqa: F403
    from mlgpu.metrics.image import *  # noqa: F403
    from mlgpu.metrics.metric import Metric as Metric
    from mlgpu.metrics.metric import MetricCollection as MetricCollection
    from mlgpu.metrics.regression import *  # noqa: F403
    from mlgpu.metrics.retrieval import *  # noqa: F403
    from mlgpu.metrics.text import *  # noqa: F403

# The metrics, by the module of this package that has them.
_FAMILIES: dict[str, str] = {
    "aggregation": "CatMetric MaxMetric MeanMetric MinMetric RunningMean SumMetric Throughput",
    "classification": """Accuracy CohenKappa ConfusionMatrix Dice F1Score FBetaScore
        HammingDistance JaccardIndex MatthewsCorrCoef Precision Recall Specificity StatScores""",
    "clustering": "AdjustedRandScore CompletenessScore HomogeneityScore VMeasureScore",
    "curves": "AUROC AveragePrecision CalibrationError LogLoss",
    "image": """DeepImageStructureAndTextureSimilarity FrechetInceptionDistance
        LearnedPerceptualImagePatchSimilarity MultiScaleStructuralSimilarityIndexMeasure
        PeakSignalNoiseRatio StructuralSimilarityIndexMeasure TotalVariation""",
    "metric": "Metric MetricCollection",
    "regression": """ConcordanceCorrCoef CosineSimilarity ExplainedVariance MeanAbsoluteError
        MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogError MinkowskiDistance
        PearsonCorrCoef R2Score SpearmanCorrCoef SymmetricMeanAbsolutePercentageError
        WeightedMeanAbsolutePercentageError""",
    "retrieval": """RetrievalHitRate RetrievalMAP RetrievalMRR RetrievalNormalizedDCG
        RetrievalPrecision RetrievalRecall""",
    "text": """BLEUScore CharErrorRate EditDistance MatchErrorRate Perplexity ROUGEScore
        WordErrorRate""",
}
_HOME = {name: module for module, names in _FAMILIES.items() for name in names.split()}

__all__ = [*_HOME]

if not TYPE_CHECKING:  # a checker knows all names, and reports others
    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"mlgpu.metrics.{_HOME[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
