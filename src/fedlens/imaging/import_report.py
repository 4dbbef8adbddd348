"""What an import did: counts for each source, and every file that was not taken as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fedlens.imaging.manifest import Manifest

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """One file that was skipped, or taken with something done to it.

    Attributes:
        file: Path of the file.
        reason: Short phrase.
        kind: ``skipped`` is not in the manifest; ``handled`` is.
    """

    file: str
    reason: str
    kind: Literal["skipped", "handled"] = "skipped"


@dataclass(frozen=True)
class ImportReport:
    """The outcome of an import.

    Attributes:
        manifest: The images, as saved.
        layouts: Layout recognised for each source, by source name.
        problems: Every file skipped or handled, in import order.
        ignored: Files that are no images by their extension: extension to count.
        notes: Remarks on a source as a whole, by source name.
    """

    manifest: Manifest
    layouts: Mapping[str, str]
    problems: tuple[ImportProblem, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def skipped(self) -> tuple[ImportProblem, ...]:
        """The files that are not in the manifest."""
        return tuple(problem for problem in self.problems if problem.kind == "skipped")

    def handled(self) -> tuple[ImportProblem, ...]:
        """The files that are in the manifest after something was done to them."""
        return tuple(problem for problem in self.problems if problem.kind == "handled")

    def as_dict(self) -> dict[str, Any]:
        """Everything but the images themselves, ready for JSON (``import.json``)."""
        return {
            "images": len(self.manifest),
            "sources": {name: self._source(name) for name in self.layouts},
            "problems": [asdict(problem) for problem in self.problems],
            "ignored": dict(sorted(self.ignored.items())),
        }

    def summary(self) -> str:
        """A readable account, problems grouped by reason with a few examples each."""
        lines = [f"{len(self.manifest):,} images imported into {self.manifest.folder}"]
        for name in self.layouts:
            lines += self._source_lines(name)
        lines += _problem_lines("Skipped", self.skipped())
        lines += _problem_lines("Handled", self.handled())
        if self.ignored:
            counts = ", ".join(f"{suffix} {count:,}" for suffix, count in sorted(self.ignored.items()))
            lines += ["", f"Ignored, no images: {counts}"]
        return "\n".join(lines)

    def _source(self, name: str) -> dict[str, Any]:
        records = [record for record in self.manifest if record.source == name]
        return {
            "layout": self.layouts[name],
            "images": len(records),
            "labels": dict(sorted(Counter(record.label for record in records).items())),
            "modalities": dict(sorted(Counter(record.modality for record in records).items())),
            "groups": len({record.group for record in records}),
            "masks": sum(bool(record.mask) for record in records),
            "notes": list(self.notes.get(name, ())),
        }

    def _source_lines(self, name: str) -> list[str]:
        facts = self._source(name)
        modalities = ", ".join(facts["modalities"])
        lines = [
            "",
            f"{name}: {facts['images']:,} images ({modalities}), read as {facts['layout']}",
            f"  patients or groups  {facts['groups']:,}",
            f"  expert outlines     {facts['masks']:,}",
        ]
        width = max((len(label) for label in facts["labels"]), default=0)
        lines += [f"  label {label:<{width}}  {count:>7,}" for label, count in facts["labels"].items()]
        return lines + [f"  note: {note}" for note in facts["notes"]]


def _problem_lines(title: str, problems: tuple[ImportProblem, ...]) -> list[str]:
    if not problems:
        return []
    by_reason: dict[str, list[str]] = {}
    for problem in problems:
        by_reason.setdefault(problem.reason, []).append(problem.file)
    lines = ["", f"{title}: {len(problems):,} (all named in import.json)"]
    for reason, files in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        lines.append(f"  {len(files):,} x {reason}")
        lines += [f"      {file}" for file in files[:_EXAMPLES]]
        if len(files) > _EXAMPLES:
            lines.append(f"      … and {len(files) - _EXAMPLES:,} more")
    return lines
