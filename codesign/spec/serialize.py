# SPDX-License-Identifier: Apache-2.0
"""A graph as two files: `graph.json` (structure, parameters) and `graph.safetensors` (constants), exact both ways.

The JSON mirrors the dataclasses field by field: a reader refuses a field that is missing, unknown or of another type.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from codesign.errors import InputError, reason
from codesign.spec.graph import Constant, Graph, ImageSpec, Node, TaskOutput
from codesign.spec.ops import PARAMS_OF, OpKind
from codesign.spec.types import IntType, TensorSpec

FORMAT = "codesign-graph-1"
_REMEDY = "generate it again"
_TOP = ("format", "name", "image", "input", "constants", "nodes", "outputs")


def save_graph(graph: Graph, json_path: Path, tensors_path: Path) -> None:
    """Write a graph. Raises InputError if a file cannot be written; then neither file is left half written."""
    content = {"format": FORMAT, **{name: _encode(getattr(graph, name)) for name in _TOP[1:]}}
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    # safetensors writes memory as it lies: an array must be in C order
    tensors = {c.spec.name: c.values.astype(storage_type(c.spec.type), order="C") for c in graph.constants}
    _write_all(((tensors_path, save_tensors(tensors)), (json_path, text.encode())))


def load_graph(json_path: Path, tensors_path: Path) -> Graph:
    """Read a graph. Raises InputError, one line naming file and field, for what `save_graph` does not write."""
    content = _read_json(json_path)
    where = json_path.name
    _check_keys(content, set(_TOP), where)
    if content["format"] != FORMAT:
        raise InputError(f"{json_path} must have format {FORMAT!r}, not {_short(content['format'])}; {_REMEDY}")
    specs = _decode(tuple[TensorSpec, ...], content["constants"], f"{where}: constants")
    tensors = _read_tensors(tensors_path, specs)
    constants = tuple(Constant(s, tensors[i].astype(np.int64)) for i, s in enumerate(specs))
    return Graph(
        name=_decode(str, content["name"], f"{where}: name"),
        image=_decode(ImageSpec, content["image"], f"{where}: image"),
        input=_decode(TensorSpec, content["input"], f"{where}: input"),
        constants=constants,
        nodes=tuple(_decode_node(n, f"{where}: nodes[{i}]") for i, n in enumerate(_list(content["nodes"], where))),
        outputs=_decode(tuple[TaskOutput, ...], content["outputs"], f"{where}: outputs"),
    )


def storage_type(kind: IntType) -> np.dtype[Any]:
    """The smallest NumPy integer type that holds an integer type."""
    width = next(w for w in (8, 16, 32, 64) if w >= kind.bit_width)
    return np.dtype(f"{'int' if kind.signed else 'uint'}{width}")


# -- writing ---------------------------------------------------------------------------------------------------------


def _encode(value: object) -> Any:
    if isinstance(value, Constant):
        return _encode(value.spec)
    if isinstance(value, IntType):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    return value


def _write_all(contents: tuple[tuple[Path, bytes], ...]) -> None:
    parts = [(path.with_name(f".{path.name}.{os.getpid()}.part"), path, content) for path, content in contents]
    try:
        for part, _, content in parts:
            part.write_bytes(content)
        for part, path, _ in parts:
            part.replace(path)
    except OSError as error:
        raise InputError(f"{error.filename} must be writable: {reason(error)}; choose another folder") from None
    finally:
        for part, _, _ in parts:
            with suppress(OSError):  # it was renamed, or could not be made
                part.unlink()


# -- reading ---------------------------------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} must be readable: {reason(error)}; {_REMEDY}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} must be whole JSON, not truncated or damaged; {_REMEDY}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object, not {type(content).__name__}; {_REMEDY}")
    return content


def _read_tensors(path: Path, specs: tuple[TensorSpec, ...]) -> list[npt.NDArray[Any]]:
    try:
        tensors = load_tensors(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} must be readable: {reason(error)}; {_REMEDY}") from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path} must be a whole safetensors file, not damaged ({error}); {_REMEDY}") from None
    names = {spec.name for spec in specs}
    for name in sorted(names ^ tensors.keys()):
        verb = "must hold" if name in names else "must not hold"
        raise InputError(f"{path} {verb} tensor {name!r} of its graph.json; {_REMEDY}")
    for spec in specs:
        if tensors[spec.name].dtype != storage_type(spec.type):
            found = tensors[spec.name].dtype
            raise InputError(f"tensor {spec.name} in {path} must be {storage_type(spec.type)}, not {found}; {_REMEDY}")
    return [tensors[spec.name] for spec in specs]


def _decode_node(data: object, where: str) -> Node:
    content = _object(data, where)
    _check_keys(content, {f.name for f in fields(Node)}, where)
    kind = _decode(OpKind, content["kind"], f"{where}.kind")
    params = next(p for k, p in PARAMS_OF if k is kind)
    return Node(
        name=_decode(str, content["name"], f"{where}.name"),
        kind=kind,
        inputs=_decode(tuple[str, ...], content["inputs"], f"{where}.inputs"),
        output=_decode(TensorSpec, content["output"], f"{where}.output"),
        params=_decode(params, content["params"], f"{where}.params"),
    )


def _decode(kind: Any, data: object, where: str) -> Any:
    """Read `data` as `kind`: str, int, float, an Enum, an IntType, a dataclass, or a tuple of those."""
    if get_origin(kind) is tuple:
        (item, _) = get_args(kind)
        return tuple(_decode(item, v, f"{where}[{i}]") for i, v in enumerate(_list(data, where)))
    if kind is IntType:
        return _decode_type(data, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        known = {member.value: member for member in kind}
        if not isinstance(data, str) or data not in known:
            raise InputError(f"{where} must be one of {', '.join(known)}, not {data!r}; {_REMEDY}")
        return known[data]
    if is_dataclass(kind):
        content, hints = _object(data, where), get_type_hints(kind)
        _check_keys(content, set(hints), where)
        values = {name: _decode(hint, content[name], f"{where}.{name}") for name, hint in hints.items()}
        return kind(**values)  # type: ignore[operator]
    return _decode_plain(kind, data, where)


def _decode_plain(kind: type, data: object, where: str) -> object:
    if kind is float and isinstance(data, (int, float)) and not isinstance(data, bool) and math.isfinite(data):
        return float(data)
    if kind is not float and type(data) is kind:
        return data
    raise InputError(f"{where} must be {kind.__name__}, not {_short(data)}; {_REMEDY}")


def _decode_type(data: object, where: str) -> IntType:
    text = data if isinstance(data, str) else ""
    digits = text.removeprefix("u").removeprefix("int")
    if not digits.isdecimal() or not digits.isascii() or len(digits) > 2:
        raise InputError(f"{where} must be an integer type such as int8 or uint16, not {_short(data)}; {_REMEDY}")
    kind = IntType(int(digits), signed=not text.startswith("u"))
    if str(kind) != text:
        raise InputError(f"{where} must be an integer type such as int8 or uint16, not {_short(data)}; {_REMEDY}")
    return kind


def _object(data: object, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"{where} must be an object, not {_short(data)}; {_REMEDY}")
    return data


def _list(data: object, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise InputError(f"{where} must be a list, not {_short(data)}; {_REMEDY}")
    return data


def _check_keys(content: dict[str, Any], wanted: set[str], where: str) -> None:
    for name in sorted(wanted ^ content.keys()):
        what = "must have" if name in wanted else "must not have"
        raise InputError(f"{where} {what} the field {name!r}; {_REMEDY}")


def _short(data: object) -> str:
    text = repr(data)
    return text if len(text) <= 40 else text[:37] + "..."
