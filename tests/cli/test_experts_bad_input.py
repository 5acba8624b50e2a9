# SPDX-License-Identifier: Apache-2.0
"""`codesign experts` with bad input: one line on stderr, status 2, nothing half-written, no hang."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codesign.errors import InputError
from codesign.experts.command import Source, run_store
from codesign.experts.file.store import Store
from codesign.experts.run.options import RuntimeOptions
from codesign.experts.run.reader import Faults, Io, ReaderOptions, Transport
from codesign.experts.run.routing import RoutingTrace, drawn_trace
from codesign.spec.moe import ExpertFormat
from tests.cli.test_bad_input import full_disk, refused
from tests.conftest import one_line
from tests.digits import Digits
from tests.experts.streaming import layer_of, make_store

KIND = ExpertFormat.INT8
SECONDS = 60
RECIPE = """name = "long"
[layers]
count = 1
embed_dim = 512
hidden = 256
num_experts = 600
top_k = 2
activation = "silu_gated"
"""


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A test that takes longer than a minute fails."""

    def stop(number: int, frame: object) -> None:
        pytest.fail(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of its own, for tests that break it: 2 layers of 6 experts."""
    return make_store(tmp_path / "own.experts", KIND, (layer_of("a"), layer_of("b"))).path


def child(arguments: Sequence[object], **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "codesign", "experts", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, **options)  # type: ignore[call-overload,no-any-return]


def tasks() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


# -- budgets ----------------------------------------------------------------------------------------------------------


def test_a_budget_below_the_working_set(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = Store.open(store).block(0, 0, 0).padded_bytes
    line = refused(capsys, "experts", "run", store, "--budget", block - 1)
    wanted = f"budget must be at least {block} bytes, the largest expert's blocks, not {block - 1}; raise the budget"
    assert line == wanted


@pytest.mark.parametrize("text", ["", "plenty", "-1", "0", "0%", "nan", "inf", "1e6", "5 apples", "50%%", "1T"])
def test_budgets_that_are_none(text: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "experts", "run", store, f"--budget={text}")
    assert line.startswith("budget must be ")
    assert f"not {text!r}; " in line


_LITTLE_MEMORY = """
import resource, sys
from codesign.cli import main
from codesign.experts.command import run_store
from codesign.kernels.native import native
native()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20),) * 2)
main(sys.argv[1:])
"""


def test_a_budget_that_memory_does_not_hold(tmp_path: Path) -> None:
    """The system refuses the arena: its address space is limited to what is used and 48 MiB."""
    path = tmp_path / "large.experts"
    made = make_store(path, KIND, (layer_of("a", 1024, 1024, 32),))
    assert made.expert_bytes > 64 << 20
    command = [sys.executable, "-c", _LITTLE_MEMORY, "experts", "run", str(path), "--budget", "100%"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 2
    assert one_line(done.stderr).startswith("error: budget must fit into memory, not be ")


# -- stores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must begin with CDGNEXPT, not b'' (offset 0)"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 9000, "must begin with CDGNEXPT, not b'\\x89PNG"),
        (b"CDGNEXPT\x01", "must have a header of 24 bytes, not end after 9 (offset 9)"),
    ],
)
def test_foreign_stores(content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "foreign").write_bytes(content)
    line = refused(capsys, "experts", "run", tmp_path / "foreign", "--budget", "50%")
    assert message in line


def test_paths_that_are_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        line = refused(capsys, "experts", "run", path, "--budget", "50%")
        assert line == f"store {path} must be a file, and there is none; run codesign experts pack"


def test_damaged_stores(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The offset is named: of the index, of the end, of a block of weights."""
    whole = store.read_bytes()
    place = Store.open(store).block(0, 0, 3)
    for content, message in (
        (whole[:200] + bytes([whole[200] ^ 4]) + whole[201:], "must have the checksum of its index (offset 24)"),
        (whole[:-4096], f"must have {len(whole)} bytes, not {len(whole) - 4096} (offset {len(whole) - 4096})"),
        (whole[:100], "(offset "),
    ):
        store.write_bytes(content)
        assert message in refused(capsys, "experts", "run", store, "--budget", "50%")
    at = place.offset + 7
    store.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    for io in Io:
        line = refused(capsys, "experts", "run", store, "--budget", "50%", "--io", io.value, "--prefill", 200)
        assert f"must have the checksum {place.crc32c:08x} of the block there" in line
        assert f"(offset {place.offset}, level 0 of expert 3 of layer 0)" in line


