# SPDX-License-Identifier: Apache-2.0
"""TOML files that a person writes (recipes, boards), read into checked models; every fault is told in one line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from codesign.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def read_text(path: Path, kind: str) -> str:
    """The text of a file. `kind` says what it should be ("recipe"). Raises InputError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{kind} {path} must be a readable text file: {error}; give the path of a {kind}") from None


def parse_toml(model: type[Model], text: str, origin: str, example: str) -> Model:
    """Check TOML text against `model`. `origin` names it, `example` a good one, in the InputError for a bad one."""
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{origin} must be TOML: {error}; correct that line") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ": ".join((origin, ".".join(str(part) for part in first["loc"]))).removesuffix(": ")
        what = {"extra_forbidden": "is not a known key", "missing": "is missing"}.get(first["type"])
        what = what or f"{first['msg'].removeprefix('Value error, ')} (found {_short(first['input'])})"
        raise InputError(f"{where}: {what}; see {example} for a complete one") from None


def _short(value: object) -> str:
    text = "a section" if isinstance(value, (dict, BaseModel)) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
