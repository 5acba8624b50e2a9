# SPDX-License-Identifier: Apache-2.0
"""The native reader: every transport and mode gives the file's bytes; every kind of damage is told with its offset."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.experts.file.blocks import PAGE
from codesign.experts.file.checksum import crc32c
from codesign.experts.file.index import Block
from codesign.experts.run.arena import BlockKey
from codesign.experts.run.reader import Arena, Faults, Io, Read, Reader, ReaderOptions, Transport, forget_file

SIZES = (1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 70_000, 300_000, 64)
MODES = [(transport, io) for transport in Transport for io in Io]


class Blocks:
    """A file of random blocks, and where they lie."""

    def __init__(self, path: Path, sizes: tuple[int, ...] = SIZES, seed: int = 0) -> None:
        draws = np.random.default_rng(seed)
        self.path, self.blocks = path, []
        self.content = [draws.integers(0, 256, size, dtype=np.uint8) for size in sizes]
        with path.open("wb") as file:
            for content in self.content:
                offset = file.tell()
                file.write(content.tobytes().ljust(-(-len(content) // PAGE) * PAGE, b"\0"))
                self.blocks.append(Block(offset, len(content), crc32c(content)))

    @property
    def bytes(self) -> int:
        return sum(block.padded_bytes for block in self.blocks)


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    return Blocks(tmp_path / "blocks")


def key(number: int) -> BlockKey:
    return BlockKey(0, 0, number)


def submit_all(reader: Reader, blocks: Blocks) -> list[int]:
    places, place = [], 0
    for number, block in enumerate(blocks.blocks):
        reader.submit(key(number), block, place)
        places.append(place)
        place += block.padded_bytes
    return places


def collect_all(reader: Reader, count: int) -> list[Read]:
    reads: list[Read] = []
    while len(reads) < count:
        reads += reader.wait(20)
    return reads


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def check_all(blocks: Blocks, options: ReaderOptions) -> Reader:
    arena = Arena(blocks.bytes)
    with Reader(blocks.path, arena, options) as reader:
        places = submit_all(reader, blocks)
        reads = collect_all(reader, len(places))
        assert sorted(read.key.expert for read in reads) == list(range(len(places)))
        assert reader.pending == 0
        for read in reads:
            assert 0 < read.submitted <= read.started <= read.arrived <= read.verified
    for place, content in zip(places, blocks.content, strict=True):
        assert np.array_equal(arena.bytes[place : place + len(content)], content)
    return reader


@pytest.mark.parametrize(("transport", "io"), MODES)
@pytest.mark.parametrize("depth", [1, 3, 16])
@pytest.mark.parametrize("chunk", [PAGE, 4 * PAGE, 1 << 20])
def test_gives_the_bytes_of_the_file(blocks: Blocks, transport: Transport, io: Io, depth: int, chunk: int) -> None:
    forget_file(blocks.path)
    reader = check_all(blocks, ReaderOptions(io, transport, depth, chunk))
    assert reader.transport is transport  # this kernel has io_uring
    assert reader.io is io


@pytest.mark.parametrize(("transport", "io"), MODES)
def test_short_reads_are_continued(blocks: Blocks, transport: Transport, io: Io) -> None:
    check_all(blocks, ReaderOptions(io, transport, faults=Faults(short_reads=True)))


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=12),
    chunk=st.integers(1, 6),
    depth=st.integers(1, 5),
    mode=st.sampled_from(MODES),
    short=st.booleans(),
    watch=st.sampled_from((0, 20, 500)),
)
def test_any_blocks(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    chunk: int,
    depth: int,
    mode: tuple[Transport, Io],
    short: bool,
    watch: int,
) -> None:
    blocks = Blocks(tmp_path_factory.mktemp("any") / "blocks", tuple(sizes), seed=len(sizes))
    options = ReaderOptions(mode[1], mode[0], depth, chunk * PAGE, Faults(short_reads=short), watch)
    check_all(blocks, options)


@pytest.mark.parametrize(("transport", "io"), MODES)
def test_a_failing_disk_is_told(blocks: Blocks, transport: Transport, io: Io) -> None:
    options = ReaderOptions(io, transport, depth=1, faults=Faults(error_at=3, error=errno.EIO))
    with Reader(blocks.path, Arena(blocks.bytes), options) as reader:
        submit_all(reader, blocks)
        offset = blocks.blocks[2].offset
        text = rf"must be readable, not fail with EIO: .* \(offset {offset}, level 0 of expert 2 of layer 0\)"
        with pytest.raises(InputError, match=text):
            collect_all(reader, len(blocks.blocks))


@pytest.mark.parametrize(("transport", "io"), MODES)
def test_a_flipped_bit_is_told(blocks: Blocks, transport: Transport, io: Io) -> None:
    with Reader(
        blocks.path, Arena(blocks.bytes), ReaderOptions(io, transport, depth=1, faults=Faults(flip_at=6))
    ) as reader:
        submit_all(reader, blocks)
        block = blocks.blocks[5]
        text = f"must have the checksum {block.crc32c:08x} of the block there, not .*offset {block.offset}, .*expert 5"
        with pytest.raises(InputError, match=text):
            collect_all(reader, len(blocks.blocks))


@pytest.mark.parametrize(("transport", "io"), MODES)
def test_every_damaged_byte_is_told(tmp_path: Path, transport: Transport, io: Io) -> None:
    blocks = Blocks(tmp_path / "blocks", (10_000,))
    arena = Arena(blocks.bytes)
    for at in (0, 4095, 4096, 9_999):
        content = bytearray(blocks.path.read_bytes())
        content[at] ^= 1
        damaged = tmp_path / "damaged"
        damaged.write_bytes(content)
        with Reader(damaged, arena, ReaderOptions(io, transport, chunk=PAGE)) as reader:
            reader.submit(key(0), blocks.blocks[0], 0)
            with pytest.raises(InputError, match="checksum"):
                collect_all(reader, 1)


@pytest.mark.parametrize(("transport", "io"), MODES)
@pytest.mark.parametrize("left", [0, 100, PAGE, 2 * PAGE + 100])
def test_a_file_that_shrinks_is_told(tmp_path: Path, transport: Transport, io: Io, left: int) -> None:
    blocks = Blocks(tmp_path / "blocks", (5 * PAGE,))
    with Reader(blocks.path, Arena(blocks.bytes), ReaderOptions(io, transport)) as reader:
        os.truncate(blocks.path, left)
        reader.submit(key(0), blocks.blocks[0], 0)
        with pytest.raises(InputError, match=r"must stay as it is while it is read, not end within level 0"):
            collect_all(reader, 1)


@pytest.mark.parametrize(("transport", "io"), MODES)
def test_a_file_that_is_removed_is_read_on(blocks: Blocks, transport: Transport, io: Io) -> None:
    arena = Arena(blocks.bytes)
    with Reader(blocks.path, arena, ReaderOptions(io, transport)) as reader:
        blocks.path.unlink()
        submit_all(reader, blocks)
        collect_all(reader, len(blocks.blocks))


@pytest.mark.parametrize("transport", list(Transport))
def test_without_o_direct_the_page_cache_serves(blocks: Blocks, transport: Transport) -> None:
    reader = check_all(blocks, ReaderOptions(Io.DIRECT, transport, faults=Faults(refuse_direct=True)))
    assert reader.io is Io.CACHED


@pytest.mark.parametrize("transport", list(Transport))
def test_on_tmpfs(transport: Transport) -> None:
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK):
        pytest.skip("no tmpfs at /dev/shm")
    path = folder / f"codesign-test-{os.getpid()}"
    try:
        check_all(Blocks(path), ReaderOptions(Io.DIRECT, transport))
    finally:
        path.unlink(missing_ok=True)


def test_without_io_uring_threads_serve(blocks: Blocks) -> None:
    reader = check_all(blocks, ReaderOptions(transport=Transport.URING, faults=Faults(refuse_uring=True)))
    assert reader.transport is Transport.THREADS


@pytest.mark.parametrize("transport", list(Transport))
def test_what_has_not_begun_can_be_cancelled(blocks: Blocks, transport: Transport) -> None:
    options = ReaderOptions(transport=transport, depth=1, faults=Faults(delay_us=200_000))
    with Reader(blocks.path, Arena(blocks.bytes), options) as reader:
        submit_all(reader, blocks)
        time.sleep(0.05)
        reader.cancel()
        reads = collect_all(reader, len(blocks.blocks))
        assert 1 <= sum(not read.cancelled for read in reads) <= 2
        assert not reads[-1].cancelled or not reads[0].cancelled


@pytest.mark.parametrize("transport", list(Transport))
def test_a_slow_disk_is_waited_for_and_closing_does_not_wait(blocks: Blocks, transport: Transport) -> None:
    options = ReaderOptions(transport=transport, depth=2, faults=Faults(delay_us=30_000_000))
    reader = Reader(blocks.path, Arena(blocks.bytes), options)
    submit_all(reader, blocks)
    begin = time.monotonic()
    assert list(reader.wait(0.2)) == []
    assert 0.15 < time.monotonic() - begin < 5
    before = threads()
    reader.close()
    assert time.monotonic() - begin < 5
    assert threads() < before
    assert list(reader.wait(0.1)) == []


@pytest.mark.parametrize("transport", list(Transport))
def test_ctrl_c_ends_a_wait(blocks: Blocks, transport: Transport) -> None:
    """In a process of its own: SIGINT while it waits for a disk that takes a minute."""
    code = f"""
