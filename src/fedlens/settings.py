"""Settings files: TOML in, frozen and validated settings out; an unknown key is refused by name."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fedlens.errors import SettingsError


class Settings(BaseModel):
    """Base of all settings: frozen, and no key is silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Model = TypeVar("Model", bound=Settings)


def load_settings(model: type[Model], path: Path, kind: str, *, fix: str) -> Model:
    """Read and validate a settings file.

    Args:
        model: Its settings class.
        path: Of the file.
        kind: What to call it, e.g. ``study file``.
        fix: What to do when there is none.

    Raises:
        SettingsError: Missing file, broken TOML, unknown key (with the nearest known one), or a
            value out of range; names the file, key and value.
    """
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise SettingsError(f"No {kind} {path}.", fix=fix) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.", fix="Mend that line.") from error
    except OSError as error:
        raise SettingsError(f"Cannot read the {kind} {path}: {error.strerror}.", fix=fix) from error
    return validated(model, content, str(path))


def validated(model: type[Model], content: dict[str, Any], source: str) -> Model:
    """Settings out of TOML that was read already.

    Raises:
        SettingsError: As :func:`load_settings`; ``source`` is named.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise SettingsError(f"{source}: {_describe(error, model)}") from error


def _describe(error: ValidationError, model: type[BaseModel]) -> str:
    """Every problem in one line each, unknown keys with the nearest known name."""
    lines = []
    for problem in error.errors():
        place = [str(part) for part in problem["loc"]]
        name = ".".join(place)
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place[-1], _known_keys(model, place[:-1]), n=1, cutoff=0.5)
            hint = f"; did you mean {'.'.join([*place[:-1], near[0]])}?" if near else ""
            lines.append(f"unknown key {name}{hint}")
        elif problem["type"] == "missing":
            lines.append(f"{name} is missing")
        else:
            lines.append(f"{name} = {problem['input']!r}: {problem['msg']}")
    return "; ".join(lines) + "."


def _known_keys(model: type[BaseModel], place: list[str]) -> list[str]:
    fields = model.model_fields
    for part in place:
        annotation = fields[part].annotation if part in fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        fields = annotation.model_fields
    return list(fields)
