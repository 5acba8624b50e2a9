# SPDX-License-Identifier: Apache-2.0
"""`codesign experts run` and `analyze` on the shipped models: whole graphs, every format, every way of reading."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from codesign.cli import main
from codesign.emit.bundle import graph_of
from codesign.emit.manifest import ExpertWidth
from codesign.engines.bundle import Bundle
from codesign.errors import InputError
from codesign.experts.command import Source, run_store
from codesign.experts.file.store import Store
from codesign.experts.run.graph import GraphRun, run_graph
from codesign.experts.run.metrics import Kind
from codesign.experts.run.options import RuntimeOptions
from codesign.experts.run.reader import Faults, Io, ReaderOptions, Transport
from codesign.experts.run.routing import RoutingTrace
from codesign.experts.run.schedule import Order, Schedule
from codesign.reference import run_graph as reference
from codesign.spec import Graph
from codesign.spec.moe import ExpertFormat
from codesign.spec.patches import to_patches
from tests.conftest import one_line
from tests.digits import Digits

TASKS = ("semseg", "depth")
PATCHES = 129  # 16 x 8 and the class token
IMAGES = 3
CASES = [(kind, width) for kind in ExpertFormat for width in (None, *kind.widths)]


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command of `codesign experts` prints; it must end with status 0 and say nothing on stderr."""
    with pytest.raises(SystemExit) as stop:
        main(["experts", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (stop.value.code, err) == (0, "")
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["experts", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    return one_line(err)


@cache
def expected(bundle: Path, width: ExpertWidth) -> tuple[tuple[np.ndarray, ...], ...]:
    """[image][task]: what the reference makes of a bundle's images with its experts at a width."""
    opened = Bundle.load(bundle)
    graph = graph_of(opened.graph, width.code)
    each = []
    for x in to_patches(opened.images, graph.image):
        values = reference(graph, x)
        each.append(tuple(values[graph.output_of(task).tensor] for task in TASKS))
    return tuple(each)


def streamed(digits: Digits, kind: ExpertFormat, options: RuntimeOptions, hot: RoutingTrace | None = None) -> GraphRun:
    bundle = Bundle.load(digits.bundle(kind))
    return run_graph(bundle.graph, Store.open(digits.store(kind)), bundle.images, options, hot)


def same(found: GraphRun, wanted: tuple[tuple[np.ndarray, ...], ...]) -> None:
    assert found.tasks == TASKS
    for ours, theirs in zip(found.outputs, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


# -- whole graphs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "width"), CASES, ids=[f"{k.value}-{w}" for k, w in CASES])
def test_every_format_and_width(
    digits: Digits, kind: ExpertFormat, width: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = () if width is None else ("--width", width)
    out = command(
        capsys, "run", digits.store(kind), "--budget", "50%", "--bundle", digits.bundle(kind), "--check", 2, "--json",
        *fixed,
    )  # fmt: skip
    facts = json.loads(out)
    assert facts["checked"] == 2 * len(TASKS)
    assert facts["tokens"] == IMAGES * len(TASKS) * PATCHES
    assert facts["arena_bytes"] <= Store.open(digits.store(kind)).expert_bytes // 2
    assert (facts["io"], facts["transport"]) == ("direct", "io_uring")
    if width is not None or len(kind.widths) == 1:
        assert facts["bits_per_weight"] == (width or kind.widths[0])
    else:
        assert kind.widths[0] < facts["bits_per_weight"] < kind.widths[-1]


EXACT = [
    (ExpertFormat.INT8, None, ExpertWidth.STORED),
    (ExpertFormat.TERNARY, None, ExpertWidth.STORED),
    (ExpertFormat.TRITS, None, ExpertWidth.STORED),
    (ExpertFormat.NESTED, 8, ExpertWidth.STORED),
    (ExpertFormat.NESTED, 4, ExpertWidth.SLICE4),
    (ExpertFormat.NESTED, 2, ExpertWidth.SLICE2),
]


@pytest.mark.parametrize(("kind", "width", "of_bundle"), EXACT, ids=[f"{k.value}-{w}" for k, w, _ in EXACT])
def test_the_graphs_own_integers(digits: Digits, kind: ExpertFormat, width: int | None, of_bundle: ExpertWidth) -> None:
    """The outputs are those of the whole graph in the reference, which knows no store; slices are the spec's."""
    size = Store.open(digits.store(kind)).expert_bytes
    same(streamed(digits, kind, RuntimeOptions(size // 2, width=width)), expected(digits.bundle(kind), of_bundle))


SCHEDULES = [Schedule(order, hits) for order in Order for hits in (False, True)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_every_way_of_reading(digits: Digits, schedule: Schedule) -> None:
    kind = ExpertFormat.NESTED
    wanted = expected(digits.bundle(kind), ExpertWidth.STORED)
    size = Store.open(digits.store(kind)).expert_bytes
    for io, transport, threads in product(Io, Transport, (1, 2)):
        options = RuntimeOptions(size // 4, schedule, ReaderOptions(io, transport), threads, width=8)
        found = streamed(digits, kind, options)
        same(found, wanted)
        assert (found.result.io, found.result.transport) == (io, transport)


def test_routers_that_foresee(digits: Digits) -> None:
    """The next layers' routers on this layer's tokens are often right, and never change a bit."""
    kind = ExpertFormat.NESTED
    wanted = expected(digits.bundle(kind), ExpertWidth.STORED)
    size = Store.open(digits.store(kind)).expert_bytes
    rates = {}
    for layers in (0, 1, 9):
        found = streamed(digits, kind, RuntimeOptions(size // 3, width=8, foresight=layers))
        same(found, wanted)
        rates[layers] = found.result.metrics.foreseen_rate
        ahead = [span for span in found.result.record.spans if span.name == "routers ahead"]
        assert bool(ahead) == (layers > 0)
    assert rates[0] == 0
    assert 0.5 < rates[1] <= rates[9] < 0.7  # two layers of three have one below them


def test_any_variant(digits: Digits) -> None:
    """The portable kernels give the bits of the processor's fastest."""
    kind = ExpertFormat.RESIDUAL
    size = Store.open(digits.store(kind)).expert_bytes
    fastest, portable = (streamed(digits, kind, RuntimeOptions(size, variant=name)) for name in (None, "portable"))
    same(portable, fastest.outputs)


def test_one_task_and_some_images(digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = ExpertFormat.TERNARY
    start = ("run", digits.store(kind), "--budget", "100%", "--bundle", digits.bundle(kind), "--json")
    facts = json.loads(command(capsys, *start, "--task", "depth", "--limit", 2, "--check", 9))
    assert (facts["tokens"], facts["checked"]) == (2 * PATCHES, 2)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 128, 3), dtype=np.uint8)
    np.save(tmp_path / "other.npy", images)
    facts = json.loads(command(capsys, *start, "--images", tmp_path / "other.npy", "--check", 1))
    assert (facts["tokens"], facts["checked"]) == (2 * PATCHES, 2)


def test_a_wrong_bit_is_a_failed_check(
    digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that finds another number ends the command with status 1."""
    kind = ExpertFormat.INT8
    true = expected(digits.bundle(kind), ExpertWidth.STORED)
    assert true[0][0].any()
    monkeypatch.setattr("codesign.experts.run.graph.moe", lambda *arguments: arguments[6])  # experts that add nothing
    with pytest.raises(SystemExit) as stop:
        main(
            ["experts", "run", str(digits.store(kind)), "--budget", "50%", "--bundle", str(digits.bundle(kind)),
             "--check", "1"]
        )  # fmt: skip
    assert stop.value.code == 1
    assert "error: task semseg must equal the reference, not " in one_line(capsys.readouterr().err)


# -- what is written --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A routing trace and a timeline of a run of the nested store."""
    folder = tmp_path_factory.mktemp("recorded")
    trace, timeline = folder / "routing.trace", folder / "timeline.json"
    kind = ExpertFormat.NESTED
    run_store(Source(digits.store(kind), digits.bundle(kind)), "50%", RuntimeOptions, record=trace, perfetto=timeline)
    assert sorted(p.name for p in folder.iterdir()) == [trace.name, timeline.name]
    return trace, timeline


def test_a_recorded_trace_is_the_models_routing(digits: Digits, recorded: tuple[Path, Path]) -> None:
    trace = RoutingTrace.load(recorded[0])
    assert trace.batches == (PATCHES,) * (IMAGES * len(TASKS))
    assert (trace.num_experts, trace.experts.shape[1:]) == (8, (3, 2))
    bundle = Bundle.load(digits.bundle(ExpertFormat.NESTED))
    graph: Graph = bundle.graph
    first = next(n for n in graph.nodes_of("semseg") if n.kind.value == "experts")
    # the first mixture's gates do not depend on experts, hence not on their widths
    values = reference(graph, to_patches(bundle.images[1:2], graph.image)[0])
    np.testing.assert_array_equal(trace.dense_gates(len(TASKS), 0), values[first.inputs[1]])


def test_analyze_a_recorded_trace(recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(command(capsys, "analyze", recorded[0], "--json"))
    assert (facts["tokens"], facts["layers"], facts["num_experts"]) == (IMAGES * len(TASKS) * PATCHES, 3, 8)
    assert facts["mean_choices"] == 2.0
    rows = {(row["layer"], row["segment"]): row for row in facts["rows"]}
    assert set(rows) == {(layer, length) for layer in (0, 1, 2, None) for length in (4, 16, 64)}
    for row in rows.values():
        rates = [rate for _, rate in row["sch"]]
        assert 2 / 8 < rates[0] <= rates[-1] <= 1.0
        assert 2 * 2 / (8 + 2) < row["srp"] < 1.0  # better than a router that takes every expert
    assert rows[None, 4]["srp"] > rows[None, 64]["srp"]
    table = command(capsys, "analyze", recorded[0], "--segment", 4)
    assert "SCH, 2 experts" in table
    assert f"{rows[None, 4]['srp']:.3f}" in table
    assert "774 tokens, 2.00 of 8 experts each" in table


def test_a_trace_is_followed_and_decides_the_hot_set(
    digits: Digits, recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    start = ("run", digits.store(ExpertFormat.NESTED), "--budget", "50%", "--trace", recorded[0], "--json")
    cold = json.loads(command(capsys, *start, "--check", 1))
    hot = json.loads(command(capsys, *start, "--hot", recorded[0], "--check", 6))
    loose = json.loads(command(capsys, *start, "--hot", recorded[0], "--pin", 0))
    assert cold["tokens"] == hot["tokens"] == IMAGES * len(TASKS) * PATCHES
    assert (cold["checked"], hot["checked"]) == (3, 3 * 6)
    assert cold["pinned_bytes"] == loose["pinned_bytes"] == 0 < hot["pinned_bytes"] < hot["arena_bytes"]
    assert hot["bits_per_weight"] == cold["bits_per_weight"]


def test_the_same_trace_is_recorded_again(digits: Digits, recorded: tuple[Path, Path], tmp_path: Path) -> None:
    again = tmp_path / "again"
    options: Callable[[int], RuntimeOptions] = RuntimeOptions
    run_store(Source(digits.store(ExpertFormat.NESTED), trace=recorded[0]), "100%", options, record=again)
    assert again.read_bytes() == recorded[0].read_bytes()


def test_drawn_traces(digits: Digits, capsys: pytest.CaptureFixture[str]) -> None:
    start = ("run", digits.store(ExpertFormat.TRITS), "--budget", "60%", "--json")
    facts = json.loads(command(capsys, *start, "--prefill", 5, "--tokens", 3, "--check", 4, "--seed", 2))
    assert (facts["tokens"], facts["checked"]) == (8, 4 * 3)
    assert facts["pinned_bytes"] > 0


def test_the_timeline_has_its_tracks(recorded: tuple[Path, Path]) -> None:
    events = json.loads(recorded[1].read_text(encoding="utf-8"))["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {"compute thread", "layers", "read 1"} <= set(tracks.values())
    spans = [e for e in events if e["ph"] == "X"]
    names = {track: {e["name"] for e in spans if tracks[e["tid"]] == track} for track in tracks.values()}
    assert {"dense operators", "stall", "sum of experts"} <= names["compute thread"]
    assert names["layers"] == {"layer 0", "layer 1", "layer 2"}
    assert any(name.startswith("layer 0 expert") for name in names["read 1"])
    assert all(e["dur"] >= 0 and e["ts"] >= 0 for e in spans)


def test_the_table(digits: Digits, capsys: pytest.CaptureFixture[str]) -> None:
    kind = ExpertFormat.INT8
    out = command(capsys, "run", digits.store(kind), "--budget", "50%", "--bundle", digits.bundle(kind))
    assert "reads                  direct, io_uring\n" in out
    assert "nothing was compared (--check N)" in out
    for word in ("time / ideal", "hit rate, blocks", "bytes read a token", "major faults", "peak resident set"):
        assert word in out
    assert "outputs equal the reference" in command(
        capsys, "run", digits.store(kind), "--budget", "50%", "--bundle", digits.bundle(kind), "--check", 1
    )


# -- difficult disks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "note"),
    [
        (Faults(refuse_direct=True), "cached, io_uring, direct was refused: cached"),
        (Faults(refuse_uring=True), "direct, threads, io_uring was refused: threads"),
        (Faults(delay_us=2000), "direct, io_uring"),
        (Faults(short_reads=True), "direct, io_uring"),
    ],
    ids=["no O_DIRECT", "no io_uring", "slow", "short reads"],
)
def test_what_falls_back_is_told_and_changes_no_bit(digits: Digits, faults: Faults, note: str) -> None:
    kind = ExpertFormat.INT8
    size = Store.open(digits.store(kind)).expert_bytes
    found = streamed(digits, kind, RuntimeOptions(size // 2, reader=ReaderOptions(faults=faults)))
    same(found, expected(digits.bundle(kind), ExpertWidth.STORED))
    assert dict(found.result.notes())["reads"] == note
    if faults.delay_us:
        assert found.result.metrics.stall_seconds > 0.01
        assert any(span.kind is Kind.STALL for span in found.result.record.spans)


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize(
    ("faults", "message"), [(Faults(error_at=9), "fail with EIO"), (Faults(flip_at=9), "must have the checksum")]
)
def test_a_bad_disk_ends_a_graphs_run(digits: Digits, faults: Faults, message: str, transport: Transport) -> None:
    before = len(list(Path("/proc/self/task").iterdir()))
    kind = ExpertFormat.INT8
    reader = ReaderOptions(transport=transport, faults=faults)
    with pytest.raises(InputError, match=message + r".*\(offset \d+, level 0 of expert \d of layer \d\)"):
        streamed(digits, kind, RuntimeOptions(100_000, reader=reader, threads=2))
    assert len(list(Path("/proc/self/task").iterdir())) == before


def test_on_tmpfs(digits: Digits, capsys: pytest.CaptureFixture[str]) -> None:
    """Old kernels refuse O_DIRECT there, new ones do not: the numbers are right, and what was done is said."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        pytest.skip("no tmpfs at /dev/shm")
    kind = ExpertFormat.INT8
    path = folder / f"codesign-test-{digits.folder.stat().st_ino}"
    try:
        path.write_bytes(digits.store(kind).read_bytes())
        out = command(capsys, "run", path, "--budget", "50%", "--bundle", digits.bundle(kind), "--check", 3)
    finally:
        path.unlink(missing_ok=True)
    assert "6 outputs equal the reference" in out
    assert "reads                  direct, io_uring\n" in out or "direct was refused: cached" in out
