# SPDX-License-Identifier: Apache-2.0
"""Layers with weights of 2, 4 and 8 bits: ours against onnxruntime and torch, one thread, interleaved in one process.

`python benchmarks/low_bit_gemm.py [--rounds N] [--variant V]` takes a minute and a half, writes
benchmarks/results/low_bit_gemm.json and prints the tables. Ours take int8 x to requantized int8 y, offset correction
and bias included; what each peer's includes stands in its row. `cold`: so many layers in turn that their weights
exceed 8 MB (they come from the L3 cache); `warm`: at most half a megabyte of them, or one layer (at 1024 x 2048 and
8 bits one layer is 2 MB, which is more than half of what an L2 cache may hold).
Peers of float x quantize it themselves; what onnxruntime's DynamicQuantizeLinear takes for that is measured too, and
the figure without it stands beside theirs.
Exit status 1 when a peer is faster than all of ours that have no more weight bytes, when one of our formats (all but
trits, which are for storing, and residual) is slower than a peer of as many bits or more, or when a bit differs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version

import numpy as np
import torch
from common import store
from low_bit_own import OWN, Check
from low_bit_peers import PEERS, Layer, Peer, Run, quantize_linear

from codesign.kernels.layout import pack_codes
from codesign.kernels.levels import decode_trits
from codesign.kernels.native import Variant, choose_variant
from codesign.kernels.trits import pack_trits

LAYERS = (Layer(384, 192), Layer(1024, 2048))
ROWS = (1, 8, 32, 129)
COLD_BYTES = 8 << 20
WARM_BYTES = 1 << 19
ROUND_SECONDS = 8e-3
QUANTIZE_COPIES = 8
QUANTIZE = Peer("onnxruntime DynamicQuantizeLinear", 0, "x alone", lambda layer: 0, quantize_linear)


@dataclass(frozen=True)
class Contender:
    """A way to compute the layer. `weight_bytes`: of one layer, with scales and zero points, without bias."""

    name: str
    own: bool
    leads: bool
    quantizes: bool
    bits: float
    includes: str
    weight_bytes: int
    copies: int
    with_rows: Callable[[int], tuple[Run, Check]]


@dataclass(frozen=True)
class Row:
    """One line of the table. `seconds`: median over the rounds, of one layer."""

    outputs: int
    inputs: int
    rows: int
    weights: str
    name: str
    own: bool
    leads: bool
    bits: float
    includes: str
    weight_bytes: int
    copies: int
    seconds: float
    best_seconds: float
    gops: float
    gops_without_quantizing: float | None
    """Of a peer that quantizes x: with DynamicQuantizeLinear's time taken off."""
    lead: float | None
    """Own: time of the fastest peer with at least as many weight bits, over ours. Above 1: we are faster than all."""
    lead_strict: float | None
    """Own: the same against peers of equal or fewer bits."""


