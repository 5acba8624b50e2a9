# SPDX-License-Identifier: Apache-2.0
"""Layers with weights of 2, 4 and 8 bits: ours against onnxruntime and torch, one thread, interleaved in one process.

`python benchmarks/low_bit_gemm.py [--rounds N] [--variant V]` writes benchmarks/results/low_bit_gemm.json and prints
the tables. Ours take int8 x to requantized int8 y, offset correction and bias included; what each peer's includes
stands in its row. `cold`: so many layers in turn that their weights exceed 8 MB; `warm`: at most half a megabyte.
Exit status 1 when a peer is faster than the fastest of ours that has no more weight bytes.
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
from low_bit_peers import PEERS, Layer, Run

from codesign.kernels.layout import pack_codes
from codesign.kernels.levels import NESTED, Level, LevelWeight, Rescale, decode_trits, prepare_linear, width_offset
from codesign.kernels.native import Variant, choose_variant
from codesign.kernels.trits import pack_trits

LAYERS = (Layer(384, 192), Layer(1024, 2048))
ROWS = (1, 8, 32, 129)
COLD_BYTES = 8 << 20
WARM_BYTES = 1 << 19
ROUND_SECONDS = 2e-3
OWN_INCLUDES = "int8 x; requantized int8 y"


@dataclass(frozen=True)
class Own:
    """One of our formats: its levels of (bits, position) and the offset of its codes."""

    name: str
    bits: int
    levels: tuple[tuple[int, int], ...]
    offset: int


OWN = (
    Own("ternary, 2 bits", 2, ((2, 0),), -1),
    Own("nested, width 2", 2, NESTED[:1], width_offset(2)),
    Own("4 bits", 4, ((4, 0),), -8),
    Own("nested, width 4", 4, NESTED[:2], width_offset(4)),
    Own("8 bits", 8, ((8, 0),), -128),
    Own("nested, width 8", 8, NESTED, width_offset(8)),
)


@dataclass(frozen=True)
class Contender:
    """A way to compute the layer. `weight_bytes`: of one layer, with what its outputs need (scales, bias)."""

    name: str
    own: bool
    bits: int
    includes: str
    weight_bytes: int
    copies: int
    with_rows: Callable[[int], Run]


@dataclass(frozen=True)
class Row:
    """One line of the table. `seconds`: median over the rounds, of one layer."""

    outputs: int
    inputs: int
    rows: int
    weights: str
    name: str
    own: bool
    bits: int
    includes: str
    weight_bytes: int
    copies: int
    seconds: float
    best_seconds: float
    gops: float
    lead: float | None
    """Own: time of the fastest peer with at least as many weight bits, over ours. Above 1: we are faster than all."""
    lead_strict: float | None
    """Own: the same against peers of equal or fewer bits."""


def copies_of(weight_bytes: int, cold: bool) -> int:
    """How many layers take turns."""
    return -(-COLD_BYTES // weight_bytes) if cold else max(1, WARM_BYTES // weight_bytes)


def own(fmt: Own, layer: Layer, cold: bool, variant: Variant) -> Contender:
    """Our kernels with random codes."""
    rng = np.random.default_rng(0)
    size = int(layer.outputs * layer.inputs * fmt.bits / 8) + 12 * layer.outputs
    copies = copies_of(size, cold)
    rescale = Rescale(np.zeros(layer.outputs, np.int32), np.full(layer.outputs, 2.0**-12))
    cells = [[_cells(rng, layer, bits) for bits, _ in fmt.levels] for _ in range(copies)]

    def weight(arrays: list[np.ndarray]) -> LevelWeight:
        levels = tuple(Level(a, bits, at) for a, (bits, at) in zip(arrays, fmt.levels, strict=True))
        return LevelWeight(layer.outputs, layer.inputs, levels, fmt.offset)

    def with_rows(rows: int) -> Run:
        x = rng.integers(-128, 128, (rows, layer.inputs), dtype=np.int8)
        y = np.empty((1, rows, layer.outputs), dtype=np.int8)
        layers = [weight(arrays) for arrays in cells]
        return prepare_linear(layers, x, rescale, y, variant)

    return Contender(fmt.name, True, fmt.bits, OWN_INCLUDES, size, copies, with_rows)


def _cells(rng: np.random.Generator, layer: Layer, bits: int) -> np.ndarray:
    return pack_codes(rng.integers(0, 1 << bits, (layer.outputs, layer.inputs), dtype=np.uint8), bits, 0)


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
    found = [own(fmt, layer, cold, variant) for fmt in OWN]
    for peer in PEERS:
        size = peer.weight_bytes(layer)
        copies = copies_of(size, cold)
        try:
            with_rows = peer.make(layer, copies)
            with_rows(1)()
        except Exception as error:  # whatever another library raises
            print(f"{peer.name}: not possible for {layer}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        found.append(Contender(peer.name, False, peer.bits, peer.includes, size, copies, with_rows))
    return found


def measure(all_: list[Contender], rows: int, rounds: int) -> list[list[float]]:
    """Seconds of one layer for each, a sample a round; in every round each has its turn, for about 2 ms or one call."""
    runs = [c.with_rows(rows) for c in all_]
    repeats = []
    for run in runs:
        run()
        start = time.perf_counter()
        run()
        repeats.append(max(1, int(ROUND_SECONDS / (time.perf_counter() - start))))
    samples: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for c, run, repeat, times in zip(all_, runs, repeats, samples, strict=True):
            run()  # what the others left in the caches is theirs
            start = time.perf_counter()
            for _ in range(repeat):
                run()
            times.append((time.perf_counter() - start) / repeat / c.copies)
    return samples


def table_of(layer: Layer, rows: int, cold: bool, all_: list[Contender], samples: list[list[float]]) -> list[Row]:
    """The lines of one shape, number of rows and temperature."""
    seconds = [statistics.median(times) for times in samples]
    peers = [(c.bits, s) for c, s in zip(all_, seconds, strict=True) if not c.own]
    lines = []
    for c, s, times in zip(all_, seconds, samples, strict=True):
        wider = min((t for bits, t in peers if bits >= c.bits), default=None)
        narrower = min((t for bits, t in peers if bits <= c.bits), default=None)
        lines.append(
            Row(
                outputs=layer.outputs,
                inputs=layer.inputs,
                rows=rows,
                weights="cold" if cold else "warm",
                name=c.name,
                own=c.own,
                bits=c.bits,
                includes=c.includes,
                weight_bytes=c.weight_bytes,
                copies=c.copies,
                seconds=s,
                best_seconds=min(times),
                gops=2e-9 * rows * layer.outputs * layer.inputs / s,
                lead=wider / s if c.own and wider else None,
                lead_strict=narrower / s if c.own and narrower else None,
            )
        )
    return lines


def printed(lines: list[Row]) -> str:
    """A table in Markdown: GOP/s for each number of rows, and for ours the lead."""
    head = f"\n{lines[0].outputs} x {lines[0].inputs}, {lines[0].weights} weights\n\n| | bytes |"
    head += "".join(f" M = {rows} |" for rows in ROWS) + "\n|---|---|" + "---|" * len(ROWS)
    body = []
    for name in dict.fromkeys(line.name for line in lines):
        cells = [line for line in lines if line.name == name]
        text = [f"{c.gops:.0f}" + (f" ({c.lead:.2f}x)" if c.lead else "") for c in cells]
        body.append(f"| {name} | {cells[0].weight_bytes:,} | " + " | ".join(text) + " |")
    return "\n".join([head, *body])


def beaten(lines: list[Row]) -> list[str]:
    """Each peer that is faster than the fastest of ours with no more bits."""
    found = []
    for peer in (line for line in lines if not line.own):
        best = min(c.seconds for c in lines if c.own and c.rows == peer.rows and c.bits <= peer.bits)
        if best > peer.seconds:
            where = f"{peer.outputs} x {peer.inputs}, {peer.rows} rows, {peer.weights}"
            found.append(f"{peer.name} is faster at {where}: {peer.seconds * 1e6:.1f} against {best * 1e6:.1f} us")
    return found


def main() -> int:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="medians are over so many rounds")
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
    print("\n".join(lost) or "ahead of every peer with equal or fewer weight bits", flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
