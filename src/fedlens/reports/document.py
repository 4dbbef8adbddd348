"""A document for people who have to approve something: one content, as an HTML page and as Markdown.

Both say the same, since both are made from the same blocks. Text may come from file names and other
machines: HTML is escaped by the template, Markdown here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedlens.reports.headline import Tile
from fedlens.reports.page import Picture, render

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$!])")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[str, ...]
    kind: str = "items"


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    rows: tuple[tuple[str, str], ...]
    kind: str = "facts"


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row, and whose others are figures.

    Attributes:
        label: What it shows, for those who do not see it and above it in Markdown.
        columns: Headings.
        rows: As many cells as columns each.
        note: Below it.
    """

    label: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    kind: str = "table"


@dataclass(frozen=True)
class Chart:
    """A chart on the page; in Markdown, which has none, the same as a table."""

    picture: Picture
    caption: str
    table: Table
    kind: str = "chart"


@dataclass(frozen=True)
class Folded:
    """Names with their values that few readers open."""

    summary: str
    rows: tuple[tuple[str, str], ...]
    kind: str = "folded"


Block = Text | Items | Facts | Table | Chart | Folded


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Attributes:
        name: Anchor on the page; ASCII letters.
        title: Heading.
        blocks: In order.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """The whole.

    Attributes:
        kind: What it is, e.g. ``Model card``.
        title: What it is about.
        created: Date and time as text.
        lead: One paragraph.
        warning: Heading and text of what nobody may overlook.
        tiles: A few large numbers.
        sections: In order.
    """

    kind: str
    title: str
    created: str
    lead: str
    warning: tuple[str, str]
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]


def as_html(document: Document) -> str:
    """A page that loads nothing; the same document gives the same page."""
    context = {"report": document, "headline": document.lead, "tiles": document.tiles}
    # A percent sign alone on a line would be read as somebody else's.
    return render("document.html.j2", context).replace(" %", "\u00a0%")


def as_markdown(document: Document) -> str:
    """Markdown with tables, as most tools read it."""
    lines = [
        f"# {document.kind}: {plain(document.title)}",
        "",
        *([f"*{plain(document.created)}*", ""] if document.created else []),
        plain(document.lead),
        "",
        f"> **{plain(document.warning[0])}** {plain(document.warning[1])}",
        "",
        *(f"- {plain(tile.name)}: **{plain(tile.value)}** ({plain(tile.note)})" for tile in document.tiles),
    ]
    for section in document.sections:
        lines += ["", f"## {plain(section.title)}"]
        for block in section.blocks:
            lines += ["", *_markdown(block)]
    text = "\n".join(lines) + "\n"
    # A file name can bring half a surrogate pair, which no file can hold.
    return text.encode("utf-8", "replace").decode()


def plain(text: str) -> str:
    """Text that Markdown shows as it stands, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _markdown(block: Block) -> Iterator[str]:
    if isinstance(block, Text):
        yield plain(block.text)
    elif isinstance(block, Items):
        yield from (f"- {plain(item)}" for item in block.items)
    elif isinstance(block, Facts):
        yield from _table(("", ""), block.rows, figures=False)
    elif isinstance(block, Folded):
        yield f"**{plain(block.summary)}**"
        yield ""
        yield from _table(("", ""), block.rows, figures=False)
    else:
        table = block.table if isinstance(block, Chart) else block
        yield f"**{plain(table.label)}**"
        yield ""
        yield from _table(table.columns, table.rows, figures=True)
        if table.note:
            yield ""
            yield plain(table.note)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, figures: bool) -> Iterator[str]:
    yield "| " + " | ".join(map(plain, columns)) + " |"
    yield "|---|" + ("---:|" if figures else "---|") * (len(columns) - 1)
    for row in rows:
        yield "| " + " | ".join(map(plain, row)) + " |"
