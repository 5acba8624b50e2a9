# SPDX-License-Identifier: Apache-2.0
"""Drives a store's layers along a routing trace on a GPU (on a processor: `codesign.experts.session`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.errors import CheckError
from codesign.experts.codec import stored_experts
from codesign.experts.compute import Batch, Int16s
from codesign.experts.gpu import GpuRuntime
from codesign.experts.gpu_store import HostBlocks
from codesign.experts.metrics import Metrics, Record, measure
from codesign.experts.routing import RoutingTrace
from codesign.experts.runtime import RuntimeOptions, check_trace, choose
from codesign.experts.store import Store
from codesign.kernels.gpu.ops import Ops
from codesign.reference.moe import moe

_INPUT_SIGMA = 28.0
_RESIDUAL_SIGMA = 2000.0


@dataclass(frozen=True)
class GpuRunResult:
    """What a run gave, and where."""

    device: str
    metrics: Metrics
    record: Record
    arena_bytes: int
    pinned_blocks: int
    checked: int
    """Layers of batches that were compared with the reference: all equal."""


def run_gpu_trace(
    blocks: HostBlocks,
    trace: RoutingTrace,
    options: RuntimeOptions,
    hot: RoutingTrace | None = None,
    check: int = 0,
    seed: int = 0,
    ops: Ops | None = None,
) -> GpuRunResult:
    """Every batch of a trace through every layer: the trace routes, the tokens' values are random (seeded).

    The first `check` batches are compared with the reference, outside the measured time; for them the processor waits
    after every layer. Raises InputError when trace and store do not fit, CheckError when a bit differs.
    """
    check_trace(blocks.store, trace)
    runtime = GpuRuntime(blocks, options, hot, ops)
    runtime.warm()
    runtime.start()
    kept: list[tuple[int, Batch, Int16s]] = []
    last = len(blocks.store.layers) - 1
    for number, tokens in enumerate(trace.batches):
        for layer, shape in enumerate(blocks.store.layers):
            draws = np.random.default_rng((seed, number, layer))
            size = tokens, shape.embed_dim
            x = np.clip(np.rint(draws.normal(0, _INPUT_SIGMA, size)), -128, 127).astype(np.int8)
            residual = np.rint(draws.normal(0, _RESIDUAL_SIGMA, size)).astype(np.int16)
            gates = trace.dense_gates(number, layer)
            batch = Batch(x, gates, residual, choose(blocks.kind, gates, options))
            following = layer + 1 if layer < last else (0 if number + 1 < len(trace.batches) else None)
            y = runtime.layer(layer, batch, following)
            if number < check:
                kept.append((layer, batch, y.cpu().numpy()))
        runtime.record.counts.tokens += tokens
    record = runtime.stop()
    for layer, batch, found in kept:
        _judge(blocks.store, layer, batch, found)
    name, arena = blocks.device.name, runtime.plan.end
    return GpuRunResult(name, measure(record), record, arena, len(runtime.plan.pinned), len(kept))


def _judge(store: Store, number: int, batch: Batch, found: Int16s) -> None:
    layer = store.layers[number]
    x, gates, residual = (array.astype(np.int64) for array in (batch.x, batch.gates, batch.residual))
    experts, constants = stored_experts(store, number), store.constants(number)
    wanted = moe(layer, store.kind, constants, experts, x, gates, residual, batch.widths)
    if not np.array_equal(wanted, found):
        token, column = np.argwhere(wanted != found)[0]
        raise CheckError(
            f"layer {layer.name} must equal the reference, not {found[token, column]} for {wanted[token, column]} at"
            f" token {token}, column {column}; report this, with the store and the device"
        )
