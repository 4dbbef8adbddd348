"""What the viewer's pages stand on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastapi import HTTPException

from fedlens.viewer.accounts import Accounts
from fedlens.viewer.audit import AuditLog
from fedlens.viewer.case import Case
from fedlens.viewer.decoding import Decoder
from fedlens.viewer.library import Library
from fedlens.viewer.settings import ViewerSettings
from fedlens.viewer.store import CaseStore


def viewer_folder(run: Path) -> Path:
    """Where the viewer keeps its own files."""
    return run / "viewer"


def uploads_folder(run: Path) -> Path:
    """Where the bytes of uploads are kept."""
    return viewer_folder(run) / "uploads"


@dataclass(frozen=True)
class Services:
    """Everything that pages need, made once and closed by whoever made it.

    Attributes:
        settings: How the viewer is reached, and what it takes.
        run: The run folder that is looked at.
        store: Cases, predictions and reviews.
        audit: Who looked at what, and decided what.
        library: The network and its images; None while the study has no trained network.
        decoder: Of uploaded files.
        accounts: Who may log in; None where nobody has to.
    """

    settings: ViewerSettings
    run: Path
    store: CaseStore
    audit: AuditLog
    library: Library | None
    decoder: Decoder
    accounts: Accounts | None

    @property
    def uploads(self) -> Path:
        """Folder of kept uploads."""
        return uploads_folder(self.run)

    def known(self, case_id: str) -> Case:
        """The case of an address.

        Raises:
            HTTPException: 404, there is none.
        """
        case = self.store.case(case_id)
        if case is None:
            raise HTTPException(404)
        return case
