"""Files that sealing keeps at the coordinator."""

from __future__ import annotations

from pathlib import Path

from fedlens.protocol.roster import Identity, Roster
from fedlens.sealing_files import load_roster, save_roster


def test_a_roster_comes_back_in_its_own_order(tmp_path: Path) -> None:
    names = ("north", "south", "east", "west")
    keys = {name: Identity.generate(name).public() for name in names}
    roster = Roster.draft(keys, Identity.generate("coordinator").public())
    save_roster(tmp_path / "roster.json", roster)

    read = load_roster(tmp_path / "roster.json")

    assert tuple(read.members) == names
    assert read.digest == roster.digest
