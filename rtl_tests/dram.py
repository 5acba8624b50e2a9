# SPDX-License-Identifier: Apache-2.0
"""DRAM behind the machine's AXI ports for unit tests: striped spaces, random latency and stalls, the rules of AXI4.

Values change at falling edges: what stands there is what the next rising edge sees.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

BEAT_BYTES = 16
PAGE = 4096


@dataclass
class Space:
    """A striped space: beat m of line i lies at base + m * stripe + 16 * i."""

    base: int
    stripe: int
    ports: int
    data: bytearray
    """In line order."""

    def offset(self, port: int, address: int) -> int | None:
        """Where in `data` the beat lies that the port asks for; None when the space does not hold it."""
        at = address - self.base - port * self.stripe
        line = at // BEAT_BYTES
        if at < 0 or at % BEAT_BYTES or (line * self.ports + port + 1) * BEAT_BYTES > len(self.data):
            return None
        return (line * self.ports + port) * BEAT_BYTES


@dataclass
class Timing:
    """How the memory behaves. Percentages are chances in each cycle."""

    latency: tuple[int, int] = (1, 60)
    """Least and most cycles from an address (a write: its last beat) to the first answer."""
    address_stall: int = 40
    data_stall: int = 30
    ideal: bool = False
    """The least latency, no stall."""

    def delay(self, rng: random.Random) -> int:
        return self.latency[0] if self.ideal else rng.randint(*self.latency)

    def stalls(self, rng: random.Random, percent: int) -> bool:
        return not self.ideal and rng.randrange(100) < percent


class Held:
    """Checks that valid and payload hold until they are accepted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: tuple[int, ...] | None = None

    def see(self, valid: bool, ready: bool, *payload: int) -> bool:
        """One cycle; True when the transfer takes place."""
        if self.waiting is not None:
            assert valid, f"{self.name}: valid falls before ready"
            assert payload == self.waiting, f"{self.name}: {self.waiting} became {payload}"
        self.waiting = payload if valid and not ready else None
        return valid and ready


def check_burst(address: int, beats: int) -> None:
    """Aligned and within a page."""
    assert address % BEAT_BYTES == 0, hex(address)
    assert address // PAGE == (address + beats * BEAT_BYTES - 1) // PAGE, (hex(address), beats)


@dataclass
class ReadPort:
    """One port's AR and R channels."""

    port: int
    spaces: list[Space]
    timing: Timing
    rng: random.Random
    now: int = 0
    beats: int = 0
    bursts: int = 0
    first: int | None = None
    """Cycle of the first address."""
    most: int = 0
    """Most bursts outstanding."""
    fail_beat: int | None = None
    """This beat is answered with SLVERR (its data come all the same)."""
    held: Held = field(default_factory=lambda: Held("AR"))
    queue: deque[tuple[int, deque[int]]] = field(default_factory=deque)
    """(when, addresses of the beats) of each outstanding burst."""

    def step(self, valid: bool, address: int, length: int) -> tuple[int, int, int, int, int]:
        """One cycle: what stands on AR -> (arready, rvalid, rdata, rresp, rlast)."""
        self.now += 1
        ready = not self.timing.stalls(self.rng, self.timing.address_stall)
        answer = (0, 0, 0, 0)
        if self.queue and self.queue[0][0] <= self.now and not self.timing.stalls(self.rng, self.timing.data_stall):
            addresses = self.queue[0][1]
            data = self._read(addresses.popleft())
            answer = (1, data, 2 if self.beats == self.fail_beat else 0, int(not addresses))
            self.beats += 1
            if not addresses:
                self.queue.popleft()
        if self.held.see(valid, ready, address, length):
            self.first = self.now if self.first is None else self.first
            check_burst(address, length + 1)
            self.bursts += 1
            self.queue.append(
                (
                    self.now + self.timing.delay(self.rng),
                    deque(address + BEAT_BYTES * i for i in range(length + 1)),
                )
            )
            self.most = max(self.most, len(self.queue))
        return (int(ready), *answer)

    def _read(self, address: int) -> int:
        for space in self.spaces:
            at = space.offset(self.port, address)
            if at is not None:
                return int.from_bytes(space.data[at : at + BEAT_BYTES], "little")
        raise AssertionError(f"port {self.port} reads {address:#x}, which no space of its holds")


