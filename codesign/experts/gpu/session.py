# SPDX-License-Identifier: Apache-2.0
"""Drives a store's layers along a routing trace on a GPU (on a processor: `codesign.experts.run.session`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from codesign.experts.gpu.blocks import HostBlocks
from codesign.experts.gpu.runtime import GpuRuntime
from codesign.experts.run.compute import Batch, Int16s
from codesign.experts.run.foresight import foreseen_blocks
from codesign.experts.run.metrics import Metrics, Record, measure
from codesign.experts.run.options import RuntimeOptions, choose
from codesign.experts.run.routing import RoutingTrace
from codesign.experts.run.runtime import check_trace
from codesign.experts.run.session import Progress, compared, drawn_inputs, judge_layer
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
    trace: RoutingTrace,
    options: RuntimeOptions,
    hot: RoutingTrace | None = None,
    check: int = 0,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    recall: float = 1.0,
    ops: Ops | None = None,
) -> GpuRunResult:
    """Every batch of a trace through every layer: the trace routes, the tokens' values are random (seeded).

    The first `check` batches are compared with the reference, outside the measured time; for them the processor waits
    after every layer. Raises InputError when trace and store do not fit, CheckError when a bit differs.
    """
    check_trace(blocks.store, trace)
    inputs = drawn_inputs(blocks.store, max(trace.batches), seed)
    runtime = GpuRuntime(blocks, options, hot, ops)
    names = foreseen_blocks(runtime.named, trace, options.foresight, recall, seed)
    runtime.warm()
    runtime.start()
    kept: list[tuple[int, Batch, Int16s]] = []
    last = len(blocks.store.layers) - 1
    for number, tokens in enumerate(trace.batches):
        for layer in range(last + 1):
            x, residual = inputs[layer]
            gates = trace.dense_gates(number, layer)
            batch = Batch(x[:tokens], gates, residual[:tokens], choose(blocks.kind, gates, options))
            following = layer + 1 if layer < last else (0 if number + 1 < len(trace.batches) else None)
            y = runtime.layer(layer, batch, following, names[number][layer])
            if number < check:
                kept.append((layer, batch, y.cpu().numpy()))
        runtime.record.counts.tokens += tokens
        progress(number + 1, len(trace.batches))
    record = runtime.stop()
    for layer, batch, found in kept:
        judge_layer(blocks.store, layer, batch, found)
    pinned = sum(blocks.sizes[key] for key in runtime.plan.pinned)
    return GpuRunResult(blocks.device.name, measure(record), record, runtime.plan.end, pinned, len(kept))
