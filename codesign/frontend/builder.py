# SPDX-License-Identifier: Apache-2.0
"""Collects integer nodes: what is equal exists once, and names say the place in the network and the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from codesign.frontend.model import Ints
from codesign.spec import (
    Constant,
    Graph,
    ImageSpec,
    IntType,
    Node,
    OpKind,
    OpParams,
    Readout,
    TaskOutput,
    TensorSpec,
)

_ConstantKey = tuple[IntType, tuple[int, ...], bytes, float]
_NodeKey = tuple[OpKind, tuple[str, ...], OpParams]


@dataclass(frozen=True)
class Head:
    """Where a task ends: `tensor` is the builder's handle."""

    task: str
    tensor: str
    classes: int
    cells: int
    first_row: int
    readout: Readout


class GraphBuilder:
    """Builds one graph. Tensors are known by handles (`%3`) until `finish` names them."""

    def __init__(self, image: TensorSpec) -> None:
        self._image = image
        self._constants: list[Constant] = []
        self._nodes: list[Node] = []
        self._specs = {image.name: image}
        self._wanted: dict[str, str] = {}  # handle -> name without task
        self._known_constants: dict[_ConstantKey, str] = {}
        self._known_nodes: dict[_NodeKey, str] = {}

    @property
    def input(self) -> str:
        """The handle of the graph's input."""
        return self._image.name

    def spec(self, handle: str) -> TensorSpec:
        """Shape, type and scale behind a handle."""
        return self._specs[handle]

    def constant(self, name: str, values: Ints, kind: IntType, scale: float = 1.0) -> str:
        """Add a constant, or find the equal one. A constant whose unit differs by channel has scale 1."""
        key = (kind, values.shape, values.tobytes(), scale)
        if key not in self._known_constants:
            spec = TensorSpec(self._handle(name), values.shape, kind, scale)
            self._constants.append(Constant(spec, np.array(values, dtype=np.int64, order="C")))
            self._specs[spec.name] = spec
            self._known_constants[key] = spec.name
        return self._known_constants[key]

    def node(
        self,
        name: str,
        kind: OpKind,
        inputs: tuple[str, ...],
        params: OpParams,
        shape: tuple[int, ...],
        out: IntType,
        scale: float,
    ) -> str:
        """Add a node and return its output's handle, or find the node that computes the same from the same."""
        key = (kind, inputs, params)
        if key not in self._known_nodes:
            spec = TensorSpec(self._handle(name), shape, out, scale)
            self._nodes.append(Node(spec.name, kind, inputs, spec, params))
            self._specs[spec.name] = spec
            self._known_nodes[key] = spec.name
        return self._known_nodes[key]

    def finish(self, name: str, image: ImageSpec, heads: Sequence[Head]) -> Graph:
        """The graph with its final names: a head is called like its task, what only one task uses starts with it."""
        names = self._names(heads)
        constants = tuple(Constant(replace(c.spec, name=names[c.spec.name]), c.values) for c in self._constants)
        nodes = tuple(
            Node(
                names[n.name],
                n.kind,
                tuple(names[i] for i in n.inputs),
                replace(n.output, name=names[n.name]),
                n.params,
            )
            for n in self._nodes
        )
        outputs = tuple(TaskOutput(h.task, names[h.tensor], h.classes, h.cells, h.first_row, h.readout) for h in heads)
        return Graph(name, image, self._image, constants, nodes, outputs)

    def _handle(self, name: str) -> str:
        handle = f"%{len(self._wanted)}"
        self._wanted[handle] = name
        return handle

    def _names(self, heads: Sequence[Head]) -> dict[str, str]:
        names = {self._image.name: self._image.name}
        for head in heads:
            names.setdefault(head.tensor, head.task)
        taken = set(names.values())
        users = self._users(heads)
        for handle, wanted in self._wanted.items():
            if handle not in names:
                tasks = users.get(handle, set())
                prefix = f"{next(iter(tasks))}." if len(tasks) == 1 and len(heads) > 1 else ""
                names[handle] = _unused(prefix + wanted, taken)
        return names

    def _users(self, heads: Sequence[Head]) -> dict[str, set[str]]:
        users: dict[str, set[str]] = {}
        for head in heads:
            users.setdefault(head.tensor, set()).add(head.task)
        for node in reversed(self._nodes):
            for name in node.inputs:
                users.setdefault(name, set()).update(users.get(node.name, set()))
        return users


def _unused(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}.{number}"
    taken.add(name)
    return name
