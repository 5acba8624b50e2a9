# SPDX-License-Identifier: Apache-2.0
"""Models whose feature maps do not fit on chip: every layer runs over blocks of token rows.

Only K and V of one attention are resident. The residual stream lies in DRAM, in scratch rows behind the output buffer's
tensors. Per attention there are two phases over all blocks: one computes K and V; the other computes Q, attends, and
goes on until the next attention needs keys. What both need (the norm before Q, K and V) is computed twice rather than
spilled. Experts see one block's tokens at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.errors import InputError
from codesign.schedule.design import MachineSize
from codesign.schedule.isa import Space, Unit
from codesign.schedule.lower import Context, Work, compute, load_rows, store
from codesign.schedule.place import Group, Place, Placement, Section, in_place_operand, place, row_words
from codesign.schedule.stream import MemoryImage, ceil_div
from codesign.spec import INT8, AddParams, Graph, OpKind

ROW_STEP = 16
"""Blocks start at multiples of this many rows: then every row block starts on a line of every buffer."""


@dataclass(frozen=True)
class Phase:
    """Groups that run over all blocks before the next phase starts."""

    section: Section
    loads: tuple[str, ...]
    """Residual tensors that come from scratch rows (or the input) at the start of a block."""
    stores: tuple[str, ...]
    """Residual tensors that go to scratch rows at its end."""
    keys: tuple[str, ...]
    """K and V of the attention that this phase writes or reads."""


@dataclass(frozen=True)
class Tiling:
    """A task cut into phases over blocks of `rows` rows, and where its tensors lie."""

    rows: int
    tokens: int
    phases: tuple[Phase, ...]
    placements: tuple[Placement, ...]
    resident: Placement
    scratch_of: tuple[tuple[str, str], ...]
    """Which scratch rows (by the name of their first tensor) a residual tensor lies in."""

    @property
    def act_words(self) -> int:
        """Depth of ACT that it needs."""
        return max(p.act_words for p in self.placements)

    @property
    def res_words(self) -> int:
        """Depth of RES that it needs."""
        return max(p.res_words for p in self.placements)

    @property
    def blocks(self) -> int:
        """Blocks of rows."""
        return ceil_div(self.tokens, self.rows)


def _needed(groups: tuple[Group, ...], names: tuple[str, ...]) -> tuple[Group, ...]:
    """The groups that compute `names` from residual tensors: int8 results, followed backwards."""
    wanted = set(names)
    kept = []
    for group in reversed(groups):
        if group.output.name in wanted and group.output.type == INT8 and group.first.kind is not OpKind.ATTENTION:
            kept.append(group)
            wanted.update(group.inputs)
    return tuple(reversed(kept))


def _sequence(groups: tuple[Group, ...]) -> list[tuple[tuple[Group, ...], tuple[str, ...]]]:
    """(groups, K and V) of every phase."""
    attentions = [i for i, g in enumerate(groups) if g.first.kind is OpKind.ATTENTION]
    before = {i: _needed(groups[:i], groups[i].first.inputs) for i in attentions}
    fed = {id(g) for part in before.values() for g in part}
    rest = [g for g in groups[: attentions[0]] if id(g) not in fed]
    phases: list[tuple[tuple[Group, ...], tuple[str, ...]]] = [(tuple(rest), ())]
    for i, following in zip(attentions, [*attentions[1:], len(groups)], strict=True):
        query, key, value = groups[i].first.inputs
        phases.append((_needed(before[i], (key, value)), (key, value)))
        tail = tuple(g for g in groups[i + 1 : following] if id(g) not in fed)
        phases.append(((*_needed(before[i], (query,)), groups[i], *tail), (key, value)))
    return phases


def _check(graph: Graph, groups: tuple[Group, ...]) -> None:
    if all(g.first.kind is not OpKind.ATTENTION for g in groups):
        raise InputError(f"model {graph.name} must fit on chip, for it has no attention to tile over; use fewer tokens")
    for node in (n for g in groups for n in g.nodes):
        if isinstance(node.params, AddParams) and node.params.row_offset:
            raise InputError(
                f"node {node.name} must add at row 0 in a model that is tiled over tokens, not at row"
                f" {node.params.row_offset}; use fewer tokens, or no class token"
            )


def _roots(groups: tuple[Group, ...]) -> dict[str, str]:
    """The first residual tensor in whose place each residual tensor lies."""
    roots: dict[str, str] = {}
    for group in groups:
        target = in_place_operand(group)
        if target is not None:
            roots[group.output.name] = roots.get(target, target)
    return roots


def tile(graph: Graph, groups: tuple[Group, ...], output: str, rows: int, simd: int, pe: int) -> Tiling:
    """Cuts a task into phases over blocks of `rows` rows. Raises InputError for a model that cannot be."""
    _check(graph, groups)
    constants = {c.spec.name for c in graph.constants}
    tokens = graph.spec_of(output).shape[0]
    sequence = _sequence(groups)
    phases = []
    for at, (part, keys) in enumerate(sequence):
        made = {n.output.name for g in part for n in g.nodes}
        used = {name for g in part for name in g.inputs} - constants - made - set(keys)
        later = {name for other, _ in sequence[at + 1 :] for g in other for name in g.inputs}
        stores = tuple(g.output.name for g in part if g.output.name in later and g.output.type != INT8)
        kept = (*stores, *([output] if output in made else []))
        section = Section(part, tuple(sorted(used)), kept, keys, rows)
        phases.append(Phase(section, tuple(sorted(used)), stores, keys))
    resident, act_base = _resident(graph, phases, simd, pe)
    placements = tuple(place(graph, p.section, simd, pe, act_base) for p in phases)
    return Tiling(rows, tokens, tuple(phases), placements, resident, tuple(_roots(groups).items()))


def _resident(graph: Graph, phases: list[Phase], simd: int, pe: int) -> tuple[Placement, int]:
    """K and V of every attention, all at the bottom of ACT; and how many words that takes."""
    places, top = [], 0
    for phase in phases:
        base = 0
        for name in phase.keys:
            count, columns = graph.spec_of(name).shape
            at = Place(Unit.ACT, base, row_words(Unit.ACT, columns, simd, pe), count, columns)
            places.append((name, at))
            base += at.words
        top = max(top, base)
    return Placement(tuple(dict(places).items()), top, 0), top


def lower_tiled(graph: Graph, size: MachineSize, tiling: Tiling, image: MemoryImage) -> tuple[Work, ...]:
    """All steps of a tiled task."""
    work: list[Work] = []
    roots = dict(tiling.scratch_of)
    offsets: dict[str, int] = {}
    free = 0
    for phase, placement in zip(tiling.phases, tiling.placements, strict=True):
        for name in phase.stores:
            if roots.get(name, name) not in offsets:
                offsets[roots.get(name, name)] = free
                free += ceil_div(tiling.tokens * placement.of(name).stride * size.res_beats, size.ports)
        for block in range(tiling.blocks):
            work += _block(graph, size, tiling, phase, placement, image, block, offsets)
    return tuple(work)


def _block(
    graph: Graph,
    size: MachineSize,
    tiling: Tiling,
    phase: Phase,
    placement: Placement,
    image: MemoryImage,
    block: int,
    offsets: dict[str, int],
) -> list[Work]:
    """One phase over one block of rows."""
    first = block * tiling.rows
    rows = min(tiling.rows, tiling.tokens - first)
    ctx = Context(graph, size, _view(tiling, phase, placement, first, rows), image)
    roots = dict(tiling.scratch_of)

    def line(name: str) -> int:
        at = placement.of(name)
        beats = first * at.stride * (size.act_beats if at.unit is Unit.ACT else size.res_beats)
        assert beats % size.ports == 0
        return offsets.get(roots.get(name, name), 0) + beats // size.ports

    work = []
    for name in phase.loads:
        if name == graph.input.name:
            work.append(Work(load_rows(ctx, name, Space.INPUT, line(name)), ctx))
        else:
            key = f"{roots.get(name, name)}@{block}"
            work.append(Work(load_rows(ctx, name, Space.OUTPUT, line(name)), ctx, scratch=True, reads=key))
    work += compute(ctx, phase.section.groups, first)
    for name in phase.stores:
        key = f"{roots.get(name, name)}@{block}"
        work.append(Work(store(ctx, name, line(name))[0], ctx, scratch=True, writes=key))
    return work


def _view(tiling: Tiling, phase: Phase, placement: Placement, first: int, rows: int) -> Placement:
    """The places of one block: its own rows of the block's tensors; K and V whole where they are read."""
    places = {n: Place(p.unit, p.base, p.stride, rows, p.columns) for n, p in placement.places}
    writes = {g.output.name for g in phase.section.groups}
    for name in phase.keys:
        at = tiling.resident.of(name)
        own = Place(at.unit, at.base + first * at.stride, at.stride, rows, at.columns)
        places[name] = own if name in writes else at
    return Placement(tuple(places.items()), placement.act_words, placement.res_words)
