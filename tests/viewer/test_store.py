"""Cases, predictions and reviews as they are kept."""

from __future__ import annotations

import csv
import dataclasses
import io
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.viewer.cases import REFUSED, UNREADABLE, make_case, make_prediction

from fedlens.errors import HistoryError
from fedlens.viewer.case import Case, CaseQuery, Review
from fedlens.viewer.store import CaseStore

TIME = "2026-03-01T09:30:00+00:00"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "viewer" / "viewer.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[CaseStore]:
    found = CaseStore(path)
    yield found
    found.close()


def titles(store: CaseStore, per_page: int = 50, **query: object) -> list[str]:
    return [row.case.title for row in store.page(CaseQuery(**query), per_page).rows]  # type: ignore[arg-type]


def make_review(case: Case, verdict: str = "agree", label: str = "nevus", note: str = "") -> Review:
    return Review(case.case_id, "Dr A", verdict, label, note, TIME)  # type: ignore[arg-type]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_case_comes_back_as_it_was_given(store: CaseStore) -> None:
    case = make_case(
        frame=3,
        origin="upload",
        patient="Doe Jane (4711)",
        label="melanoma",
        hospital="North",
        title="Übersicht\udcff <b>.dcm",
        prediction=make_prediction(),
    )
    assert store.add([case]) == (case.case_id,)
    assert store.case(case.case_id) == dataclasses.replace(case, title="Übersicht? <b>.dcm")
    for prediction in (make_prediction(kind="refer"), REFUSED, UNREADABLE):
        store.judged(case.case_id, prediction)
        found = store.case(case.case_id)
        assert found is not None and found.prediction == prediction


@pytest.mark.parametrize("text", ["", "x", "../etc/passwd", "' OR 1=1 --", "\udcff", "\x00", "é" * 9999])
def test_text_that_is_no_id_finds_nothing(store: CaseStore, text: str) -> None:
    store.add([make_case()])
    assert store.case(text) is None and store.reviews(text) == ()
    assert store.around(text, CaseQuery()) == ("", "")


def test_the_same_image_again_is_the_same_case(store: CaseStore) -> None:
    first, frame, upload = make_case(1), make_case(1, frame=1), make_case(1, origin="upload")
    assert store.add([first, frame, upload]) == (first.case_id, frame.case_id, upload.case_id)
    moved = make_case(1, title="new.png", file=Path("/new.png"))
    again = make_case(1, origin="upload", title="again.png", file=Path("/again.png"))
    assert store.add([moved, again]) == (first.case_id, upload.case_id)
    kept, dropped = store.case(first.case_id), store.case(upload.case_id)
    assert kept is not None and (kept.file, kept.title) == (Path("/new.png"), "new.png")
    assert dropped is not None and dropped.file == upload.file
    assert store.page(CaseQuery(), 50).total == 3


def test_files_that_cannot_be_read_are_told_apart_by_their_place(store: CaseStore) -> None:
    lost = [make_case(sha256="", file=Path(f"/lost/{number}"), title=str(number)) for number in range(2)]
    store.add([*lost, dataclasses.replace(lost[0], case_id="again")])
    assert titles(store, order="title") == ["0", "1"]


def test_cases_are_taken_in_all_or_none(store: CaseStore) -> None:
    case = make_case(1)
    with pytest.raises(HistoryError, match="cannot be written"):
        store.add([case, make_case(2, case_id=case.case_id)])
    assert store.page(CaseQuery(), 50).total == 0


def test_uncertain_cases_come_first(store: CaseStore) -> None:
    predictions = {
        "sure": make_prediction(chance=0.99),
        "less sure": make_prediction(chance=0.7),
        "refused": REFUSED,
        "torn": UNREADABLE,
        "refer, likely": make_prediction(chance=0.8, kind="refer"),
        "refer, unlikely": make_prediction(chance=0.4, kind="refer"),
        "waiting": None,
    }
    store.add(
        make_case(number, title=title, prediction=prediction)
        for number, (title, prediction) in enumerate(predictions.items())
    )
    found = store.page(CaseQuery(), 50)
    assert [row.case.title for row in found.rows] == [
        "refer, unlikely", "refer, likely", "refused", "torn", "less sure", "sure", "waiting"
    ]  # fmt: skip
    assert (found.total, found.page, found.pages, found.waiting) == (7, 1, 1, 1)
    assert titles(store, advice="refer") == ["refer, unlikely", "refer, likely"]
    assert [titles(store, advice=state) for state in ("refused", "unreadable", "waiting")] == [
        ["refused"], ["torn"], ["waiting"]
    ]  # fmt: skip


