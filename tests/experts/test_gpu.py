# SPDX-License-Identifier: Apache-2.0
"""Experts streamed to a GPU give the reference's bits, whatever the format, schedule and budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from codesign.cli import app
from codesign.errors import InputError
from codesign.experts.command import Source, run_store
from codesign.experts.gpu.blocks import HostBlocks
from codesign.experts.gpu.runtime import GpuRuntime
from codesign.experts.gpu.session import run_gpu_trace
from codesign.experts.run.compute import Batch, Where
from codesign.experts.run.metrics import Kind, measure
from codesign.experts.run.options import RuntimeOptions
from codesign.experts.run.routing import RoutingTrace, drawn_trace
from codesign.experts.run.schedule import Order, Schedule
from codesign.experts.run.session import Replay
from codesign.spec.moe import ExpertFormat
from tests.experts.streaming import batch_of, judged, layer_of, make_store
from tests.gpu import TILES, ops_of

SCHEDULES = [Schedule(order, hits) for order in Order for hits in (False, True)]
BATCHES = ((0, 1), (1, 1), (0, 9), (1, 9))
"""(layer, tokens), one after the other through one runtime."""
HOT = drawn_trace(2, 6, 2, (64,), 5)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[ExpertFormat, HostBlocks]:
    folder = tmp_path_factory.mktemp("stores")
    made = {}
    for kind in ExpertFormat:
        layers = layer_of("a"), layer_of("b", dim=33, hidden=140, gated=False)
        made[kind] = HostBlocks(make_store(folder / kind.value, kind, layers), ops_of().device)
    return made


_EXPECTED: dict[tuple[Path, int, int], tuple[Batch, np.ndarray]] = {}


def expected(blocks: HostBlocks, number: int, tokens: int) -> tuple[Batch, np.ndarray]:
    key = blocks.store.path, number, tokens
    if key not in _EXPECTED:
        batch = batch_of(blocks.store, number, tokens, seed=3)
        _EXPECTED[key] = batch, judged(blocks.store, number, batch)
    return _EXPECTED[key]


def run_all(
    blocks: HostBlocks,
    options: RuntimeOptions,
    size: str = "large",
    foreseen: Sequence[int] = (),
    hot: RoutingTrace | None = HOT,
) -> GpuRuntime:
    runtime = GpuRuntime(blocks, options, hot, ops_of(TILES[size]))
    runtime.warm()
    runtime.start()
    for at, (number, tokens) in enumerate(BATCHES):
        batch, wanted = expected(blocks, number, tokens)
        following = BATCHES[at + 1][0] if at + 1 < len(BATCHES) else None
        found = runtime.layer(number, batch, following, foreseen).cpu().numpy()
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, wanted, err_msg=f"{number} {tokens}")
    return runtime


def least(blocks: HostBlocks) -> int:
    with pytest.raises(InputError, match=r"^budget must be at least \d+ bytes") as caught:
        GpuRuntime(blocks, RuntimeOptions(1), None, ops_of())
    return int(str(caught.value).split()[5])


@pytest.mark.parametrize("kind", ExpertFormat)
def test_formats(stores: dict[ExpertFormat, HostBlocks], kind: ExpertFormat) -> None:
    blocks = stores[kind]
    record = run_all(blocks, RuntimeOptions(blocks.bytes // 2), "small").stop()
    assert record.pairs == sum(int((expected(blocks, *one)[0].gates > 0).sum()) for one in BATCHES)
    assert record.reads
    assert {read.bytes for read in record.reads} <= set(blocks.sizes.values())


def test_named_blocks(stores: dict[ExpertFormat, HostBlocks]) -> None:
    """Of both layers, in two orders; what is not used changes no bit."""
    blocks = stores[ExpertFormat.NESTED]
    names = list(range(len(blocks.sizes)))
    for named in (names, names[::-1]):
        for budget in (least(blocks), blocks.bytes // 2):
            record = run_all(blocks, RuntimeOptions(budget), foreseen=named).stop()
            assert record.foreseen == record.blocks - len(_demand(blocks))


def _demand(blocks: HostBlocks) -> set[tuple[int, int]]:
    """(expert, level) of what the first batch reads: nothing was named before it."""
    batch = expected(blocks, *BATCHES[0])[0]
    widths = np.where(batch.gates > 0, batch.widths, 0)
    return {(e, v) for v, width in enumerate(blocks.kind.widths) for e in np.flatnonzero((widths >= width).any(axis=0))}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_schedules_and_budgets(stores: dict[ExpertFormat, HostBlocks], schedule: Schedule) -> None:
    blocks = stores[ExpertFormat.NESTED]
    for budget in (least(blocks), blocks.bytes // 2):
        run_all(blocks, RuntimeOptions(budget, schedule))


def test_all_that_fits_is_copied_once(stores: dict[ExpertFormat, HostBlocks]) -> None:
    blocks = stores[ExpertFormat.INT8]
    record = run_all(blocks, RuntimeOptions(blocks.bytes, pin=0.0), hot=None).stop()
    copied = [read.key for read in record.reads]
    assert len(copied) == len(set(copied))
    metrics = measure(record)
    assert 0 < metrics.hit_rate < 1
    assert metrics.read_bytes == sum(blocks.sizes[key] for key in copied)
    assert {span.kind for span in record.spans} == {Kind.COMPUTE, Kind.STALL}
    assert all(0 <= span.begin <= span.end <= record.ended for span in record.spans)
    assert [one.layer for one in record.layers] == [number for number, _ in BATCHES]


def test_pinned_blocks_are_not_copied_again(stores: dict[ExpertFormat, HostBlocks]) -> None:
    blocks = stores[ExpertFormat.TERNARY]
    for quarters in (3, 4):
        runtime = run_all(blocks, RuntimeOptions(blocks.bytes * quarters // 4))
        pinned = runtime.placement.plan.pinned
        assert (len(pinned) == len(blocks.sizes)) == (quarters == 4)
        assert pinned
        assert not pinned.keys() & {read.key for read in runtime.stop().reads}


def test_a_trace(stores: dict[ExpertFormat, HostBlocks], tmp_path: Path) -> None:
    layers = tuple(layer_of(name, dim=40, hidden=24) for name in "ab")
    blocks = HostBlocks(make_store(tmp_path / "s", ExpertFormat.NESTED, layers), ops_of().device)
    trace = drawn_trace(2, 6, 2, (3, 1, 1), 7)
    result = run_gpu_trace(blocks, Replay(trace, HOT, check=2), RuntimeOptions(blocks.bytes // 2), ops=ops_of())
    assert result.checked == 4
    assert result.metrics.tokens == 5
    assert result.device == ops_of().device.name
    assert 0 < result.pinned_bytes < result.arena_bytes
    with pytest.raises(InputError, match="trace must have the store's 2 layers, not 3"):
        run_gpu_trace(blocks, Replay(drawn_trace(3, 6, 2, (1,), 7)), RuntimeOptions(blocks.bytes), ops=ops_of())


def test_the_command(stores: dict[ExpertFormat, HostBlocks], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", ExpertFormat.TRITS, tuple(layer_of(name, dim=40, hidden=24) for name in "ab"))
    run = ["experts", "run", str(store.path), "--device", "cuda", "--budget", "100%", "--prefill", "3", "--tokens", "2"]
    files = ["--record", str(tmp_path / "t.trace"), "--perfetto", str(tmp_path / "t.json")]
    done = CliRunner().invoke(app, [*run, *files, "--check", "2", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["device"], facts["checked"], facts["tokens"]) == (ops_of().device.name, 4, 5)
    assert RoutingTrace.load(tmp_path / "t.trace").batches == (3, 1, 1)
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["traceEvents"]
    assert "4 outputs equal the reference" in CliRunner().invoke(app, [*run, "--check", "2"]).stdout
    with pytest.raises(InputError, match="a bundle must run on the processor here, not on cuda; simulate it with"):
        run_store(Source(store.path, bundle=tmp_path), "100%", RuntimeOptions, where=Where.CUDA)


def test_what_it_refuses(stores: dict[ExpertFormat, HostBlocks], tmp_path: Path) -> None:
    blocks = stores[ExpertFormat.NESTED]
    with pytest.raises(InputError, match="width must be one of 2, 4, 8 for nested experts, not 3"):
        GpuRuntime(blocks, RuntimeOptions(blocks.bytes, width=3), None, ops_of())
    runtime = GpuRuntime(blocks, RuntimeOptions(blocks.bytes, width=2), None, ops_of())
    batch, _ = expected(blocks, 0, 9)
    wrong = replace(batch, widths=np.where(batch.widths > 0, 5, 0).astype(np.uint8))
    with pytest.raises(InputError, match="width must be one of 2, 4, 8 for nested experts, not 5"):
        runtime.layer(0, wrong)
    with pytest.raises(InputError, match="x of layer b must be int8"):
        runtime.layer(1, batch)
    path = tmp_path / "damaged"
    made = make_store(path, ExpertFormat.INT8, (layer_of("a"),))
    block = made.block(0, 0, 3)
    with path.open("r+b") as file:
        file.seek(block.offset + 5)
        file.write(b"\x99\x77")
    with pytest.raises(InputError, match=rf"must have the checksum .* \(offset {block.offset}\)"):
        HostBlocks(made, ops_of().device)
