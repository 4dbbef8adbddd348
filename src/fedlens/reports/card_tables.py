"""Tables of the model card: counts of images, and figures by hospital, data set and class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedlens.reports.comparison import Comparison, Summary
from fedlens.reports.document import Chart, Table
from fedlens.reports.page import confusion_picture
from fedlens.reports.paper import cell
from fedlens.reports.shares import Share, class_counts, split_counts

_CLASS_COLUMNS = {
    "recall": "Sensitivity, %",
    "specificity": "Specificity, %",
    "precision": "Precision, %",
    "f1": "F1, %",
    "auroc": "AUROC, %",
}


def split_table(shares: Sequence[Share]) -> Table:
    """Images of each hospital in each split."""
    splits = split_counts(shares)
    rows = [(name, *(f"{count:,}" for count in (*counts, sum(counts)))) for name, counts in splits]
    totals = [sum(counts[index] for _, counts in splits) for index in range(3)]
    rows.append(("All", *(f"{count:,}" for count in (*totals, sum(totals)))))
    return Table(
        "Images of each hospital", ("Hospital", "Training", "Validation", "Test", "All"), tuple(rows)
    )


def class_tables(shares: Sequence[Share]) -> Iterator[Table]:
    """Images of each class, by hospital and by split."""
    hospitals, labels, counts = class_counts(shares)
    rows = [
        (label, *(f"{int(count):,}" for count in (*counts[:, index], counts[:, index].sum())))
        for index, label in enumerate(labels)
    ]
    yield Table(
        "Images of each class at each hospital, all splits", ("Class", *hospitals, "All"), tuple(rows)
    )
    by_split = []
    for label in labels:
        own = [share for share in shares if share.label == label]
        (_, found), *_ = split_counts([Share("", "", label, share.split, share.images) for share in own])
        by_split.append((label, *(f"{count:,}" for count in found)))
    yield Table(
        "Images of each class in each split", ("Class", "Training", "Validation", "Test"), tuple(by_split)
    )


def part_table(comparison: Comparison, arm: str, scopes: Sequence[str], title: str) -> Table:
    """Figures of one arm on each hospital's or data set's test images."""
    rows = []
    for scope in scopes:
        entries = [comparison.summary(arm, scope, name) for name in ("accuracy", "f1_macro", "auroc_macro")]
        rows.append((scope.partition(":")[2], f"{entries[0].images:,}", *map(cell, entries)))
    return Table(
        f"By {title.lower()}, percent",
        (title, "Test images", "Accuracy", "F1", "AUROC"),
        tuple(rows),
    )


def rates_table(comparison: Comparison, arm: str) -> Table:
    """Each class against the rest."""
    rows = []
    for scope in comparison.scopes(arm, "class"):
        entries: list[Summary] = [comparison.summary(arm, scope, name) for name in _CLASS_COLUMNS]
        rows.append((scope.partition(":")[2], f"{entries[0].images:,}", *map(cell, entries)))
    return Table(
        "By class, each against the rest",
        ("Class", "Test images", *_CLASS_COLUMNS.values()),
        tuple(rows),
        "An interval without width: all images were decided alike. With few images that says little.",
    )


def confusion_chart(comparison: Comparison, arm: str) -> Chart:
    """The confusion matrix; in Markdown its counts."""
    counts = comparison.confusions[arm]
    summed = f", summed over {len(comparison.seeds)} seeds" if len(comparison.seeds) > 1 else ""
    label = f"Test images by true class (rows) and decided class (columns){summed}"
    rows = tuple(
        (name, *(f"{int(count):,}" for count in row))
        for name, row in zip(comparison.classes, counts, strict=True)
    )
    table = Table(label, ("True class", *comparison.classes), rows)
    return Chart(
        confusion_picture(counts, comparison.classes), f"{label}; shaded by share of the row.", table
    )
