# SPDX-License-Identifier: Apache-2.0
"""Groups a task's nodes into macro-instructions and places their tensors in the on-chip memories.

A LINEAR takes the GELU or ADD that alone reads its result with it. int8 tensors live in ACT, int16 tensors in RES,
gates in the expert queues. ADD and EXPERTS work in place on the residual stream. Space is reused when a tensor is dead.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.errors import InputError
from codesign.schedule.isa import Unit
from codesign.schedule.stream import ceil_div
from codesign.spec import INT8, INT16, Graph, Node, OpKind, TensorSpec

FUSED = frozenset({OpKind.GELU, OpKind.ADD})
"""Operators that are always part of the LINEAR before them."""


_OVERLAP_STEPS = 1
"""Steps after a tensor's last reader during which that reader may still run: a NORM overlaps with the array's
instructions before and after it; the array's own instructions read and write in order."""


@dataclass(frozen=True)
class Group:
    """Nodes that one macro-instruction computes, in order; the last one's output is materialised."""

    nodes: tuple[Node, ...]

    @property
    def first(self) -> Node:
        """The node that names the opcode."""
        return self.nodes[0]

    @property
    def output(self) -> TensorSpec:
        """The tensor that reaches a memory."""
        return self.nodes[-1].output

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all tensors and constants read, except those that stay inside the group."""
        inner = {n.output.name for n in self.nodes}
        return tuple(name for n in self.nodes for name in n.inputs if name not in inner)


def group_nodes(nodes: tuple[Node, ...], output: str) -> tuple[Group, ...]:
    """Fuses GELU and ADD into the LINEAR before them. Raises InputError where the machine cannot follow."""
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    groups: list[Group] = []
    fused: set[str] = set()
    for node in nodes:
        if node.name in fused:
            continue
        if node.kind in FUSED:
            raise InputError(
                f"node {node.name} ({node.kind.value}) must follow a LINEAR that nothing else reads;"
                " rewrite the model so"
            )
        following = readers.get(node.output.name, [])
        take = (
            node.kind is OpKind.LINEAR
            and node.output.type == INT16
            and node.output.name != output
            and len(following) == 1
            and (
                following[0].kind is OpKind.GELU
                or (following[0].kind is OpKind.ADD and following[0].inputs[1] == node.output.name)
            )
        )
        if take:
            fused.add(following[0].name)
        groups.append(Group((node, following[0]) if take else (node,)))
    return tuple(groups)


def unit_of(spec: TensorSpec, kind: OpKind | None) -> Unit:
    """The memory a tensor lives in."""
    if kind is OpKind.ROUTE:
        return Unit.QUEUE
    if spec.type == INT8:
        return Unit.ACT
    if spec.type == INT16:
        return Unit.RES
    raise InputError(f"tensor {spec.name} must be int8 or int16, not {spec.type}; requantize it")


@dataclass(frozen=True)
class Place:
    """A tensor's place: `base` and words a row (`stride`) of `unit`, over `rows` rows."""

    unit: Unit
    base: int
    stride: int
    rows: int
    columns: int

    @property
    def words(self) -> int:
        """Words it occupies."""
        return self.rows * self.stride


def row_words(unit: Unit, columns: int, simd: int, pe: int) -> int:
    """Words of a row: results are written in tiles of `pe` lanes, whole ones."""
    tiles = ceil_div(columns, pe)
    return ceil_div(tiles * pe, simd) if unit is Unit.ACT else tiles


@dataclass(frozen=True)
class Life:
    """A tensor's claim on a memory from step `first` to step `last`, both inclusive."""

    name: str
    unit: Unit
    rows: int
    columns: int
    first: int
    last: int


@dataclass(frozen=True)
class Placement:
    """All places of one task, and the depths they need."""

    places: tuple[tuple[str, Place], ...]
    act_words: int
    res_words: int

    def has(self, name: str) -> bool:
        """Whether the tensor has a place; gates have none, they live in the queues."""
        return any(n == name for n, _ in self.places)

    def of(self, name: str) -> Place:
        """The place of a tensor."""
        return next(place for n, place in self.places if n == name)


