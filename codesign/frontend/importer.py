# SPDX-License-Identifier: Apache-2.0
"""`import_qonnx`: from a file to the graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from onnx import ModelProto

from codesign.errors import InputError
from codesign.frontend.facts import ModelFacts, parse_facts
from codesign.frontend.load import load_model
from codesign.frontend.lower import Lowering
from codesign.frontend.model import fold
from codesign.spec import Graph

FACTS_KEY = "codesign.model"


def import_qonnx(path: Path | str) -> Graph:
    """The integer graph of a QONNX file. Raises InputError, one line, for a file or a model that cannot be taken."""
    path = Path(path)
    proto = load_model(path)
    facts = _facts(path, proto)
    return Lowering(fold(path, proto), facts).run(path.stem)


def read_metadata(path: Path | str) -> Mapping[str, str]:
    """The file's metadata strings (`codesign.metrics` and `codesign.recipe` among them). Raises InputError."""
    return MappingProxyType(_metadata(load_model(Path(path))))


def _metadata(proto: ModelProto) -> dict[str, str]:
    """Metadata of the file and of its graph: ONNX writers use the first place, qonnx the second."""
    return {prop.key: prop.value for prop in (*proto.graph.metadata_props, *proto.metadata_props)}


def _facts(path: Path, proto: ModelProto) -> ModelFacts:
    text = _metadata(proto).get(FACTS_KEY)
    if text is None:
        raise InputError(
            f"{path} must have the metadata {FACTS_KEY!r}, which is missing; write it with codesign export"
        )
    try:
        return parse_facts(json.loads(text))
    except (json.JSONDecodeError, RecursionError):
        raise InputError(f"metadata {FACTS_KEY} of {path} must be JSON; write it with codesign export") from None
