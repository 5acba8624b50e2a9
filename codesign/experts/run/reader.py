# SPDX-License-Identifier: Apache-2.0
"""The native reader and its arena, with the errors that a user sees. Sources: kernels/src/reader_*.cpp."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from codesign.errors import InputError
from codesign.experts.file.blocks import PAGE, Bytes
from codesign.experts.file.index import Block
from codesign.experts.run.arena import BlockKey
from codesign.kernels.native import native
from codesign.spec.moe import RESIDUAL_MULTIPLIER_MAX


class Io(StrEnum):
    """How the file is read."""

    DIRECT = "direct"
    """O_DIRECT: what is read goes into the arena and nowhere else. Falls back to `cached` where it is refused."""
    CACHED = "cached"
    """Through the page cache, which is told to forget each chunk."""


class Transport(StrEnum):
    """What moves the bytes."""

    URING = "io_uring"
    """One thread on io_uring; falls back to `threads` where the kernel refuses it."""
    THREADS = "threads"
    """A pool of threads with pread."""


@dataclass(frozen=True)
class Faults:
    """Damage done around the transport, for tests. Reads of the system are counted from 1; 0 means never.

    Each takes `delay_us` longer; every fifth time, who collects what has arrived comes `late_us` later.
    """

    short_reads: bool = False
    error_at: int = 0
    error: int = errno.EIO
    flip_at: int = 0
    delay_us: int = 0
    late_us: int = 0
    refuse_direct: bool = False
    refuse_uring: bool = False


@dataclass(frozen=True)
class ReaderOptions:
    """How to read. `depth` chunks of `chunk` bytes are in flight at a time.

    A thread that has nothing to do looks for something for `watch_us` microseconds before it sleeps.
    """

    io: Io = Io.DIRECT
    transport: Transport = Transport.URING
    depth: int = 16
    chunk: int = 1 << 18
    faults: Faults = field(default_factory=Faults)
    watch_us: int = 500

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= 256:
            raise InputError(f"depth must be in 1..256, not {self.depth!r}; choose a number of chunks in flight")
        if self.chunk < PAGE or self.chunk % PAGE:
            raise InputError(f"chunk must be a multiple of {PAGE} bytes, not {self.chunk!r}; round it")
        if not 0 <= self.watch_us <= 1_000_000:
            raise InputError(f"watch_us must be in 0..1000000, not {self.watch_us!r}; 0 sleeps at once")


@dataclass(frozen=True)
class Read:
    """A block that arrived, with its times in nanoseconds of the monotonic clock."""

    key: BlockKey
    bytes: int
    submitted: int
    started: int
    arrived: int
    verified: int
    cancelled: bool = False


class Arena:
    """`budget` bytes, rounded down to whole pages."""

    def __init__(self, budget: int) -> None:
        free = available_memory()
        if free is not None and budget > free:
            raise InputError(f"budget must be at most the {free} bytes of memory that are free, not {budget}; lower it")
        try:
            self.native = native().Arena(budget)
        except MemoryError:
            raise InputError(f"budget must fit into memory, not be {budget} bytes; lower the budget") from None
        self.bytes: Bytes = self.native.bytes()


class Reader:
    """Reads blocks of the file at `path` into an arena, in the order in which they are submitted.

    Use as a context manager: leaving it ends all threads, also after an error or Ctrl-C.
    """

    def __init__(self, path: Path, arena: Arena, options: ReaderOptions) -> None:
        module = native()
        made = module.ReaderOptions()
        uring = options.transport is Transport.URING
        made.backend = module.ReaderBackend.URING if uring else module.ReaderBackend.THREADS
        made.direct = options.io is Io.DIRECT
        made.depth = options.depth
        made.chunk = options.chunk
        made.watch_us = options.watch_us
        made.faults = _faults(options.faults)
        self._path = path
        self._asked: dict[int, tuple[BlockKey, Block]] = {}
        self._number = 0
        try:
            self.native = module.Reader(str(path), arena.native, made)
        except OSError as error:
            raise InputError(f"store {path} must be readable: {error.strerror}; check the path") from None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def io(self) -> Io:
        """How the file is really read."""
        return Io.DIRECT if self.native.direct else Io.CACHED

    @property
    def transport(self) -> Transport:
        """What really moves the bytes."""
        return Transport.URING if self.native.backend == native().ReaderBackend.URING else Transport.THREADS

    @property
    def pending(self) -> int:
        """Reads that were submitted and not collected."""
        return len(self._asked)

    def submit(self, key: BlockKey, block: Block, place: int) -> None:
        """Ask for a block at `place` in the arena, which must stay untouched until it is collected."""
        self._number += 1
        self._asked[self._number] = key, block
        self.native.submit(self._number, block.offset, block.bytes, place, block.crc32c)

    def cancel(self) -> None:
        """Drop what has not been begun: it is collected as cancelled."""
        self.native.cancel()

    def poll(self) -> Sequence[Read]:
        """What has completed by now. Raises InputError as `wait` does."""
        return self._reads(0)

    def wait(self, seconds: float = -1.0) -> Sequence[Read]:
        """Wait for something to complete; interruptible.

        Raises InputError, naming the offset, when a block could not be read, or is not the one that was packed.
        """
        return self._reads(-1 if seconds < 0 else int(seconds * 1e6))

    def _reads(self, timeout_us: int) -> Sequence[Read]:
        if not self._asked:
            return ()
        return [self._checked(one) for one in self.native.collect(timeout_us)]

    def _checked(self, one: Any) -> Read:
        key, block = self._asked.pop(one.tag)
        cancelled = bool(one.status == native().ReadStatus.CANCELLED)
        if not cancelled and one.status != native().ReadStatus.GOOD:
            raise self.failure(key, block, one)
        times = one.submitted_ns, one.started_ns, one.arrived_ns, one.verified_ns
        return Read(key, block.padded_bytes, *times, cancelled)

    def failure(self, key: BlockKey, block: Block, completion: Any) -> InputError:
        """What is wrong with a block that could not be read, from the native module's completion."""
        status, where = completion.status, native().ReadStatus
        name = f"level {key.level} of expert {key.expert} of layer {key.layer}"
        if status == where.FAILED:
            code = completion.error
            return InputError(
                f"store {self._path} must be readable, not fail with {errno.errorcode.get(code, code)}:"
                f" {os.strerror(code)} (offset {completion.offset}, {name}); check the disk"
            )
        if status == where.ENDED:
            return InputError(
                f"store {self._path} must stay as it is while it is read, not end within {name}"
                f" (offset {completion.offset}); copy it again"
            )
        if status == where.UNSOUND:
            return InputError(
                f"store {self._path} must have |A| up to {RESIDUAL_MULTIPLIER_MAX} and zeros in"
                f" 0..{3 * RESIDUAL_MULTIPLIER_MAX}, not others (offset {completion.offset}, {name});"
                " pack the experts again"
            )
        return InputError(
            f"store {self._path} must have the checksum {block.crc32c:08x} of the block there, not"
            f" {completion.crc:08x} (offset {completion.offset}, {name}); copy it again, and check the disk"
        )

    def close(self) -> None:
        """End all threads; what is pending is lost."""
        self.native.close()
        self._asked.clear()


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, as Linux estimates them; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def forget_file(path: Path) -> None:
    """Ask the system to drop a file from its page cache, so that reads reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # a page that is not yet written cannot be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _faults(faults: Faults) -> Any:
    made = native().Faults()
    for one in fields(faults):
        setattr(made, one.name, getattr(faults, one.name))
    return made