def copies_of(weight_bytes: int, cold: bool) -> int:
    """How many layers take turns."""
    return -(-COLD_BYTES // weight_bytes) if cold else max(1, WARM_BYTES // weight_bytes)


def trits(variant: Variant, rounds: int) -> dict[str, float]:
    """Decoding of the cold ternary format, 8 MB of codes: GB/s written, beside those of a copy of the result."""
    packed = pack_trits(pack_codes(np.random.default_rng(0).integers(0, 3, (4096, 8192), dtype=np.uint8), 2, 0))
    cells = decode_trits(packed, variant)
    decode, copy = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        decode_trits(packed, variant)
        middle = time.perf_counter()
        cells.copy()
        decode.append(middle - start)
        copy.append(time.perf_counter() - middle)
    gb = cells.nbytes * 1e-9
    return {"decode_gb_s": gb / statistics.median(decode), "copy_gb_s": gb / statistics.median(copy)}


def contenders(layer: Layer, cold: bool, variant: Variant) -> list[Contender]:
    """Ours, then the peers that can compute this layer; a peer that cannot is named with its reason."""
    found = []
    for fmt in OWN:
        size = fmt.weight_bytes(layer)
        copies = copies_of(size, cold)
        prepare = fmt.make(layer, copies, variant)
        found.append(Contender(fmt.name, True, fmt.leads, False, fmt.bits, fmt.includes, size, copies, prepare))
    for peer in PEERS:
        size = peer.weight_bytes(layer)
        copies = copies_of(size, cold)
        try:
            with_rows = peer.make(layer, copies)
            with_rows(1)()
        except Exception as error:  # whatever another library raises
            print(f"{peer.name}: not possible for {layer}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        found.append(peer_of(peer, size, copies, with_rows))
    found.append(peer_of(QUANTIZE, 0, QUANTIZE_COPIES, quantize_linear(layer, QUANTIZE_COPIES)))
    return found


def peer_of(peer: Peer, size: int, copies: int, with_rows: Callable[[int], Run]) -> Contender:
    """A peer; nobody checks its results."""

    def prepare(rows: int) -> tuple[Run, Check]:
        return with_rows(rows), lambda: True

    return Contender(peer.name, False, False, peer.quantizes, peer.bits, peer.includes, size, copies, prepare)


def measure(all_: list[Contender], rows: int, rounds: int) -> list[list[float]]:
    """Seconds of one layer for each, a sample a round; in every round each has its turn, for about 8 ms.

    Raises SystemExit when one of ours computes wrong.
    """
    prepared = [c.with_rows(rows) for c in all_]
    repeats = []
    for c, (run, right) in zip(all_, prepared, strict=True):
        run()
        start = time.perf_counter()
        run()
        repeats.append(max(1, int(ROUND_SECONDS / (time.perf_counter() - start))))
        if not right():
            raise SystemExit(f"{c.name} differs from the reference at {rows} rows")
    samples: list[list[float]] = [[] for _ in prepared]
    for _ in range(rounds):
        for c, (run, _), repeat, times in zip(all_, prepared, repeats, samples, strict=True):
            run()  # what the others left in caches and page tables is theirs
            run()
            start = time.perf_counter()
            for _ in range(repeat):
                run()
            times.append((time.perf_counter() - start) / repeat / c.copies)
    return samples


def table_of(layer: Layer, rows: int, cold: bool, all_: list[Contender], samples: list[list[float]]) -> list[Row]:
    """The lines of one shape, number of rows and temperature."""
    seconds = [statistics.median(times) for times in samples]
    quantizing = seconds[-1]
    all_, samples, seconds = all_[:-1], samples[:-1], seconds[:-1]
    peers = [(c.bits, s) for c, s in zip(all_, seconds, strict=True) if not c.own]
    operations = 2e-9 * rows * layer.outputs * layer.inputs
    lines = []
    for c, s, times in zip(all_, seconds, samples, strict=True):
        wider = min((t for bits, t in peers if bits >= c.bits), default=None)
        narrower = min((t for bits, t in peers if bits <= c.bits), default=None)
        without = operations / (s - quantizing) if c.quantizes and s > 1.5 * quantizing else None
        lines.append(
            Row(
                outputs=layer.outputs,
                inputs=layer.inputs,
                rows=rows,
                weights="cold" if cold else "warm",
                name=c.name,
                own=c.own,
                leads=c.leads,
                bits=c.bits,
                includes=c.includes,
                weight_bytes=c.weight_bytes,
                copies=c.copies,
                seconds=s,
                best_seconds=min(times),
                gops=operations / s,
                gops_without_quantizing=without,
                lead=wider / s if c.own and wider else None,
                lead_strict=narrower / s if c.own and narrower else None,
            )
        )
    return lines


def printed(lines: list[Row]) -> str:
    """A table in Markdown: GOP/s for each number of rows, with what `_figure` adds."""
    head = f"\n{lines[0].outputs} x {lines[0].inputs}, {lines[0].weights} weights, GOP/s\n\n| | bytes |"
    head += "".join(f" M = {rows} |" for rows in ROWS) + "\n|---|---:|" + "---:|" * len(ROWS)
    body = []
    for name in dict.fromkeys(line.name for line in lines):
        cells = [line for line in lines if line.name == name]
        body.append(f"| {name} | {cells[0].weight_bytes:,} | " + " | ".join(_figure(c) for c in cells) + " |")
    return "\n".join([head, *body])


def _figure(line: Row) -> str:
    """Ours: times the fastest peer of as many bits or more (residual: or fewer). Peers: without quantizing x."""
    text = f"{line.gops:.0f}"
    if line.lead is not None:
        lead = line.lead if line.leads or line.lead_strict is None else line.lead_strict
        return f"{text} ({lead:.2f}x)"
    return text if line.gops_without_quantizing is None else f"{text} ({line.gops_without_quantizing:.0f})"


def beaten(lines: list[Row]) -> list[str]:
    """Peers faster than all of ours with no more bytes, and those of ours that a peer of as many bits leads."""
    found = []
    for peer in (line for line in lines if not line.own):
        best = min(c.seconds for c in lines if c.own and c.rows == peer.rows and c.weight_bytes <= peer.weight_bytes)
        if best > peer.seconds:
            where = f"{peer.outputs} x {peer.inputs}, {peer.rows} rows, {peer.weights}"
            found.append(f"{peer.name} is faster at {where}: {peer.seconds * 1e6:.1f} against {best * 1e6:.1f} us")
    for line in lines:
        if line.leads and line.lead is not None and line.lead < 1:
            where = f"{line.outputs} x {line.inputs}, {line.rows} rows, {line.weights}"
            found.append(f"{line.name} is {line.lead:.2f} times as fast as the fastest peer of as many bits at {where}")
    return found


def main() -> int:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="medians are over so many rounds")
    parser.add_argument("--variant", default=None, help="of our kernels; the fastest by default")
    arguments = parser.parse_args()
    variant = choose_variant(arguments.variant)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning, module="low_bit_peers")  # torch deprecates its own peers
    rows: list[Row] = []
    lost: list[str] = []
    for layer in LAYERS:
        for cold in (False, True):
            all_ = contenders(layer, cold, variant)
            lines: list[Row] = []
            for count in ROWS:
                lines += table_of(layer, count, cold, all_, measure(all_, count, arguments.rounds))
            print(printed(lines), flush=True)
            rows += lines
            lost += beaten(lines)
    content = {
        "variant": variant.value,
        "threads": 1,
        "rounds": arguments.rounds,
        "libraries": {name: version(name) for name in ("onnxruntime", "torch", "onnx")},
        "trits": trits(variant, arguments.rounds),
        "rows": [asdict(row) for row in rows],
    }
    print(store("low_bit_gemm", content, "python benchmarks/low_bit_gemm.py"))
    print("\n".join(lost) or "ahead of every peer with equal or fewer weight bytes", flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
