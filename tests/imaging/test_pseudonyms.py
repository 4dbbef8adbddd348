"""Pseudonyms from a secret that stays at home, and dates that move by them."""

from __future__ import annotations

import stat
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlens.errors import DataError
from fedlens.imaging.dates import shift_date, shift_datetime, shift_moment, shift_time
from fedlens.imaging.pseudonyms import Pseudonyms, load_pseudonyms

ONE, OTHER = Pseudonyms(b"1" * 32), Pseudonyms(b"2" * 32)


def test_the_same_secret_gives_the_same_pseudonym_and_another_one_another() -> None:
    assert ONE.patient("4711") == Pseudonyms(b"1" * 32).patient("4711")
    assert len({ONE.patient("4711"), ONE.patient("4712"), OTHER.patient("4711")}) == 3
    assert "4711" not in ONE.patient("4711")


@given(st.from_regex(r"[0-2]\.[1-9][0-9]{0,20}\.[1-9][0-9]{0,20}", fullmatch=True))
def test_uids_stay_uids(uid: str) -> None:
    new = ONE.uid(uid)
    assert new == ONE.uid(uid) != uid
    assert len(new) <= 64
    assert new.startswith("2.25.")
    assert not new.removeprefix("2.25.").startswith("0")


def test_uids_of_the_standard_stay() -> None:
    assert ONE.uid("1.2.840.10008.1.4.1.1") == "1.2.840.10008.1.4.1.1"


@given(st.text())
def test_dates_move_back_by_a_day_to_ten_years(patient: str) -> None:
    assert timedelta(days=-3653) < ONE.offset(patient) <= timedelta(days=-1)


def test_the_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "home" / "secret"
    first = load_pseudonyms(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_bytes()) == 32
    assert load_pseudonyms(file).patient("a") == first.patient("a")
    assert [entry.name for entry in file.parent.iterdir()] == ["secret"]
    assert file.read_bytes().hex() not in repr(first)


def test_a_secret_that_others_can_read_or_that_is_cut_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    load_pseudonyms(file)
    file.chmod(0o640)
    with pytest.raises(DataError, match="Others may read"):
        load_pseudonyms(file)
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(DataError, match="no secret of FedLens"):
        load_pseudonyms(file)
    with pytest.raises(DataError, match="cannot be read or written"):
        load_pseudonyms(tmp_path)


OFFSET = -timedelta(days=400, hours=10, minutes=30, seconds=15)


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        (("20200301", "090000"), ("20190125", "222945")),
        (("20200301", "090000.123456"), ("20190125", "222945.123456")),
        (("20200301", "0900"), ("20190125", "2229")),
        (("20200301", "garbage"), ("20190126", "")),
        (("", "235960"), ("", "132944")),
        (("00010101", "000000"), ("", "")),
    ],
)
def test_a_date_and_its_time_move_as_one(given_: tuple[str, str], wanted: tuple[str, str]) -> None:
    assert shift_moment(*given_, OFFSET) == wanted


def test_dates_times_and_both_in_one_move_alike() -> None:
    assert shift_date("20200301", OFFSET) == "20190126"
    assert shift_date("2020.03.01", OFFSET) == "20190126"
    assert shift_time("000000", OFFSET) == "132945"
    assert shift_datetime("20200301090000.5+0100", OFFSET) == "20190125222945.5+0100"
    assert shift_datetime("202003", OFFSET) == "201901"
    assert shift_datetime("2020", OFFSET) == "2018"
    assert shift_date("yesterday", OFFSET) == shift_datetime("?", OFFSET) == shift_time("?", OFFSET) == ""


@given(st.dates(date(1950, 1, 1), date(2050, 1, 1)), st.integers(0, 3000), st.text(max_size=4))
def test_days_between_dates_stay(first: date, days: int, patient: str) -> None:
    second = first + timedelta(days=days)
    offset = ONE.offset(patient)
    moved = [shift_date(f"{day:%Y%m%d}", offset) for day in (first, second)]
    years, ends = [int(text[:4]) for text in moved], [date.fromisoformat(text) for text in moved]
    assert ends[1] - ends[0] == timedelta(days=days)
    assert years[0] <= first.year
