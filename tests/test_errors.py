"""Errors have three voices and numbered exit codes, and the docstring draws their tree."""

from __future__ import annotations

import inspect
import re

import pytest

from fedlens import errors
from fedlens.errors import FedLensError, UnreadableImageError


def _all_errors() -> list[type[FedLensError]]:
    return [
        member
        for _, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, FedLensError)
    ]


def test_the_docstring_draws_every_class_under_its_parent() -> None:
    drawn = re.findall(r"^ {4}([│├└─ ]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    stack: list[str] = []
    parents = {}
    for indent, name in drawn:
        depth = len(indent) // 4
        parents[name] = stack[depth - 1] if depth else "Exception"
        stack[depth:] = [name]

    assert parents == {error.__name__: error.__bases__[0].__name__ for error in _all_errors()}


def test_the_docstring_names_every_exit_code() -> None:
    drawn = {name: int(code) for name, code in re.findall(r"(\w+Error) +exit (\d)", errors.__doc__ or "")}
    own = {error.__name__: error.exit_code for error in _all_errors() if "exit_code" in vars(error)}

    assert drawn == own
    assert len(set(own.values())) == len(own)
    assert 0 not in own.values()


def test_subclasses_keep_their_familys_exit_code() -> None:
    assert {error.exit_code for error in _all_errors() if issubclass(error, errors.DataError)} == {3}


@pytest.mark.parametrize(
    ("why", "fix", "text"),
    [
        ("", "", "It broke."),
        ("It was old.", "", "It broke. It was old."),
        ("It was old.", "Buy one.", "It broke. It was old. Buy one."),
    ],
)
def test_the_text_joins_the_voices_that_are_there(why: str, fix: str, text: str) -> None:
    error = FedLensError("It broke.", why=why, fix=fix)

    assert str(error) == text
    assert (error.what, error.why, error.fix) == ("It broke.", why, fix)


def test_an_unreadable_image_names_file_and_reason() -> None:
    error = UnreadableImageError("scan.png", "truncated")

    assert (error.file, error.reason) == ("scan.png", "truncated")
    assert "scan.png" in error.what and "truncated" in error.what
    assert error.fix
