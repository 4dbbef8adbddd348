"""Everything behind the pages of one run: made, and closed again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedlens.coordinator.history import HISTORY_NAME
from fedlens.errors import HistoryError
from fedlens.files import remove_parts
from fedlens.models.checkpoint import CONTRACT_NAME
from fedlens.progress import Progress, silent
from fedlens.run_folder import find_model, kept_study
from fedlens.viewer.accounts import Accounts
from fedlens.viewer.audit import AUDIT_NAME, AuditLog
from fedlens.viewer.decoding import Decoder
from fedlens.viewer.library import Library
from fedlens.viewer.services import Services, uploads_folder, viewer_folder
from fedlens.viewer.settings import ViewerSettings
from fedlens.viewer.store import STORE_NAME, CaseStore


@contextlib.contextmanager
def opened(
    run: Path,
    settings: ViewerSettings,
    *,
    arm: str = "federated",
    paths: Sequence[Path] = (),
    progress: Progress = silent,
) -> Iterator[Services]:
    """A run's services, its network judging cases in the background, until the block ends.

    Args:
        run: Output folder of a run or comparison, one arm's folder, or a checkpoint folder. One that is still
            training has pages for the study lead, and no cases.
        settings: How the viewer is reached, and what it takes.
        arm: Whose network to take where ``run`` holds several.
        paths: Further images, and folders of them.
        progress: Called with the step, and how far it is.

    Raises:
        HistoryError: ``run`` is no run; another viewer has it open.
        CheckpointError: Its network cannot be used.
    """
    trained = _is_trained(run, arm)
    folder = viewer_folder(run)
    with contextlib.ExitStack() as ending:
        store = CaseStore(folder / STORE_NAME)
        ending.callback(store.close)
        uploads_folder(run).mkdir(mode=0o700, exist_ok=True)
        remove_parts(uploads_folder(run))
        decoder = Decoder(settings)
        decoder.warm()
        ending.callback(decoder.close)
        library = None
        if trained:
            library = Library.open(
                run,
                arm,
                store,
                hospital=settings.hospital,
                paths=paths,
                decoder=decoder,
                progress=progress,
            )
            ending.callback(library.close)
            library.start()
        yield Services(
            settings=settings,
            run=run,
            store=store,
            audit=AuditLog(folder / AUDIT_NAME),
            library=library,
            decoder=decoder,
            accounts=Accounts(settings.accounts) if settings.accounts else None,
        )


def _is_trained(run: Path, arm: str) -> bool:
    """Whether there is a network.

    Raises:
        HistoryError: There is none of this arm, nor a study that may bring one.
    """
    try:
        find_model(run, arm)
    except HistoryError:
        others = any(run.rglob(CONTRACT_NAME))
        if others or not (kept_study(run) or any(run.rglob(HISTORY_NAME))):
            raise
        return False
    return True
