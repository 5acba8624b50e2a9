# SPDX-License-Identifier: Apache-2.0
"""Drives a store's layers along a routing trace on a GPU (on a processor: `codesign.experts.run.session`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from codesign.experts.gpu.blocks import HostBlocks
from codesign.experts.gpu.runtime import GpuRuntime
from codesign.experts.run.compute import Batch, Int16s
from codesign.experts.run.metrics import Metrics, Record, measure
from codesign.experts.run.options import RuntimeOptions, choose
from codesign.experts.run.placement import check_trace
from codesign.experts.run.session import Progress, Replay, compared, drawn_inputs, judge_layer, turns
from codesign.kernels.gpu.ops import Ops


@dataclass(frozen=True)
class GpuRunResult:
    """What a run gave, and where."""

    device: str
    metrics: Metrics
    record: Record
    arena_bytes: int
    pinned_bytes: int
    checked: int
    """Layers of batches that were compared with the reference: all equal."""

    def facts(self) -> dict[str, object]:
        """For --json."""
        return {
            **asdict(self.metrics),
            "device": self.device,
            "arena_bytes": self.arena_bytes,
            "pinned_bytes": self.pinned_bytes,
            "checked": self.checked,
        }

    def notes(self) -> list[tuple[str, str]]:
        """What is said above the numbers: where it ran, what was checked."""
        arena = f"{self.arena_bytes:,} bytes of the device, {self.pinned_bytes:,} of them pinned"
        return [("device", self.device), ("arena", arena), ("checked", compared(self.checked))]


def run_gpu_trace(
    blocks: HostBlocks,
    replay: Replay,
    options: RuntimeOptions,
    progress: Progress = lambda done, total: None,
    ops: Ops | None = None,
) -> GpuRunResult:
    """Every batch of a trace through every layer; the processor waits after those that are compared.

    Raises InputError when trace and store do not fit, CheckError when a bit differs.
    """
    batches = replay.trace.batches
    check_trace(blocks.store, replay.trace)
    inputs = drawn_inputs(blocks.store, max(batches), replay.seed)
    runtime = GpuRuntime(blocks, options, replay.hot, ops)
    coming = turns(replay, runtime.placement)
    runtime.warm()
    runtime.start()
    kept: list[tuple[int, Batch, Int16s]] = []
    for number, tokens in enumerate(batches):
        for turn in coming[number]:
            x, residual = inputs[turn.layer]
            batch = Batch(x[:tokens], turn.gates, residual[:tokens], choose(blocks.kind, turn.gates, options))
            y = runtime.layer(turn.layer, batch, turn.following, turn.foreseen)
            if number < replay.check:
                kept.append((turn.layer, batch, y.cpu().numpy()))
        runtime.record.counts.tokens += tokens
        progress(number + 1, len(batches))
    record = runtime.stop()
    for layer, batch, found in kept:
        judge_layer(blocks.store, layer, batch, found)
    placement = runtime.placement
    name, arena, pinned = blocks.device.name, placement.plan.end, placement.pinned_bytes
    return GpuRunResult(name, measure(record), record, arena, pinned, len(kept))
