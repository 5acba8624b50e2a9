# SPDX-License-Identifier: Apache-2.0
"""Drives a store: LLM-shaped layers along a routing trace, or a bundle's whole graph."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from codesign.errors import CheckError, InputError
from codesign.experts.file.codec import stored_experts
from codesign.experts.file.store import Store
from codesign.experts.run.compute import Batch, Gates, Int8s, Int16s
from codesign.experts.run.foresight import drawn_prediction
from codesign.experts.run.metrics import Metrics, Record, measure
from codesign.experts.run.options import RuntimeOptions
from codesign.experts.run.placement import Placement, check_trace
from codesign.experts.run.reader import Io, Transport
from codesign.experts.run.routing import RoutingTrace, drawn_trace
from codesign.experts.run.runtime import Runtime
from codesign.reference.moe import moe

Progress = Callable[[int, int], None]
"""Called with (batches done, batches in all)."""

PROFILE_TOKENS = 256
"""Tokens of the drawn trace that decides the hot set of a drawn run: of the same popularity, other draws."""
PLANNED_BATCHES = 64
"""Batches that are planned at a time: planning right before a pass finds cold caches, planning all takes memory."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_INPUT_SIGMA = 28.0
_RESIDUAL_SIGMA = 2000.0


@dataclass(frozen=True)
class RunResult:
    """What a run gave: its numbers, and how it really read."""

    metrics: Metrics
    record: Record
    io: Io
    transport: Transport
    pinned_bytes: int
    arena_bytes: int
    checked: int
    """Layers of batches (or tasks of images) that were compared with the reference: all equal."""
    asked: tuple[Io, Transport]
    """What the user asked for."""

    def facts(self) -> dict[str, object]:
        """For --json."""
        return {
            **asdict(self.metrics),
            "io": self.io.value,
            "transport": self.transport.value,
            "arena_bytes": self.arena_bytes,
            "pinned_bytes": self.pinned_bytes,
            "checked": self.checked,
        }

    def notes(self) -> list[tuple[str, str]]:
        """What is said above the numbers: how it was read, what fell back, what was checked."""
        fallen = [
            f"{asked.value} was refused: {real.value}"
            for asked, real in zip(self.asked, (self.io, self.transport), strict=True)
            if asked is not real
        ]
        read = ", ".join([f"{self.io.value}, {self.transport.value}", *fallen])
        arena = f"{self.arena_bytes:,} bytes, {self.pinned_bytes:,} of them pinned"
        return [("reads", read), ("arena", arena), ("checked", compared(self.checked))]


def compared(checked: int) -> str:
    """What is said of so many outputs that were compared with the reference, and found equal."""
    return f"{checked} outputs equal the reference" if checked else "nothing was compared (--check N)"


def parse_budget(text: str, expert_bytes: int) -> int:
    """`200000000`, `200M` (binary), or `50%` of the experts' bytes. Raises InputError for anything else, and for 0."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)(%|[KMG](?:i?B)?|)", text.strip())
    if not found:
        raise InputError(f"budget must be bytes, like 200000000, 200M or 50%, not {text!r}; correct it")
    number, unit = float(found[1]), found[2]
    budget = int(number / 100 * expert_bytes) if unit == "%" else int(number * _UNITS[unit[:1]])
    if budget < 1:
        raise InputError(f"budget must be above 0, not {text!r}; give the bytes that experts may take")
    return budget


def drawn_pair(store: Store, prefill: int, tokens: int, seed: int) -> tuple[RoutingTrace, RoutingTrace]:
    """A skewed trace (a prompt of `prefill` tokens, then `tokens` single ones) and one to choose the hot set from."""
    layer = store.layers[0]
    if prefill < 0 or tokens < 0 or prefill + tokens < 1:
        raise InputError(f"prefill and tokens must be 1 together at least, not {prefill} and {tokens}; ask for tokens")
    batches = ((prefill,) if prefill else ()) + (1,) * tokens
    shape = len(store.layers), layer.num_experts, layer.top_k
    return drawn_trace(*shape, batches, 1000 * seed + 1), drawn_trace(*shape, (PROFILE_TOKENS,), 1000 * seed)


@dataclass(frozen=True)
class Replay:
    """A trace to run along: it routes, the tokens' values are random (seeded).

    `hot`: a trace that decides what is pinned. `recall`: with foresight, the share of the experts that are foreseen, at
    every distance alike. The first `check` batches are compared with the reference, outside the measured time.
    """

    trace: RoutingTrace
    hot: RoutingTrace | None = None
    check: int = 0
    seed: int = 0
    recall: float = 1.0


@dataclass(frozen=True)
class Turn:
    """A batch's turn in a layer. `following`: the layer that comes next; `foreseen`: blocks of those that come."""

    layer: int
    gates: Gates
    following: int | None
    foreseen: Sequence[int]


