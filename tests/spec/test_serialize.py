# SPDX-License-Identifier: Apache-2.0
"""Graphs survive their files exactly, and every damaged file is refused in one line."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from codesign.errors import InputError
from codesign.spec import Graph, IntType
from codesign.spec.serialize import load_graph, save_graph, storage_type
from tests.graphs import GraphShape, random_graph

GRAPH = random_graph(np.random.default_rng(0))


def equal(a: Graph, b: Graph) -> bool:
    constants = [(c.spec, c.values.dtype, c.values.tobytes()) for c in a.constants]
    return constants == [(c.spec, c.values.dtype, c.values.tobytes()) for c in b.constants] and (
        (a.name, a.image, a.input, a.nodes, a.outputs) == (b.name, b.image, b.input, b.nodes, b.outputs)
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "graph.json", tmp_path / "graph.safetensors"
    save_graph(GRAPH, *paths)
    return paths


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(2, 7),
    heads=st.integers(1, 3),
    experts=st.integers(1, 5),
    ternary=st.booleans(),
    depth=st.integers(2, 3),
)
def test_round_trip(
    tmp_path: Path, seed: int, tokens: int, heads: int, experts: int, ternary: bool, depth: int
) -> None:
    shape = GraphShape(tokens=tokens, heads=heads, head_dim=4, experts=experts, top_k=1, ternary=ternary, depth=depth)
    graph = random_graph(np.random.default_rng(seed), shape)
    paths = tmp_path / "g.json", tmp_path / "g.safetensors"
    save_graph(graph, *paths)
    assert equal(load_graph(*paths), graph)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.json", "g.safetensors"]


def test_saving_twice_gives_the_same_bytes(files: tuple[Path, Path]) -> None:
    before = [p.read_bytes() for p in files]
    save_graph(load_graph(*files), *files)
    assert [p.read_bytes() for p in files] == before


def test_constants_lie_in_the_smallest_type(files: tuple[Path, Path]) -> None:
    tensors = load(files[1].read_bytes())
    assert tensors["block1.experts.w1"].dtype == np.int8
    assert tensors["block0.norm1.gain"].dtype == np.int16
    assert tensors["block0.q.bias"].dtype == np.int32
    assert storage_type(IntType(9, signed=False)) == np.uint16


def test_column_major_constants_survive(tmp_path: Path) -> None:
    """safetensors writes an array's memory as it lies."""
    constants = tuple(type(c)(c.spec, np.asfortranarray(c.values)) for c in GRAPH.constants)
    graph = Graph(GRAPH.name, GRAPH.image, GRAPH.input, constants, GRAPH.nodes, GRAPH.outputs)
    paths = tmp_path / "g.json", tmp_path / "g.safetensors"
    save_graph(graph, *paths)
    assert equal(load_graph(*paths), GRAPH)


