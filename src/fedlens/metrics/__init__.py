"""Figures of merit on true classes, predictions and probabilities; numpy and scipy only.

Hospitals turn their predictions into counts (:func:`confusion_matrix`, :func:`score_histograms`);
the coordinator turns summed counts into figures (:func:`summarise`, :func:`auroc_from_histograms`).
Intervals need the predictions themselves, and resample whole patients, not images; :func:`wilson`
makes do with counts.
"""

from fedlens.metrics.classification import (
    CLASS_RATES,
    SUMMARY,
    class_rates,
    confusion_matrix,
    per_class,
    summaries,
    summarise,
)
from fedlens.metrics.intervals import (
    Difference,
    Interval,
    bootstrap,
    draws,
    interval_of,
    paired_difference,
    resample_aurocs,
    resample_confusions,
    resample_sums,
    two_sided,
    wilson,
)
from fedlens.metrics.ranking import auroc, auroc_from_histograms, macro_auroc, score_histograms

__all__ = [
    "CLASS_RATES",
    "SUMMARY",
    "Difference",
    "Interval",
    "auroc",
    "auroc_from_histograms",
    "bootstrap",
    "class_rates",
    "confusion_matrix",
    "draws",
    "interval_of",
    "macro_auroc",
    "paired_difference",
    "per_class",
    "resample_aurocs",
    "resample_confusions",
    "resample_sums",
    "score_histograms",
    "summaries",
    "summarise",
    "two_sided",
    "wilson",
]
