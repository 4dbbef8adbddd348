"""New labels for old ones."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping

from fedlens.errors import SettingsError
from fedlens.imaging.manifest import Manifest


def relabel(manifest: Manifest, mapping: Mapping[str, str]) -> Manifest:
    """Replace labels; the old label of a changed image becomes its subtype.

    Args:
        manifest: The images.
        mapping: New label by old one; labels that are not named stay. Chains are not followed.

    Raises:
        SettingsError: An old label that no image has, with the nearest one; or an empty new label.
    """
    known = manifest.labels()
    for old, new in mapping.items():
        if old not in known:
            near = difflib.get_close_matches(old, known, n=1, cutoff=0.5)
            raise SettingsError(
                f"data.relabel: no image has the label {old!r}.",
                why=f"The labels are {', '.join(known)}.",
                fix=f"Did you mean {near[0]!r}?" if near else "Correct or remove that key.",
            )
        if not new:
            raise SettingsError(f"data.relabel: the new label of {old!r} is empty.", fix="Name it.")
    return manifest.with_records(
        dataclasses.replace(record, label=mapping[record.label], subtype=record.label)
        if mapping.get(record.label, record.label) != record.label
        else record
        for record in manifest
    )
