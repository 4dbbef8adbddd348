"""A study file to start from: every key with its default, and what it means.

Keys, defaults and explanations are read from the settings classes, so the file cannot fall behind them.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from fedlens.errors import SettingsError
from fedlens.files import write_text
from fedlens.study import Study

_WIDTH = 100
_UNSET = {"output": '"runs/my-study"', "start": '"other-run/model"'}


def new_study(file: Path, data: Path, *, name: str = "", overwrite: bool = False) -> Path:
    """Write a commented study file with every key at its default.

    Args:
        file: To be written; ends with ``.toml``.
        data: Study folder made by an import; need not exist yet. Written relative to the file where
            the two share a folder.
        name: Of the study; the file's own name when empty.
        overwrite: Replace an existing file.

    Returns:
        ``file``.

    Raises:
        SettingsError: ``file`` exists already, or ends otherwise.
    """
    if file.suffix != ".toml":
        raise SettingsError(
            f"A study file is TOML, and {file} ends otherwise.", fix=f"Name it {file.stem}.toml."
        )
    if file.exists() and not overwrite:
        raise SettingsError(f"{file} exists already.", fix="Choose another name, or allow --overwrite.")
    write_text(
        file, study_text(name or re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem), _from_folder(data, file.parent))
    )
    return file


def study_text(name: str, data: str) -> str:
    """The content of such a file for a study ``name`` over the study folder ``data``."""
    given = {"name": name, "folder": data}
    tables = {key: field.annotation for key, field in Study.model_fields.items()}
    lines = ["# A FedLens study. Every key is at its default: delete what you do not change.", ""]
    lines += _keys(Study, given)
    for key, table in tables.items():
        if isinstance(table, type) and issubclass(table, BaseModel):
            lines += ["", f"# {_summary(table)}", f"[{key}]", *_keys(table, given)]
    return "\n".join(lines) + "\n"


def _from_folder(path: Path, folder: Path) -> str:
    path, folder = path.absolute(), folder.absolute()
    near = path.is_relative_to(folder) or path.is_relative_to(folder.parent)
    return Path(os.path.relpath(path, folder)).as_posix() if near else path.as_posix()


def _keys(model: type[BaseModel], given: Mapping[str, str]) -> list[str]:
    explanations = _explanations(model)
    lines = []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        if key in explanations:
            lines += textwrap.wrap(explanations[key], _WIDTH, initial_indent="# ", subsequent_indent="# ")
        value = given[key] if field.is_required() else field.default
        lines.append(f"# {key} = {_UNSET[key]}" if value is None else f"{key} = {_toml(value)}")
    return lines


def _toml(value: object) -> str:
    """JSON is TOML for text, numbers, truth values and lists of these; tables are empty by default."""
    return json.dumps(value)


def _summary(model: type[BaseModel]) -> str:
    return _plain((inspect.getdoc(model) or "").partition("\n")[0])


def _explanations(model: type[BaseModel]) -> dict[str, str]:
    """Key to explanation, out of the ``Attributes`` of a settings class's docstring."""
    text = (inspect.getdoc(model) or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE)
    return {key: _plain(" ".join(explanation.split())) for key, explanation in entries}


def _plain(text: str) -> str:
    """Docstring text without code marks: words that may stand as values are quoted, the rest is left bare."""
    return re.sub(r"``(.+?)``", r"\1", re.sub(r"``([\w-]+)``", r'"\1"', text))