def turns(replay: Replay, placement: Placement) -> list[list[Turn]]:
    """All turns [batch][layer]. Nothing is foreseen of the batch behind: its tokens are not known yet.

    Raises InputError when the recall is not from 0 to 1.
    """
    trace, ahead = replay.trace, placement.options.foresight
    known = drawn_prediction(trace, replay.recall, replay.seed) if ahead and replay.recall != 1.0 else trace
    made = []
    for batch in range(len(trace.batches)):
        named = [placement.named(n, known.dense_gates(batch, n)) if ahead else [] for n in range(trace.layers)]
        after = [*range(1, trace.layers), 0 if batch + 1 < len(trace.batches) else None]
        made.append(
            [
                Turn(n, trace.dense_gates(batch, n), after[n], list(chain(*named[n + 1 : n + 1 + ahead])))
                for n in range(trace.layers)
            ]
        )
    return made


def run_trace(
    store: Store, replay: Replay, options: RuntimeOptions, progress: Progress = lambda done, total: None
) -> RunResult:
    """Every batch of a trace through every layer.

    Raises InputError when trace and store do not fit, CheckError when a bit differs.
    """
    batches = replay.trace.batches
    check_trace(store, replay.trace)
    outputs = [np.empty((max(batches), layer.embed_dim), dtype=np.int16) for layer in store.layers]
    kept: list[tuple[int, Batch, Int16s]] = []
    with Runtime(store, options, replay.hot) as runtime:
        coming = planned(runtime, replay, outputs)
        coming = chain([next(coming)], coming)  # the first ones before the clock runs
        runtime.warm()
        runtime.start()
        for number, (tokens, passes) in enumerate(zip(batches, coming, strict=True)):
            runtime.run([one.native for one in passes])
            if number < replay.check:
                kept += [one.copy() for one in passes]
            runtime.record.tokens += tokens
            progress(number + 1, len(batches))
        result = result_of(runtime, runtime.stop(), len(kept))
    for layer, batch, found in kept:
        judge_layer(store, layer, batch, found)
    return result


@dataclass(frozen=True)
class Planned:
    """A batch's pass through a layer, whose `y` is there when it was run; and what the native module needs for it."""

    layer: int
    batch: Batch
    y: Int16s
    native: Any

    def copy(self) -> tuple[int, Batch, Int16s]:
        """Its layer, and copies of what it computed on and gave."""
        return self.layer, replace(self.batch, residual=self.batch.residual.copy()), self.y.copy()


def planned(runtime: Runtime, replay: Replay, outputs: Sequence[Int16s]) -> Iterator[list[Planned]]:
    """Each batch's passes, by layer; its outputs are at the begin of `outputs` [layer][tokens, D].

    A layer adds to what the one before gave; the first one, and one of another width, to random values.
    """
    inputs = drawn_inputs(runtime.store, max(replay.trace.batches), replay.seed)

    def passes_of(tokens: int, coming: Sequence[Turn]) -> list[Planned]:
        passes: list[Planned] = []
        for turn in coming:
            x, drawn = inputs[turn.layer]
            y, residual = outputs[turn.layer][:tokens], drawn[:tokens]
            if passes and passes[-1].y.shape == residual.shape:
                residual = passes[-1].y
            batch = runtime.batch(x[:tokens], turn.gates, residual)
            native = runtime.plan(turn.layer, batch, y, turn.following, turn.foreseen)
            passes.append(Planned(turn.layer, batch, y, native))
        return passes

    all_turns = list(zip(replay.trace.batches, turns(replay, runtime.placement), strict=True))
    for begin in range(0, len(all_turns), PLANNED_BATCHES):
        yield from [passes_of(*one) for one in all_turns[begin : begin + PLANNED_BATCHES]]


def result_of(runtime: Runtime, record: Record, checked: int) -> RunResult:
    """What a run gave, while its reader still lives."""
    reader, pinned = runtime.reader, runtime.placement.pinned_bytes
    asked = runtime.options.reader.io, runtime.options.reader.transport
    arena = runtime.placement.plan.end
    return RunResult(measure(record), record, reader.io, reader.transport, pinned, arena, checked, asked)


def drawn_inputs(store: Store, tokens: int, seed: int) -> list[tuple[Int8s, Int16s]]:
    """x and residual of each layer for so many tokens, seeded."""
    made = []
    for number, layer in enumerate(store.layers):
        draws = np.random.default_rng((seed, number))
        shape = tokens, layer.embed_dim
        x = np.clip(np.rint(draws.normal(0, _INPUT_SIGMA, shape)), -128, 127).astype(np.int8)
        made.append((x, np.rint(draws.normal(0, _RESIDUAL_SIGMA, shape)).astype(np.int16)))
    return made


def judge_layer(store: Store, number: int, batch: Batch, found: Int16s) -> None:
    """Raise CheckError when a layer's output [T, D] is not the reference's."""
    layer = store.layers[number]
    x, gates, residual = (array.astype(np.int64) for array in (batch.x, batch.gates, batch.residual))
    experts, constants = stored_experts(store, number), store.constants(number)
    wanted = moe(layer, store.kind, constants, experts, x, gates, residual, batch.widths)
    if not np.array_equal(wanted, found):
        token, column = np.argwhere(wanted != found)[0]
        raise CheckError(
            f"layer {layer.name} must equal the reference, not {found[token, column]} for {wanted[token, column]} at"
            f" token {token}, column {column}; report this, with the store and the command"
        )
