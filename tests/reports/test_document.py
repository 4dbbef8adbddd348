"""One content, two forms: nothing is lost in either, and no name breaks out of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fedlens.reports.document import (
    Chart,
    Document,
    Facts,
    Folded,
    Items,
    Section,
    Table,
    Text,
    as_html,
    as_markdown,
    plain,
)
from fedlens.reports.headline import Tile
from fedlens.reports.page import Picture

from .conftest import Page, flat

EVIL = 'x|y <script>alert(1)</script> [a](b) *c* "d" \ud800'


@pytest.fixture(name="document")
def _document() -> Document:
    table = Table("Counts", ("Hospital", "Images"), (("A", "1,234"), ("B", "51.0 (40.1–60.2)")), "A note.")
    picture = Picture("a chart", "data:image/svg+xml;base64,AA", "data:image/svg+xml;base64,BB")
    blocks = (
        Text("A paragraph of 10 %."),
        Items(("first item", "second item")),
        Facts((("Network", "small"),)),
        table,
        Chart(picture, "A caption.", dataclasses.replace(table, label="Counts again", note="")),
        Folded("More", (("seed", "0"),)),
    )
    return Document(
        kind="Model card",
        title="chest",
        created="today",
        lead="What it is.",
        warning=("Careful", "Read this."),
        tiles=(Tile("Accuracy", "90.0 %", "95 %: 80.0–95.0 %"),),
        sections=(Section("one", "One", blocks),),
    )


def test_both_forms_hold_every_part(document: Document) -> None:
    page, text = Page(as_html(document)), as_markdown(document).replace("\\", "")
    parts = (
        "chest", "today", "What it is.", "Careful", "Read this.", "90.0 %", "A paragraph of 10 %.",
        "first item", "second item", "small", "Counts", "1,234", "A note.", "More", "seed",
    )  # fmt: skip

    assert page.open == []
    for part in parts:
        assert part in flat(page.text) and part in text, part
    assert page.all("img")[0]["alt"] == "a chart" and "A caption." in page.text
    assert "**Counts again**" in text
    assert [section["id"] for section in page.all("section")] == ["one"]
    assert "model card" in page.text and "report" not in page.text


def test_markdown_tables_are_whole(document: Document) -> None:
    lines = as_markdown(document).splitlines()
    start = lines.index("| Hospital | Images |")

    assert lines[start + 1 : start + 4] == ["|---|---:|", "| A | 1,234 |", "| B | 51.0 (40.1–60.2) |"]
    assert lines[start - 1] == lines[start + 4] == ""


def test_intervals_stand_below_their_figure(document: Document) -> None:
    assert "<td>51.0<small>40.1–60.2</small></td>" in as_html(document)


def test_names_cannot_break_out(document: Document, tmp_path: Path) -> None:
    blocks = (Text(EVIL), Table(EVIL, (EVIL, EVIL), ((EVIL, EVIL),), EVIL), Items((EVIL,)))
    evil = dataclasses.replace(document, title=EVIL, sections=(Section("one", EVIL, blocks),))

    page = Page(as_html(evil))
    text = as_markdown(evil)

    assert page.open == [] and not page.all("script") and "alert(1)" in page.text
    assert "<script" not in text.replace("\\<", "")
    rows = [line for line in text.splitlines() if line.startswith("| x")]
    assert rows and all(line.replace("\\|", "").count("|") == 3 for line in rows)
    (tmp_path / "card.md").write_text(text)


def test_plain_text_stays_on_one_line() -> None:
    assert plain("a\n# b `c`") == "a \\# b \\`c\\`"