def test_other_orders(store: CaseStore) -> None:
    store.add(
        make_case(number, title=title, added=f"2026-03-0{number + 1}T00:00:00+00:00")
        for number, title in enumerate(["Slice 10", "slice 9", "äpfel", "apple"])
    )
    assert titles(store, order="title") == ["apple", "slice 9", "Slice 10", "äpfel"]
    assert titles(store, order="newest") == ["apple", "äpfel", "slice 9", "Slice 10"]


def test_search_and_filters(store: CaseStore) -> None:
    first = make_case(1, title="Film 7.dcm", patient="Müller Anna (12)", prediction=make_prediction())
    second = make_case(2, title="film 8.dcm", label="Melanoma", origin="upload")
    third = make_case(3, title="100%_.png", prediction=make_prediction("melanoma", kind="refer"))
    store.add([first, second, third])
    store.review(make_review(first))
    assert titles(store, text="FILM  müller") == ["Film 7.dcm"]
    assert sorted(titles(store, text="MELANOMA")) == ["100%_.png", "film 8.dcm"]
    assert titles(store, text="NEVUS") == ["Film 7.dcm"]
    # Nothing that is searched for is a pattern.
    assert titles(store, text="%_") == ["100%_.png"] and titles(store, text="film%") == []
    assert titles(store, text="anna melanoma") == []
    assert titles(store, label="melanoma") == ["100%_.png"]
    assert titles(store, origin="upload") == ["film 8.dcm"]
    assert titles(store, reviewed="yes") == ["Film 7.dcm"] and len(titles(store, reviewed="no")) == 2
    assert titles(store, text="film", origin="study", advice="report", reviewed="yes") == ["Film 7.dcm"]
    assert store.labels() == ("melanoma", "nevus")


def test_reference_cases_are_in_no_list(store: CaseStore) -> None:
    reference = make_case(1, origin="reference", label="nevus")
    store.add([reference, make_case(2)])
    store.judged(reference.case_id, make_prediction())
    assert titles(store) == ["image 2.png"] and store.labels() == ()
    assert [case.title for case in store.waiting(9)] == ["image 2.png"]
    assert store.case(reference.case_id) is not None
    assert store.around(reference.case_id, CaseQuery()) == ("", "")


@given(
    chances=st.lists(st.sampled_from([0.5, 0.6, 0.9]), max_size=25),
    order=st.sampled_from(["uncertain", "newest", "title"]),
    advice=st.sampled_from(["", "report"]),
    per_page=st.integers(1, 7),
)
@settings(max_examples=20, deadline=None)
def test_pages_and_steps_walk_through_the_same_list(
    tmp_path_factory: pytest.TempPathFactory, chances: list[float], order: str, advice: str, per_page: int
) -> None:
    store = CaseStore(tmp_path_factory.mktemp("walk") / "viewer.sqlite")
    store.add(
        make_case(
            number,
            title=f"{chance}",
            prediction=make_prediction(chance=chance, kind="report" if number % 3 else "refer"),
        )
        for number, chance in enumerate(chances)
    )
    query = CaseQuery(order=order, advice=advice)  # type: ignore[arg-type]
    first = store.page(query, per_page)
    paged = [
        row.case.case_id
        for number in range(1, first.pages + 1)
        for row in store.page(dataclasses.replace(query, page=number), per_page).rows
    ]
    assert len(paged) == len(set(paged)) == first.total
    for before, here, after in zip(["", *paged], paged, [*paged[1:], ""], strict=False):
        assert store.around(here, query) == (before, after)
    beyond = store.page(dataclasses.replace(query, page=999), per_page)
    assert beyond.page == first.pages and (beyond.rows != () or not chances or first.total == 0)
    store.close()


def test_a_case_that_left_the_list_still_leads_on(store: CaseStore) -> None:
    cases = [make_case(number) for number in range(3)]
    store.add(cases)
    store.review(make_review(cases[1]))
    query = CaseQuery(order="title", reviewed="no")
    assert store.around(cases[1].case_id, query) == (cases[0].case_id, cases[2].case_id)


def test_uploads_are_judged_before_all_others(store: CaseStore) -> None:
    cases = [make_case(1), make_case(2), make_case(3, origin="upload")]
    store.add(cases)
    assert [case.sha256[-1] for case in store.waiting(2)] == ["3", "1"]
    store.judge_all({case.case_id: make_prediction() for case in cases[:2]})
    assert store.waiting(9) == (cases[2],)


def test_another_network_judges_anew(store: CaseStore) -> None:
    store.bind("one")
    cases = [make_case(1, prediction=make_prediction()), make_case(2, prediction=UNREADABLE)]
    store.add(cases)
    store.review(make_review(cases[0]))
    store.bind("one")
    # A file that could not be read may be readable now.
    assert [case.title for case in store.waiting(9)] == ["image 2.png"]
    store.bind("two")
    assert len(store.waiting(9)) == 2 and store.labels() == ()
    (row,) = rows_of(store.reviews_csv())
    assert (row["likeliest"], row["probability"], row["advice"]) == ("nevus", "0.900000", "report")