def hidden_name(node: Node) -> str:
    """The name of the scratch tensor that holds an expert's hidden activations."""
    return f"{node.name}.hidden"


def in_place_operand(group: Group) -> str | None:
    """The residual tensor that the group overwrites, if it does."""
    last = group.nodes[-1]
    if last.kind is OpKind.ADD:
        return last.inputs[0]
    return last.inputs[2] if last.kind is OpKind.EXPERTS else None


@dataclass(frozen=True)
class Section:
    """Groups that are placed together, over `rows` token rows at a time (None: all of each tensor's).

    `sources`: tensors that lie in memory before the first group; `kept`: tensors that must outlive the last one;
    `resident`: tensors that have a place elsewhere.
    """

    groups: tuple[Group, ...]
    sources: tuple[str, ...]
    kept: tuple[str, ...]
    resident: tuple[str, ...] = ()
    rows: int | None = None


def _lives(graph: Graph, section: Section) -> tuple[list[Life], dict[str, str]]:
    groups = section.groups
    last_use = dict.fromkeys(section.kept, len(groups))
    for step, group in enumerate(groups):
        for name in group.inputs:
            last_use[name] = max(last_use.get(name, 0), step)
    lives: dict[str, Life] = {}
    alias: dict[str, str] = {}

    def claim(spec: TensorSpec, unit: Unit, step: int) -> None:
        rows = spec.shape[0] if section.rows is None else section.rows
        lives[spec.name] = Life(spec.name, unit, rows, spec.shape[1], step, last_use.get(spec.name, step))

    for name in section.sources:
        spec = graph.spec_of(name)
        claim(spec, unit_of(spec, None), 0)
    for step, group in enumerate(groups):
        target = in_place_operand(group)
        if group.first.kind is OpKind.EXPERTS:
            w1 = graph.spec_of(group.first.inputs[3])
            rows = group.output.shape[0] if section.rows is None else section.rows
            lives[hidden_name(group.first)] = Life(hidden_name(group.first), Unit.ACT, rows, w1.shape[1], step, step)
        if target is None:
            if group.first.kind is not OpKind.ROUTE and group.output.name not in section.resident:
                claim(group.output, unit_of(group.output, group.first.kind), step)
            continue
        if last_use[target] != step:
            raise InputError(
                f"node {group.nodes[-1].name} must be the last reader of the residual {target}; rewrite the model so"
            )
        root = alias.get(target, target)
        if root not in lives:
            claim(graph.spec_of(target), Unit.RES, step)
        alias[group.output.name] = root
        life = lives[root]
        lives[root] = Life(root, life.unit, life.rows, life.columns, life.first, last_use.get(group.output.name, step))
    return list(lives.values()), alias


def place(graph: Graph, section: Section, simd: int, pe: int, act_base: int = 0) -> Placement:
    """First-fit placement of a section's tensors in ACT (words of `simd`, from `act_base`) and RES (words of `pe`)."""
    lives, alias = _lives(graph, section)
    placed: list[tuple[Life, Place]] = []
    for life in sorted(lives, key=lambda x: (x.first, x.name)):
        stride = row_words(life.unit, life.columns, simd, pe)
        busy = sorted(
            (p.base, p.base + p.words)
            for other, p in placed
            if other.unit is life.unit
            and other.first <= life.last + _OVERLAP_STEPS
            and life.first <= other.last + _OVERLAP_STEPS
        )
        base = act_base if life.unit is Unit.ACT else 0
        for low, high in busy:
            if base + life.rows * stride <= low:
                break
            base = max(base, high)
        placed.append((life, Place(life.unit, base, stride, life.rows, life.columns)))
    places = {life.name: p for life, p in placed}
    places.update({name: places[root] for name, root in alias.items()})

    def depth(unit: Unit) -> int:
        return max((p.base + p.words for _, p in placed if p.unit is unit), default=1)

    act = max(depth(Unit.ACT), act_base) + 1  # a spare word for windows
    return Placement(tuple(places.items()), act, depth(Unit.RES))


def whole(graph: Graph, groups: tuple[Group, ...], output: str) -> Section:
    """The section of a task whose tensors all stay on chip."""
    return Section(groups, (graph.input.name,), (output,))