def node(content: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(n for n in content["nodes"] if n["kind"] == kind)


CASES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda c: c.pop("image"), r"graph\.json must have the field 'image'; .*"),
    (lambda c: c.update(extra=1), r"graph\.json must not have the field 'extra'; .*"),
    (lambda c: c.update(format="2"), r".*graph\.json must have format 'codesign-graph-1', not '2'; .*"),
    (lambda c: c.update(name=3), r"graph\.json: name must be str, not 3; .*"),
    (lambda c: c.update(nodes={}), r"graph\.json must be a list, not \{\}; .*"),
    (lambda c: c["nodes"].append(1), r"graph\.json: nodes\[30\] must be an object, not 1; .*"),
    (lambda c: c["image"].update(height="64"), r"graph\.json: image\.height must be int, not '64'; .*"),
    (lambda c: c["image"].update(height=64.0), r"graph\.json: image\.height must be int, not 64\.0; .*"),
    (lambda c: c["image"].update(height=True), r"graph\.json: image\.height must be int, not True; .*"),
    (lambda c: c["input"].update(type="int99"), r"bit_width must be in 1\.\.64, not 99; .*"),
    (lambda c: c["input"].update(type="float32"), r"graph\.json: input\.type must be an integer type such as .*; .*"),
    (lambda c: c["input"].update(type="int08"), r"graph\.json: input\.type must be an integer type such as .*; .*"),
    (lambda c: c["input"].update(scale="x"), r"graph\.json: input\.scale must be float, not 'x'; .*"),
    (lambda c: c["input"].update(scale=float("nan")), r"graph\.json: input\.scale must be float, not nan; .*"),
    (lambda c: c["input"].update(shape=[8, "48"]), r"graph\.json: input\.shape\[1\] must be int, not '48'; .*"),
    (lambda c: node(c, "linear").update(kind="conv"), r"graph\.json: nodes\[0\]\.kind must be one of linear, .*; .*"),
    (lambda c: node(c, "gelu").update(kind="norm"), r"graph\.json: nodes\[11\]\.params must .* the field .*; .*"),
    (lambda c: node(c, "norm")["params"].update(shift=[1]), r"graph\.json: nodes\[2\]\.params\.shift must be int, .*"),
    (lambda c: node(c, "linear")["params"]["requant"].update(rounding="up"), r".*rounding must be one of half_up, .*"),
    (lambda c: node(c, "linear")["params"]["requant"]["shift"].pop(), r"requant must have as many multipliers .*"),
    (
        lambda c: node(c, "experts")["params"].update(fc1=7),
        r"graph\.json: nodes\[\d+\]\.params\.fc1 must be a list, .*",
    ),
    (lambda c: c["constants"].pop(), r".*graph\.safetensors must not hold tensor .*"),
    (lambda c: c["constants"][0].update(name="x"), r".*graph\.safetensors must .* tensor .*"),
    (lambda c: c["constants"][0].update(type="int8"), r"tensor embed\.position in .* must be int8, not int16; .*"),
    (
        lambda c: c["constants"][0].update(shape=[1]),
        r"constant embed\.position must have shape \(1,\), not \(9, 16\); .*",
    ),
    (lambda c: c["outputs"][0].update(tensor="x"), r"task semseg must end in a tensor of the graph, not 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), CASES)
def test_damaged_json(edit: Callable[[dict[str, Any]], Any], message: str, files: tuple[Path, Path]) -> None:
    content = copy.deepcopy(json.loads(files[0].read_text()))
    edit(content)
    files[0].write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        load_graph(*files)
    assert re.fullmatch(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("which", [0, 1])
def test_truncated(part: float, which: int, files: tuple[Path, Path]) -> None:
    content = files[which].read_bytes()
    files[which].write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError, match=r"must be (whole JSON|a whole safetensors file)") as caught:
        load_graph(*files)
    assert "\n" not in str(caught.value)


def test_wrong_tensor_type_and_range(files: tuple[Path, Path]) -> None:
    tensors = load(files[1].read_bytes())
    files[1].write_bytes(save(tensors | {"embed.position": tensors["embed.position"].astype(np.float32)}))
    with pytest.raises(InputError, match=r"tensor embed\.position in .* must be int16, not float32"):
        load_graph(*files)
    files[1].write_bytes(save(tensors | {"block1.experts.w1": tensors["block1.experts.w1"] + np.int8(5)}))
    with pytest.raises(InputError, match=r"constant block1\.experts\.w1 must fit int2"):
        load_graph(*files)


@pytest.mark.parametrize("which", [0, 1])
def test_missing_file(which: int, files: tuple[Path, Path]) -> None:
    files[which].unlink()
    with pytest.raises(InputError, match="must be readable: No such file or directory"):
        load_graph(*files)


def test_unwritable_folder_leaves_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match=r"must be writable: .*; choose another folder"):
        save_graph(GRAPH, blocked / "g.json", tmp_path / "g.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
