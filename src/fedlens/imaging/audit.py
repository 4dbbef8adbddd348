"""The audit of a study folder: copies, leaks, balance and source cues, found without being told.

It changes one thing: each image's ``cluster`` in the manifest, which splits and shares never cut.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedlens.files import write_json, write_text
from fedlens.imaging.audit_table import render
from fedlens.imaging.components import components
from fedlens.imaging.copies import KINDS, Copies, find_copies, save_copies
from fedlens.imaging.findings import (
    Finding,
    balance_findings,
    copy_findings,
    cue_findings,
    leak_findings,
    official_findings,
    unreadable_findings,
)
from fedlens.imaging.manifest import Manifest, load_manifest
from fedlens.imaging.official_splits import OfficialSplit, official_splits
from fedlens.imaging.scan import scan
from fedlens.imaging.source_cues import CueScore, source_cues
from fedlens.imaging.structure import Indices
from fedlens.progress import Progress, silent

__all__ = ["AuditReport", "Finding", "audit"]

JSON_NAME = "audit.json"
TEXT_NAME = "audit.txt"
_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class AuditReport:
    """Everything the audit found.

    Attributes:
        images: Images in the manifest.
        groups: Patients, or images whose patient is unknown.
        clusters: Groups after those that share copies were joined.
        largest_cluster: Images in the largest cluster.
        copy_groups: Groups of two or more copies.
        copies: Images beyond the first of each such group.
        links: Number of links found, by kind of copy.
        mirrored: Links between an image and a mirrored one.
        balance: Images by column (``source``, ``split``, ``hospital``), its value and label.
        official: The splits that the sources came with.
        cues: Every cue's score for every class, best first.
        findings: Errors, then warnings, then notes.
    """

    images: int
    groups: int
    clusters: int
    largest_cluster: int
    copy_groups: int
    copies: int
    links: dict[str, int]
    mirrored: int
    balance: dict[str, dict[str, dict[str, int]]]
    official: tuple[OfficialSplit, ...]
    cues: tuple[CueScore, ...]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """The report for reading, 100 columns wide."""
        return render(self)


def audit(folder: Path, *, progress: Progress = silent) -> AuditReport:
    """Audit the images of a study folder.

    Writes ``audit.json``, ``audit.txt`` and ``copies.parquet`` there, and sets the manifest's
    ``cluster`` column to the connected components of patients and copies.

    Raises:
        ManifestError: No manifest, or one that cannot be read. Unreadable images are findings.
    """
    manifest = load_manifest(folder)
    seen = scan(manifest, progress=progress)
    copies = find_copies(manifest, seen=seen, progress=progress)
    clusters = _clusters(manifest, copies)
    official = official_splits(manifest, copies)
    readable = np.setdiff1d(np.arange(len(manifest)), list(seen.unreadable))
    cues = source_cues(
        manifest.with_records(manifest.records[index] for index in readable),
        seen.cues[readable],
        clusters[readable],
    )
    findings = (
        *unreadable_findings(manifest, seen.unreadable),
        *copy_findings(manifest, copies),
        *leak_findings(manifest, copies, clusters),
        *official_findings(official),
        *balance_findings(manifest),
        *cue_findings(cues),
    )
    sizes = np.bincount(copies.group, minlength=1)
    links = Counter(copies.pairs["kind"].tolist())
    report = AuditReport(
        images=len(manifest),
        groups=len({record.group for record in manifest}),
        clusters=len(set(clusters.tolist())),
        largest_cluster=int(np.bincount(clusters, minlength=1).max()),
        copy_groups=int((sizes > 1).sum()),
        copies=int((sizes[sizes > 1] - 1).sum()),
        links={name: links[place] for place, name in enumerate(KINDS)},
        mirrored=int(copies.pairs["mirrored"].sum()),
        balance={column: _balance(manifest, column) for column in ("source", "split", "hospital")},
        official=official,
        cues=cues,
        findings=tuple(sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity))),
    )
    save_copies(manifest, copies)
    manifest.with_column("cluster", _cluster_names(manifest, clusters)).save()
    write_json(folder / JSON_NAME, report.to_json())
    write_text(folder / TEXT_NAME, report.text())
    return report


def _clusters(manifest: Manifest, copies: Copies) -> Indices:
    """Number of the cluster of each image: patients and copies, joined through any chain."""
    groups = np.unique([record.group for record in manifest], return_inverse=True)[1]
    offset = len(manifest)
    # Each patient and each group of copies is a node that its images link to.
    first = np.concatenate([np.arange(offset)] * 2)
    second = np.concatenate([offset + groups, 2 * offset + copies.group])
    return components(3 * offset, first, second)[:offset]


def _cluster_names(manifest: Manifest, clusters: Indices) -> list[str]:
    """A cluster is called like the first, by name, of its groups, whatever the order of the images."""
    names: dict[int, str] = {}
    for record, number in zip(manifest, clusters.tolist(), strict=True):
        names[number] = min(names.get(number, record.group), record.group)
    return [names[number] for number in clusters.tolist()]


def _balance(manifest: Manifest, column: str) -> dict[str, dict[str, int]]:
    """Images by value of a column and label; images without a value are left out."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for record in manifest:
        value = getattr(record, column)
        if value:
            table[value][record.label] += 1
    return {value: dict(sorted(table[value].items())) for value in sorted(table)}
