# SPDX-License-Identifier: Apache-2.0
"""How nodes become steps of a native plan: what is fused, what shares memory, and what operators write into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from codesign.engines.cpu_weights import Key, Native, Packed
from codesign.errors import InputError
from codesign.kernels.layout import padded
from codesign.reference.functions import Ints
from codesign.spec import INT8, INT16, UINT16, Constant, IntType, LinearParams, Node, OpKind, Requant, TensorSpec

DTYPES: Mapping[IntType, type[np.integer[Any]]] = MappingProxyType({INT8: np.int8, INT16: np.int16, UINT16: np.uint16})
"""How a plan keeps a tensor's elements."""

TENSORS: Mapping[OpKind, tuple[IntType, ...]] = MappingProxyType(
    {
        OpKind.LINEAR: (INT8,),
        OpKind.GELU: (INT16,),
        OpKind.ADD: (INT16, INT16),
        OpKind.NORM: (INT16,),
        OpKind.ATTENTION: (INT8, INT8, INT8),
        OpKind.ROUTE: (INT8,),
        OpKind.EXPERTS: (INT8, UINT16, INT16),
    }
)
"""The types of an operator's first inputs, which are tensors; the rest are weights, which are packed."""

_ROWS, _COLUMNS = 16, 64
"""A plan's tensors have multiples of these."""


@dataclass(frozen=True)
class Step:
    """A node, and the linear layer before it when both are computed as one."""

    node: Node
    linear: Node | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """What the step reads."""
        if self.linear is None:
            return self.node.inputs
        return (*self.linear.inputs, *(name for name in self.node.inputs if name != self.linear.output.name))


def fuse(nodes: Sequence[Node], kept: Iterable[str]) -> tuple[Step, ...]:
    """GELU and ADD join the LINEAR they follow, unless others, or `kept`, want what lies between."""
    wanted = set(kept)
    readers = [name for node in nodes for name in node.inputs]
    linear = {node.output.name: node for node in nodes if node.kind is OpKind.LINEAR and node.output.type == INT16}
    joined: dict[str, Node] = {}
    for node in nodes:
        if node.kind in (OpKind.GELU, OpKind.ADD):
            between = node.inputs[-1]
            if between in linear and readers.count(between) == 1 and between not in wanted:
                joined[node.name] = linear[between]
    absorbed = {node.name for node in joined.values()}
    return tuple(Step(node, joined.get(node.name)) for node in nodes if node.name not in absorbed)


@dataclass
class Builder:
    """What the operators of `codesign.engines.cpu` write into."""

    plan: Native
    packed: Packed
    constants: Mapping[str, Constant]
    tensors: dict[str, int]
    active: dict[str, int]
    """Of each tensor of gates that a router made: experts a token."""

    def tensor(self, name: str) -> int:
        """The plan's number of a tensor."""
        return self.tensors[name]

    def values(self, name: str) -> Ints:
        """A constant's values. Raises InputError when it is computed: weights must be known beforehand."""
        if name not in self.constants:
            raise InputError(f"{name} must be a constant, not computed, to be packed; check how the graph was made")
        return self.constants[name].values

    def dense(self, weight: str, bias: str, requant: Requant) -> Native:
        """A linear layer, packed."""
        return self.packed.layer(Key(weight, bias, 0, 8, requant), self.values(weight), self.values(bias))


@dataclass
class _Slots:
    """Memory for tensors that are not needed at the same time."""

    free: list[tuple[int, int]] = field(default_factory=list)
    """Bytes and number,"""
    sizes: list[int] = field(default_factory=list)
    """and bytes by number."""

    def take(self, size: int) -> int:
        """The smallest free one that is large enough, else a new one."""
        fitting = [slot for slot in sorted(self.free) if slot[0] >= size]
        if fitting:
            self.free.remove(fitting[0])
            return fitting[0][1]
        self.sizes.append(size)
        return len(self.sizes) - 1

    def give(self, slot: int) -> None:
        """It may be used again."""
        self.free.append((self.sizes[slot], slot))


def _bytes(spec: TensorSpec) -> int:
    rows, columns = spec.shape
    return padded(rows, _ROWS) * padded(columns, _COLUMNS) * np.dtype(DTYPES[spec.type]).itemsize


def place(steps: Sequence[Step], specs: Mapping[str, TensorSpec], fixed: Iterable[str]) -> dict[str, int]:
    """A slot for each tensor; those of `fixed` keep their own for ever."""
    slots, places = _Slots(), {}
    for name in fixed:
        places[name] = slots.take(_bytes(specs[name]))
    keep = set(places)
    last = {name: i for i, step in enumerate(steps) for name in step.reads}
    for i, step in enumerate(steps):
        name = step.node.output.name
        if name not in places:
            places[name] = slots.take(_bytes(specs[name]))
        for read in dict.fromkeys((*step.reads, name)):
            if read in places and read not in keep and last.get(read, i) == i:
                slots.give(places[read])
    return places


def operands(steps: Sequence[Step], constants: Mapping[str, Constant]) -> tuple[str, ...]:
    """Constants that are read as tensors: matrices beside the weights."""
    found = dict.fromkeys(
        name
        for step in steps
        for node in (step.node, step.linear)
        if node is not None
        for name in node.inputs[: len(TENSORS[node.kind])]
        if name in constants
    )
    return tuple(found)


def requant_of(step: Step) -> Requant:
    """The rescaling of the linear layer of a step."""
    node = step.linear or step.node
    assert isinstance(node.params, LinearParams)
    return node.params.requant