@dataclass
class WritePort:
    """One port's AW, W and B channels."""

    port: int
    space: Space
    timing: Timing
    rng: random.Random
    now: int = 0
    fail_burst: int | None = None
    """This burst is answered with SLVERR."""
    bursts: int = 0
    writes: int = 0
    """Beats that wrote something."""
    aw: Held = field(default_factory=lambda: Held("AW"))
    w: Held = field(default_factory=lambda: Held("W"))
    addresses: deque[tuple[int, int]] = field(default_factory=deque)
    """(address, beats) of bursts whose data are not complete."""
    data: deque[tuple[int, int, int]] = field(default_factory=deque)
    """(data, strobe, last) of beats that wait for their address."""
    sent: int = 0
    """Beats of the oldest burst that have come."""
    answers: deque[tuple[int, int]] = field(default_factory=deque)
    """(when, response)."""

    def step(self, aw: tuple[int, int, int], w: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """One cycle: (awvalid, awaddr, awlen), (wvalid, wdata, wstrb, wlast) -> (awready, wready, bvalid, bresp)."""
        self.now += 1
        aw_ready = not self.timing.stalls(self.rng, self.timing.address_stall)
        w_ready = not self.timing.stalls(self.rng, self.timing.data_stall)
        answer = (0, 0)
        if self.answers and self.answers[0][0] <= self.now:
            answer = (1, self.answers.popleft()[1])
        if self.aw.see(bool(aw[0]), aw_ready, *aw[1:]):
            check_burst(aw[1], aw[2] + 1)
            self.addresses.append((aw[1], aw[2] + 1))
        if self.w.see(bool(w[0]), w_ready, *w[1:]):
            self.data.append(w[1:])
        while self.addresses and self.data:
            self._write(*self.data.popleft())
        return (int(aw_ready), int(w_ready), *answer)

    @property
    def quiet(self) -> bool:
        """Every burst is complete and answered."""
        return not (self.addresses or self.data or self.answers)

    def _write(self, data: int, strobe: int, last: int) -> None:
        start, beats = self.addresses[0]
        at = self.space.offset(self.port, start + BEAT_BYTES * self.sent)
        assert at is not None, f"port {self.port} writes outside its stripe"
        assert strobe in (0, 0xFFFF)
        if strobe:
            self.space.data[at : at + BEAT_BYTES] = data.to_bytes(BEAT_BYTES, "little")
            self.writes += 1
        self.sent += 1
        assert bool(last) == (self.sent == beats), "WLAST"
        if last:
            self.addresses.popleft()
            self.sent = 0
            response = 2 if self.bursts == self.fail_burst else 0
            self.bursts += 1
            self.answers.append((self.now + self.timing.delay(self.rng), response))


def part(value: int, index: int, bits: int) -> int:
    """Element `index` of a packed vector."""
    return value >> (index * bits) & ((1 << bits) - 1)


def join(values: list[int], bits: int) -> int:
    """The inverse of `part`."""
    return sum(value << (i * bits) for i, value in enumerate(values))


def step_reads(dut: Any, ports: list[ReadPort]) -> None:
    """One cycle of all read ports of a bench with flat ports; call it at a falling edge."""
    valid, address, length = int(dut.arvalid_o.value), int(dut.araddr_o.value), int(dut.arlen_o.value)
    assert int(dut.rready_o.value) == (1 << len(ports)) - 1
    out = [p.step(bool(valid >> i & 1), part(address, i, 64), part(length, i, 8)) for i, p in enumerate(ports)]
    for name, bits, column in (
        ("arready", 1, 0),
        ("rvalid", 1, 1),
        ("rdata", 128, 2),
        ("rresp", 2, 3),
        ("rlast", 1, 4),
    ):
        getattr(dut, f"{name}_i").value = join([o[column] for o in out], bits)


def step_writes(dut: Any, ports: list[WritePort]) -> None:
    """One cycle of all write ports."""
    awvalid, awaddr, awlen = int(dut.awvalid_o.value), int(dut.awaddr_o.value), int(dut.awlen_o.value)
    wvalid, wdata = int(dut.wvalid_o.value), int(dut.wdata_o.value)
    wstrb, wlast = int(dut.wstrb_o.value), int(dut.wlast_o.value)
    assert int(dut.bready_o.value) == (1 << len(ports)) - 1
    out = [
        p.step(
            (awvalid >> i & 1, part(awaddr, i, 64), part(awlen, i, 8)),
            (wvalid >> i & 1, part(wdata, i, 128), part(wstrb, i, 16), wlast >> i & 1),
        )
        for i, p in enumerate(ports)
    ]
    for name, bits, column in (("awready", 1, 0), ("wready", 1, 1), ("bvalid", 1, 2), ("bresp", 2, 3)):
        getattr(dut, f"{name}_i").value = join([o[column] for o in out], bits)