from pathlib import Path
from codesign.experts.run.arena import BlockKey
from codesign.experts.file.index import Block
from codesign.experts.run.reader import *
options = ReaderOptions(transport=Transport("{transport.value}"), faults=Faults(delay_us=60_000_000))
with Reader(Path({str(blocks.path)!r}), Arena(1 << 20), options) as reader:
    reader.submit(BlockKey(0, 0, 0), Block(0, 4096, 0), 0)
    print("waiting", flush=True)
    reader.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - begin < 10
    assert "KeyboardInterrupt" in errors
    assert process.returncode != 0


def test_a_reader_that_is_dropped_ends_its_threads(blocks: Blocks) -> None:
    before = threads()
    reader = Reader(blocks.path, Arena(blocks.bytes), ReaderOptions(transport=Transport.THREADS, depth=5))
    assert threads() == before + 5
    submit_all(reader, blocks)
    del reader
    assert threads() == before


@pytest.mark.parametrize("place", [1, PAGE])
def test_a_read_outside_the_arena_is_refused(blocks: Blocks, place: int) -> None:
    with (
        Reader(blocks.path, Arena(PAGE), ReaderOptions()) as reader,
        pytest.raises(ValueError, match="whole pages within the arena"),
    ):
        reader.submit(key(0), blocks.blocks[0], place)


def test_bad_options() -> None:
    with pytest.raises(InputError, match=r"^depth must be in 1\.\.256, not 0; "):
        ReaderOptions(depth=0)
    with pytest.raises(InputError, match=r"^chunk must be a multiple of 4096 bytes, not 5000; "):
        ReaderOptions(chunk=5000)
    with pytest.raises(InputError, match=r"^watch_us must be in 0\.\.1000000, not -1; 0 sleeps at once$"):
        ReaderOptions(watch_us=-1)
    with pytest.raises(
        InputError, match=r"^store /nowhere must be readable: No such file or directory; check the path$"
    ):
        Reader(Path("/nowhere"), Arena(PAGE), ReaderOptions())
    with pytest.raises(InputError, match=r"^budget must be at most the \d+ bytes of memory that are free, not "):
        Arena(1 << 50)
