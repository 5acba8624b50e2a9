# SPDX-License-Identifier: Apache-2.0
"""What a file says about its images and tasks beside the nodes: the metadata `codesign.model`."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.errors import InputError
from codesign.spec import Readout

_REMEDY = "write it with codesign export"


@dataclass(frozen=True)
class TaskFacts:
    """One output: its name, the values it predicts per cell, and what the host makes of them."""

    name: str
    classes: int
    readout: Readout


@dataclass(frozen=True)
class ModelFacts:
    """Image value = (pixel - mean) * scale; each patch predicts cells x cells cells."""

    height: int
    width: int
    channels: int
    mean: int
    scale: float
    patch: int
    cells: int
    tasks: tuple[TaskFacts, ...]

    def task(self, name: str) -> TaskFacts:
        """The facts about an output. Raises InputError if there are none."""
        for task in self.tasks:
            if task.name == name:
                return task
        known = ", ".join(t.name for t in self.tasks)
        raise InputError(f"output {name} must be a task of the metadata ({known}), not another; {_REMEDY}")


def parse_facts(data: object) -> ModelFacts:
    """Check the parsed JSON. Raises InputError naming the field that is missing or wrong."""
    top = _object(data, "codesign.model")
    image = _object(top.get("image"), "image")
    tasks = top.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise InputError(f"metadata field tasks must be a list of tasks, not {tasks!r}; {_REMEDY}")
    entries = [_object(task, "tasks") for task in tasks]
    return ModelFacts(
        height=_count(image, "height"),
        width=_count(image, "width"),
        channels=_count(image, "channels"),
        mean=_count(image, "mean"),
        scale=_number(image, "scale"),
        patch=_count(top, "patch"),
        cells=_count(top, "cells"),
        tasks=tuple(TaskFacts(_name(entry), _count(entry, "channels"), _readout(entry)) for entry in entries),
    )


def _readout(data: dict[str, object]) -> Readout:
    value = data.get("readout")
    known = [r.value for r in Readout]
    if value not in known:
        raise InputError(f"metadata field readout must be one of {', '.join(known)}, not {value!r}; {_REMEDY}")
    return Readout(value)


def _object(value: object, field: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InputError(f"metadata field {field} must be an object, not {value!r}; {_REMEDY}")
    return value


def _count(data: dict[str, object], field: str) -> int:
    value = data.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 16:
        raise InputError(f"metadata field {field} must be a whole number in 1..65535, not {value!r}; {_REMEDY}")
    return value


def _number(data: dict[str, object], field: str) -> float:
    value = data.get(field)
    if not isinstance(value, float) or not 0 < value < 1e6:
        raise InputError(f"metadata field {field} must be a positive number, not {value!r}; {_REMEDY}")
    return value


def _name(data: dict[str, object]) -> str:
    value = data.get("name")
    if not isinstance(value, str) or not value.isidentifier():
        raise InputError(f"metadata field name must be a task's name, not {value!r}; {_REMEDY}")
    return value