def test_what_an_opening_does_not_bring_is_not_found_until_it_comes_again(store: CaseStore) -> None:
    old = make_case(1, origin="folder")
    other = make_case(2, hospital="South", label="nevus")
    upload = make_case(3, origin="upload")
    store.replace([old, other])
    store.add([upload])
    store.judged(old.case_id, make_prediction())
    for case in (old, other):
        store.review(make_review(case))

    store.replace([make_case(4)])

    assert sorted(titles(store)) == ["image 3.png", "image 4.png"]
    assert store.case(old.case_id) is None and store.confirmed() == () and store.labels() == ()
    # Of a hospital that is not shown, not even reviews are.
    assert [row["case_id"] for row in rows_of(store.reviews_csv())] == [old.case_id]

    assert store.replace([make_case(1, origin="folder")]) == (old.case_id,)
    again = store.case(old.case_id)
    assert again is not None and again.prediction == make_prediction() and store.reviews(old.case_id)


def test_reviews_stand_beside_each_other(store: CaseStore) -> None:
    case = make_case(1, prediction=make_prediction())
    store.add([case])
    first, second = make_review(case), make_review(case, "disagree", "melanoma", "irregular border")
    store.review(first)
    store.review(second)
    assert store.reviews(case.case_id) == (second, first)
    (row,) = store.page(CaseQuery(), 9).rows
    assert row.review == second
    with pytest.raises(HistoryError, match="not there any more"):
        store.review(dataclasses.replace(first, case_id="nobody"))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_cell_of_the_table_is_a_formula(store: CaseStore, text: str) -> None:
    case = make_case(1, title=text, patient=text)
    store.add([case])
    store.review(Review(case.case_id, text, "disagree", "", f"{text}", TIME))
    (row,) = rows_of(store.reviews_csv())
    assert row["title"] == row["patient"] == row["reviewer"] == row["note"] == f"'{text}"
    assert row["likeliest"] == row["probability"] == "" and row["advice"] == "waiting"


@given(note=st.text())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_note_survives_the_table(store: CaseStore, note: str) -> None:
    case = make_case(1, case_id="one")
    store.add([case])
    store.review(make_review(case, note=note))
    assert store.reviews("one")[0].note == note
    table = csv.DictReader(io.StringIO(store.reviews_csv(), newline=""))
    assert list(table)[-1]["note"].removeprefix("'") == note.removeprefix("'")


def test_classes_are_known_from_the_study_or_from_the_latest_review(store: CaseStore) -> None:
    known = make_case(0, label="nevus", origin="reference")
    cases = [make_case(number, prediction=make_prediction()) for number in range(1, 5)]
    store.add([known, *cases, make_case(9, sha256="", label="nevus")])
    agreed, corrected, open_case, changed = cases
    store.review(make_review(agreed))
    store.review(make_review(corrected, "disagree", "melanoma"))
    store.review(make_review(open_case, "disagree", ""))
    store.review(make_review(changed))
    store.review(make_review(changed, "disagree", "vascular"))
    assert [(each.case_id, each.label) for each in store.confirmed()] == [
        (known.case_id, "nevus"),
        (agreed.case_id, "nevus"),
        (corrected.case_id, "melanoma"),
        (changed.case_id, "vascular"),
    ]


def test_all_is_there_after_opening_again(path: Path) -> None:
    store = CaseStore(path)
    case = make_case(1, prediction=make_prediction())
    store.add([case])
    store.review(make_review(case))
    store.close()
    store = CaseStore(path)
    assert store.case(case.case_id) == case and len(store.reviews(case.case_id)) == 1
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("viewer.sqlite*")} <= {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()


def test_many_threads_at_once(store: CaseStore) -> None:
    cases = [make_case(number) for number in range(40)]
    store.add(cases)

    def work(case: Case) -> None:
        store.judged(case.case_id, make_prediction())
        store.page(CaseQuery(text="image"), 10)
        store.review(make_review(case))
        assert store.around(case.case_id, CaseQuery(order="title")) != ("", "")

    with ThreadPoolExecutor(8) as workers:
        list(workers.map(work, cases))
    assert len(store.confirmed()) == 40 and not store.waiting(1)


def test_one_viewer_at_a_time(path: Path) -> None:
    store = CaseStore(path)
    with pytest.raises(HistoryError, match="being viewed already"):
        CaseStore(path)
    store.close()
    CaseStore(path).close()


def test_a_damaged_file_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(HistoryError, match="Cannot open"):
        CaseStore(path)
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(HistoryError, match="version 99"):
        CaseStore(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="Cannot keep anything"):
        CaseStore(tmp_path / "file" / "viewer.sqlite")
