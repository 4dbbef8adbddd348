"""How good explanations are: measures of faithfulness, localisation, robustness and cost.

Descriptions (direction, range, source) are in :mod:`fedlens.metrics.explanation`, sums over images and
hospitals in :mod:`fedlens.metrics.explanation_totals`; here the values are made, one for each image.
"""

from fedlens.explain.quality.explained import Explain, Explained
from fedlens.explain.quality.measuring import quality_values, timed_explanation

__all__ = ["Explain", "Explained", "quality_values", "timed_explanation"]