def test_stores_of_other_models(digits: Digits, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ("experts", "run", "--budget", "50%", "--bundle", digits.bundle(KIND))
    line = refused(capsys, *start, digits.store(ExpertFormat.TERNARY))
    assert "must hold layer block1.experts of digits_int8, not that of another model (digits); pack" in line
    assert "must hold the layer block1.experts, not a, b; pack that model" in refused(capsys, *start, store)


def test_a_bundle_with_other_biases(digits: Digits, tmp_path: Path) -> None:
    """Names, shapes and activation are the model's; one bias is not."""
    from dataclasses import replace

    from codesign.experts.pack.fit import FormatChoice
    from codesign.experts.pack.pack import pack_graph
    from codesign.experts.run.graph import layers_of

    graph = digits.graph(KIND)
    name = next(n for n in graph.nodes if n.kind.value == "experts").inputs[4]

    def changed(values: np.ndarray) -> np.ndarray:
        other = values.copy()
        other[3, 5] += 1
        return other

    constants = tuple(
        replace(c, values=changed(c.values)) if c.spec.name == name else c for c in graph.constants
    )  # fmt: skip
    for kind in (KIND, ExpertFormat.NESTED):
        pack_graph(graph, FormatChoice(kind), tmp_path / "a.experts")
        opened = Store.open(tmp_path / "a.experts")
        assert len(layers_of(graph, opened)) == 6
        with pytest.raises(InputError, match=r"must hold layer block1\.experts of digits_int8, not that of another"):
            layers_of(replace(graph, constants=constants), opened)


@pytest.mark.parametrize(("io", "transport"), [(io, t) for io in Io for t in Transport])
def test_a_store_that_shrinks_during_a_run(
    digits: Digits,
    tmp_path: Path,
    io: Io,
    transport: Transport,
) -> None:
    """Cut off behind the constants after the first image."""
    path = tmp_path / "own.experts"
    path.write_bytes(digits.store(KIND).read_bytes())
    end = Store.open(path).block(0, 0, 0).offset
    before = tasks()

    def watch(what: str, done: int, total: int) -> None:
        os.truncate(path, end)

    def options(size: int) -> RuntimeOptions:
        return RuntimeOptions(size, reader=ReaderOptions(io, transport), threads=2)

    record = tmp_path / "trace"
    with pytest.raises(InputError, match=r"must stay as it is while it is read, not end within level 0 .*offset \d+"):
        run_store(Source(path, digits.bundle(KIND)), "20%", options, record=record, watch=watch)
    assert tasks() == before
    assert [p.name for p in tmp_path.iterdir()] == ["own.experts"]


def test_a_store_that_vanishes_during_a_run(digits: Digits, tmp_path: Path) -> None:
    """What is open stays readable; to compare with the reference the file is needed again."""
    path = tmp_path / "own.experts"
    path.write_bytes(digits.store(KIND).read_bytes())

    def watch(what: str, done: int, total: int) -> None:
        path.unlink(missing_ok=True)

    result = run_store(Source(path, digits.bundle(KIND)), "20%", RuntimeOptions, watch=watch)
    assert result.metrics.tokens == 3 * 2 * 129
    path.write_bytes(digits.store(KIND).read_bytes())
    with pytest.raises(InputError, match="must be a file, and there is none"):
        run_store(Source(path, digits.bundle(KIND)), "20%", RuntimeOptions, check=1, watch=watch)


def test_a_failing_disk(store: Path, tmp_path: Path) -> None:
    def options(size: int) -> RuntimeOptions:
        return RuntimeOptions(size, reader=ReaderOptions(faults=Faults(error_at=2)))

    before = tasks()
    with pytest.raises(InputError, match=r"must be readable, not fail with EIO: .*offset \d+.*; check the disk$"):
        run_store(Source(store), "50%", options, record=tmp_path / "trace", perfetto=tmp_path / "line")
    assert tasks() == before
    assert [p.name for p in tmp_path.iterdir()] == ["own.experts"]


def test_multipliers_of_the_residual_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A store with right checksums and |A| = 4,096: whoever packed it was not us."""
    from tests.experts.stores import forge_block

    path = make_store(tmp_path / "a.experts", ExpertFormat.RESIDUAL, (layer_of(),)).path
    whole = path.read_bytes()
    opened = Store.open(path)
    for level, name in ((0, "multipliers"), (1, "multipliers"), (0, "zeros")):
        path.write_bytes(whole)
        part = opened.parts(0, level)[1]
        forge_block(path, (0, level, 2), lambda b, p=part, n=name: getattr(p, f"{n}_of")(b)[0, :1].fill(12_286))
        with pytest.raises(InputError, match=rf"must have sound blocks: {name} must be .*not .*12286 \(offset \d+\)"):
            Store.open(path).verify()
        line = refused(capsys, "experts", "run", path, "--budget", "100%", "--prefill", 100)
        where = opened.block(0, level, 2).offset
        assert f"must have |A| up to 4095 and zeros in 0..12285, not others (offset {where}" in line


# -- what to run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--variant", "sse9"), "not 'sse9'; choose one of those"),
        (("--threads", "5000"), "threads must be in 1..1024, not 5000"),
        (("--threads", "0"), "--threads"),
        (("--width", "4"), "width must be one of 8 for int8 experts, not 4; choose one of those"),
        (("--schedule", "random"), "--schedule"),
        (("--io", "psychic"), "--io"),
        (("--prefill", "0", "--tokens", "0"), "prefill and tokens must be 1 together at least"),
        (("--task", "depth"), "images, limit and task must come with a bundle"),
        (("--limit", "1"), "images, limit and task must come with a bundle"),
        (("--bundle", "/nowhere"), "bundle /nowhere must be a folder with a manifest.json"),
        (("--trace", "/nowhere"), "trace /nowhere must be readable: No such file or directory; record one"),
        (("--hot", "/nowhere"), "trace /nowhere must be readable: No such file or directory; record one"),
        (("--trace", "/dev/zero"), "trace /dev/zero must be a file, not a folder or a device"),
        (("--bundle", "/nowhere", "--trace", "/nowhere"), "trace must be left out with a bundle"),
        (("--pin", "1.5"), "pin must be from 0 to 1, not 1.5; give the share of the budget to be pinned"),
        (("--pin", "nan"), "pin must be from 0 to 1, not nan"),
        (("--foresight", "-1"), "--foresight"),
        (("--foresight", "1", "--schedule", "on-demand"), "foresight must be 0 with on-demand"),
        (("--foresight", "1", "--recall", "1.5"), "recall must be from 0 to 1, not 1.5"),
        (("--recall", "0.5"), "recall must come with foresight, and there is none; add --foresight"),
        (("--bundle", "/nowhere", "--recall", "1"), "recall must be left out with a bundle"),
    ],
)
def test_arguments(arguments: tuple[str, ...], message: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, "experts", "run", store, "--budget", "50%", *arguments)


def test_kernels_that_the_processor_lacks(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No processor has them all: those that are there are named."""
    missing = "neon" if platform.machine() in ("x86_64", "AMD64") else "avx512_vnni"
    line = refused(capsys, "experts", "run", store, "--budget", "50%", "--variant", missing)
    assert line.startswith("variant must be one of portable")
    assert line.endswith(f" on this processor, not '{missing}'; choose one of those")


@pytest.mark.parametrize("what", ["nan", "size", "empty folder", "small", "truncated", "none"])
def test_images(what: str, digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, message = (
        tmp_path / "images.npy",
        "must be uint8 [n, 64, 128, 3], not float32 [2, 64, 128, 3] with NaN or Inf",
    )
    images = np.zeros((2, 64, 128, 3), np.uint8)
    if what == "nan":
        np.save(path, np.full((2, 64, 128, 3), np.nan, np.float32))
    elif what == "size":
        np.save(path, images[:, :32])
        message = "must be uint8 [n, 64, 128, 3], not uint8 [2, 32, 128, 3]"
    elif what == "none":
        np.save(path, images[:0])
        message = "must be uint8 [n, 64, 128, 3], not uint8 [0, 64, 128, 3]"
    elif what == "truncated":
        np.save(path, images)
        path.write_bytes(path.read_bytes()[:-9])
        message = "must be a whole .npy file"
    else:
        path, message = tmp_path / "folder", "must hold PNG files, and there is none"
        path.mkdir()
        if what == "small":
            Image.new("RGB", (5, 5)).save(path / "a.png")
            message = "a.png must be uint8 [64, 128, 3], not uint8 [5, 5, 3]"
    start = ("experts", "run", digits.store(KIND), "--budget", "50%", "--bundle", digits.bundle(KIND))
    assert message in refused(capsys, *start, "--images", path)


@pytest.mark.parametrize("option", ["--trace", "--hot"])
def test_traces_of_other_models(option: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for layers, experts, words in ((2, 7, "the 6 experts of the store's layer a, not 7"), (3, 6, "2 layers, not 3")):
        drawn_trace(layers, experts, 2, (4,), 0).save(tmp_path / "trace")
        line = refused(capsys, "experts", "run", store, "--budget", "50%", option, tmp_path / "trace")
        assert f"{words}; record one with this model" in line


def test_damaged_traces(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every fifth byte flipped, every fifth length: for all commands that read one."""
    path = tmp_path / "trace"
    drawn_trace(2, 6, 2, (4, 1), 0).save(path)
    whole = path.read_bytes()
    assert RoutingTrace.load(path).layers == 2
    for at in range(0, len(whole), 5):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :]):
            path.write_bytes(content)
            line = refused(capsys, "experts", "analyze", path)
            assert line.startswith(f"trace {path} must ")
            assert "; record" in line
    for option in ("--trace", "--hot"):
        assert "; record" in refused(capsys, "experts", "run", store, "--budget", "50%", option, path)


# -- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--record", "--perfetto"])
@pytest.mark.parametrize(
    "where", ["/dev/full", "/dev/null", "/proc/codesign", "{}/none/x", "{}", "{}/own.experts/x", "."]
)
def test_places_that_cannot_be_written(
    option: str, where: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(where.format(tmp_path))
    device = path.stat().st_mode if path.exists() else None
    line = refused(capsys, "experts", "run", store, "--budget", "50%", option, path)
    assert line.startswith(f"{'trace' if option == '--record' else 'timeline'} {path} must ")
    assert line.endswith(("; choose another name", "; choose another place"))
    assert [p.name for p in tmp_path.iterdir()] == ["own.experts"]
    assert device is None or path.stat().st_mode == device


@pytest.mark.parametrize("where", ["/dev/full", "/proc/a.experts", "{}", "{}/little.toml/x", "."])
def test_places_that_hold_no_store(where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "little.toml").write_text(RECIPE.replace("600", "2"), encoding="utf-8")
    line = refused(capsys, "experts", "pack", tmp_path / "little.toml", "--out", where.format(tmp_path))
    assert "; c" in line  # choose another, or check the path
    assert [p.name for p in tmp_path.iterdir()] == ["little.toml"]
    assert not Path("/dev/full").is_file()


@pytest.mark.parametrize("option", ["--record", "--perfetto"])
def test_a_disk_that_is_full_at_the_end(option: str, store: Path, tmp_path: Path) -> None:
    done = child(("run", store, "--budget", "50%", "--tokens", 600, option, tmp_path / "out"), preexec_fn=full_disk)
    assert done.returncode == 2, done.stderr
    assert "must have room and be writable: File too large; choose another place" in one_line(done.stderr)
    assert [p.name for p in tmp_path.iterdir()] == ["own.experts"]


def test_a_disk_that_is_full_when_packing(tmp_path: Path) -> None:
    (tmp_path / "little.toml").write_text(RECIPE.replace("600", "2"), encoding="utf-8")
    done = child(("pack", tmp_path / "little.toml", "--out", tmp_path / "a.experts"), preexec_fn=full_disk)
    assert done.returncode == 2, done.stderr
    assert "must fit the disk: " in one_line(done.stderr)
    assert [p.name for p in tmp_path.iterdir()] == ["little.toml"]


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


def interrupted(arguments: Sequence[object], ready: Path, kind: signal.Signals) -> None:
    """Start a command, wait until it has `ready` open, interrupt it, and see it end at once."""
    command = [sys.executable, "-m", "codesign", "experts", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        since = 0.0
        while since == 0.0 or time.monotonic() - since < 0.3:  # open for long: not only to read the index
            assert process.poll() is None, process.communicate()
            since = (since or time.monotonic()) if holds(process.pid, ready) else 0.0
            time.sleep(0.02)
        begin = time.monotonic()
        process.send_signal(kind)
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - begin < 5
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert one_line(err) == "error: interrupted"


def holds(pid: int, path: Path) -> bool:
    """Whether a process has a file open whose name begins so."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(entry.readlink()).startswith(str(path)):
                return True
        except OSError:  # closed meanwhile
            continue
    return False


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_during_a_run(transport: Transport, kind: signal.Signals, store: Path, tmp_path: Path) -> None:
    arguments = (
        "run", store, "--budget", "50%", "--tokens", 100_000, "--threads", 2, "--transport", transport.value,
        "--record", tmp_path / "trace", "--perfetto", tmp_path / "timeline",
    )  # fmt: skip
    interrupted(arguments, store, kind)
    assert [p.name for p in tmp_path.iterdir()] == ["own.experts"]


def test_ctrl_c_during_a_graphs_run(digits: Digits, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (1500, 64, 128, 3), dtype=np.uint8))
    interrupted(
        ("run", digits.store(KIND), "--budget", "50%", "--bundle", digits.bundle(KIND), "--images",
         tmp_path / "images.npy", "--record", tmp_path / "trace"),
        digits.store(KIND), signal.SIGINT,
    )  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["images.npy"]


def test_ctrl_c_while_packing(tmp_path: Path) -> None:
    (tmp_path / "long.toml").write_text(RECIPE, encoding="utf-8")
    out = tmp_path / "a.experts"
    interrupted(
        ("pack", tmp_path / "long.toml", "--format", "residual", "--out", out), tmp_path / ".a.experts", signal.SIGINT
    )
    assert [p.name for p in tmp_path.iterdir()] == ["long.toml"]
