"""What DICOM's Basic Application Confidentiality Profile does with each attribute (PS3.15 Table E.1-1).

The table comes from the package dicom-anonymizer, which reads it out of the standard's own edition; only
its data are used, not its engine. Here it is turned into one action for each attribute, the safer one where
the table leaves a choice, together with the option of modified dates (PS3.15 E.3.6).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from enum import Enum

from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.tag import BaseTag

EDITION = "2026c"
"""Edition of the standard that the table is of."""


class Action(Enum):
    """What becomes of an attribute; letters as in Table E.1-1."""

    KEEP = "K"
    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UID = "U"
    INSIDE = "U*"
    """A sequence of references: kept, with each item treated in its turn."""
    SHIFT = "C"
    """A date or time: moved by the patient's offset."""


DATE_VRS = frozenset({"DA", "DT", "TM"})

# Dates that tell about a person, a device or a place rather than about when something was done to the
# patient. The option of modified dates does not reach them.
_NO_TIMELINE = frozenset(
    {
        "PatientBirthDate",
        "PatientBirthTime",
        "EthicsCommitteeApprovalEffectivenessStartDate",
        "EthicsCommitteeApprovalEffectivenessEndDate",
        "DateOfManufacture",
        "DateOfInstallation",
        "ProductExpirationDateTime",
        "GPSDateStamp",
        "GPSTimeStamp",
        "HL7DocumentEffectiveTime",
        "TemplateVersion",
        "TemplateLocalVersion",
        "ContextGroupVersion",
        "ContextGroupLocalVersion",
    }
)
# The choices of the table, each settled for an image that is passed on: a value that may be required
# stays, as a dummy or empty, and the rest goes.
_SETTLED = {
    "D_TAGS": Action.DUMMY,
    "Z_TAGS": Action.EMPTY,
    "X_TAGS": Action.REMOVE,
    "U_TAGS": Action.UID,
    "Z_D_TAGS": Action.DUMMY,
    "X_Z_TAGS": Action.EMPTY,
    "X_D_TAGS": Action.DUMMY,
    "X_Z_D_TAGS": Action.DUMMY,
    "X_Z_U_STAR_TAGS": Action.INSIDE,
}


def action(tag: BaseTag, vr: str) -> Action:
    """What to do with an attribute.

    Private attributes go, and so do those that the dictionary of pydicom does not know: nobody can say what
    is in them. Curves and overlays go whole, because a patient's name may be drawn in them.

    Args:
        tag: The attribute.
        vr: Its value representation.
    """
    if tag.is_private or tag.element == 0 or not dictionary_has_tag(tag):
        return Action.REMOVE
    if tag.group & 0xFF00 in (0x5000, 0x6000):
        return Action.REMOVE
    listed = _table().get(int(tag), Action.KEEP)
    if vr in DATE_VRS and keyword_for_tag(tag) not in _NO_TIMELINE:
        return Action.SHIFT
    return listed


@functools.cache
def _table() -> dict[int, Action]:
    # Imported on first use: the package brings its own command line along.
    from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as edition

    table: dict[int, Action] = {}
    for name, settled in _SETTLED.items():
        tags: Iterable[tuple[int, ...]] = getattr(edition, name)
        # Longer tuples are the masks of repeating groups, which are dealt with above.
        table.update({tag[0] << 16 | tag[1]: settled for tag in tags if len(tag) == 2})
    return table
