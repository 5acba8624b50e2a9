# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/edge-results.md, from what cpu_m3vit_tiny, low_bit_gemm, streaming and foresight have stored.

`python benchmarks/edge_tables.py` runs nothing; `make bench-edge` calls it last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESULTS
from tables import markdown, replace_tables

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "edge-results.md"
SHAPES = ((384, 192), (1024, 2048))
ROWS = (1, 8, 32, 129)
FORMATS = ("int8", "nested", "ternary")
BUDGETS = (1.0, 0.5, 0.25)
OURS = "hottest-bit-first + hits first"


def stored(name: str) -> Any:
    """A benchmark's stored result."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def frame() -> str:
    """A frame of M3ViT-tiny: every engine's time, speed against the fastest peer, share of the core's peak."""
    result = stored("cpu_m3vit_tiny")
    runs = result["runs"]
    peer = min(run["milliseconds"] for name, run in runs.items() if not name.startswith("codesign"))
    rows = []
    for name, run in sorted(runs.items(), key=lambda item: item[1]["milliseconds"]):
        peak = result["peak_macs_per_second"].get(name.removeprefix("codesign "), 0)
        share = f"{run['of_peak']:.0%} of {peak / 1e9:,.0f} GMAC/s" if run["of_peak"] else ""
        rows.append((name, f"{run['milliseconds']:.2f}", f"{peer / run['milliseconds']:.2f}", share))
    return markdown(("", "ms", "of the fastest peer's speed", "of the core's measured peak"), rows)


def products(outputs: int, inputs: int) -> str:
    """GOP/s of products with weights that are not in a cache."""
    found: dict[str, dict[int, Any]] = {}
    for row in stored("low_bit_gemm")["rows"]:
        if (row["outputs"], row["inputs"], row["weights"]) == (outputs, inputs, "cold"):
            found.setdefault(row["name"], {})[row["rows"]] = row
    heads = (f"{outputs} x {inputs}", "bytes", *(f"M = {m}" for m in ROWS))
    rows = [(n, f"{by[1]['weight_bytes']:,}", *(_speed(by[m]) for m in ROWS)) for n, by in found.items()]
    return markdown(heads, rows)


def _speed(row: Any) -> str:
    return f"{row['gops']:.0f} ({row['lead']:.2f} x)" if row["own"] else f"{row['gops']:.0f}"


def _chosen(mode: str) -> Iterator[tuple[str, dict[float, Any]]]:
    runs = [r for r in stored("streaming")["runs"] if r["mode"] == mode and r["schedule"] == OURS and r["pinned"]]
    for form in FORMATS:
        yield form, {r["budget"]: r for r in runs if r["format"] == form}


def streaming(mode: str) -> str:
    """Our schedule at each budget."""
    heads = (
        mode, "budget", "tokens/s", "MB read a token", "hits", "I/O of the time", "compute", "hidden", "T / ideal",
        "at least", "by layer", "peak MB",
    )  # fmt: skip
    rows = [
        (
            form, f"{budget:.0%}", f"{r['tokens_per_second']:.0f}", f"{r['read_bytes_per_token'] / 1e6:.1f}",
            f"{r['hit_rate']:.0%}", f"{r['io_share']:.0%}", f"{r['compute_share']:.0%}",
            "" if min(r["io_share"], r["compute_share"]) < 0.05 else f"{r['hidden_fraction']:.0%}",
            f"{r['ideal_ratio']:.2f}", f"{r['ideal_ratio'] / r['layered_ratio']:.2f}", f"{r['layered_ratio']:.2f}",
            f"{r['peak_rss_bytes'] / 1e6:.0f}",
        )
        for form, by in _chosen(mode) for budget in BUDGETS for r in [by[budget]]
    ]  # fmt: skip
    return markdown(heads, rows, left=2)


def ablation() -> str:
    """D2MoE's ablation: tokens/s of decode, one idea after the other."""
    steps = stored("streaming")["ablation"]
    budgets = steps[0]["budgets"]
    rows = [
        (step["what"], *(f"{speed:.0f} ({gain:.2f} x)" for speed, gain in zip(*_pair(step), strict=True)))
        for step in steps
    ]
    return markdown(("decode, tokens/s", *(f"budget {budget:.0%}" for budget in budgets)), rows)


def _pair(step: Any) -> tuple[list[float], list[float]]:
    return step["tokens_per_second"], step["gain"]


def foresight() -> str:
    """What it gains to know a routing early."""
    heads = (
        "decode", "budget", "known", "tokens/s", "gain", "MB read a token", "I/O of the time", "compute", "T / ideal",
    )  # fmt: skip
    rows = [
        (
            r["format"], f"{r['budget']:.0%}", r["known"], f"{r['tokens_per_second']:.1f}", f"{r['gain']:.2f} x",
            f"{r['read_bytes_per_token'] / 1e6:.0f}", f"{r['io_share']:.0%}", f"{r['compute_share']:.0%}",
            f"{r['ideal_ratio']:.2f}",
        )
        for r in stored("foresight")["runs"]
    ]  # fmt: skip
    return markdown(heads, rows, left=3)


def main() -> None:
    """Fill the document."""
    tables = {
        "frame": frame(),
        "products-small": products(*SHAPES[0]),
        "products-large": products(*SHAPES[1]),
        "decode": streaming("decode"),
        "prefill": streaming("prefill"),
        "ablation": ablation(),
        "foresight": foresight(),
    }
    replace_tables(DOCUMENT, "edge_tables", tables)
    print(DOCUMENT)


if __name__ == "__main__":
    main()
