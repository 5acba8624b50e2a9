# SPDX-License-Identifier: Apache-2.0
"""Errors of the integer softmax, GELU and norm against float, over their whole input ranges.

`python benchmarks/approximations.py` writes benchmarks/results/approximations.json and prints the table of
docs/approximations.md. Everything is deterministic; nothing here depends on a trained model.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

import codesign
from codesign.reference import functions as f
from codesign.spec import INT16, Requant

RESULTS = Path(__file__).resolve().parent / "results" / "approximations.json"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One line of the table: absolute errors in `unit`."""

    quantity: str
    domain: str
    unit: str
    max_error: float
    mean_error: float


def row(quantity: str, domain: str, unit: str, error: Floats) -> Row:
    """Maximum and mean of an array of absolute errors."""
    return Row(quantity, domain, unit, float(error.max()), float(error.mean()))


def gelu() -> Iterator[Row]:
    """Every int16 argument, and those inside the interpolated table."""
    u = np.arange(-(1 << 15), 1 << 15, dtype=np.int64)
    x = u / 1024
    exact = 0.5 * x * np.array([math.erfc(-v / math.sqrt(2)) for v in x])
    error = np.abs(f.gelu_fixed(u) / 1024 - exact)
    yield row("GELU", "all 65,536 arguments, -32..32", "absolute", error)
    yield row("GELU", "arguments -4..4 (the table)", "absolute", error[np.abs(u) < 4096])
    knots = np.arange(0, 171) / 32  # what Edge-MoE publishes: step 1/32, linear, in a 32-bit type
    delta = knots * 0.5 * np.array([math.erfc(v / math.sqrt(2)) for v in knots])
    edge_moe = np.maximum(x, 0) - np.interp(np.abs(x), knots, np.round(delta * 2**22) / 2**22, right=0.0)
    yield row("GELU by a table like Edge-MoE's", "same arguments, for comparison", "absolute", np.abs(edge_moe - exact))
    tanh = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    yield row("GELU by tanh, in float", "same arguments, for comparison", "absolute", np.abs(tanh - exact))


def elementary() -> Iterator[Row]:
    """The functions behind softmax and norm, each over every input or every mantissa."""
    d = np.arange(1 << 16, dtype=np.int64)
    power = 2.0 ** (-d / 256)
    yield row("probability p (8 bits)", "all 65,536 score distances", "of 1.0", np.abs(f.probability(d) / 127 - power))
    yield row("2^-x of the router", "all 65,536 logit distances", "of 1.0", np.abs(f.exp2_fixed(d) / 2**15 - power))
    z = np.arange(1, 1 << 22, dtype=np.int64)
    r, e = f.reciprocal(z)
    yield row("1 / z", "all z < 2^22", "relative", np.abs(r * 2.0 ** -(30.0 + e) * z - 1))
    r, e = f.rsqrt(z)
    yield row("1 / sqrt(v)", "all v < 2^22", "relative", np.abs(r * 2.0 ** -(22.0 + e) * np.sqrt(z) - 1))


def _logits(rng: np.random.Generator, rows: int, columns: int) -> npt.NDArray[np.int64]:
    """Base-2 logits with 8 fraction bits; each row has its own spread, from flat to one-hot, inside int16."""
    spread = 2.0 ** rng.uniform(0, 13, (rows, 1))
    return np.clip(np.rint(rng.normal(0, 1, (rows, columns)) * spread), INT16.min, INT16.max).astype(np.int64)


def softmax() -> Iterator[Row]:
    """Whole rows: attention probabilities after normalisation, weighted means, and gates."""
    rng = np.random.default_rng(0)
    for keys in (16, 129, 1024):
        t = _logits(rng, 2000, keys)
        power = 2.0 ** ((t - t.max(axis=1, keepdims=True)) / 256)
        exact = power / power.sum(axis=1, keepdims=True)
        p = f.probability(t.max(axis=1, keepdims=True) - t)
        r, e = f.reciprocal(p.sum(axis=1, keepdims=True))
        found = p * r * 2.0 ** -(30.0 + e)
        yield row("attention softmax", f"2,000 rows of {keys} keys, flat to one-hot", "of 1.0", np.abs(found - exact))
    for experts in (8, 16, 64):
        t = _logits(rng, 20000, experts)
        power = 2.0 ** ((t - t.max(axis=1, keepdims=True)) / 256)
        exact = power / power.sum(axis=1, keepdims=True)
        error = np.abs(f.gates(t, experts) / 2**15 - exact)
        yield row("gates", f"20,000 rows of {experts} experts, flat to one-hot", "of 1.0", error)


def attention() -> Iterator[Row]:
    """Whole heads of 129 tokens: int8 outputs in steps of their scale, against float softmax on the same q, k, v."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(60):
        q, k, v = (np.clip(np.rint(rng.normal(0, 45, (129, 32))), -128, 127).astype(np.int64) for _ in range(3))
        factor = 10.0 ** rng.uniform(-5.5, -3)
        score = Requant.of_scale(factor * math.log2(math.e) * 256, INT16)
        s = factor * (q @ k.T)
        p = np.exp(s - s.max(axis=1, keepdims=True))
        exact = p @ v / p.sum(axis=1, keepdims=True)
        t = f.requantize(f.matmul(q, k, np.zeros(1, dtype=np.int64)), score)
        p8 = f.probability(t.max(axis=1, keepdims=True) - t)
        r, e = f.reciprocal(p8.sum(axis=1, keepdims=True))
        errors.append(np.abs(f.shift_round((p8 @ v) * r, 22 + e) / 256 - exact))
    yield row("attention output", "60 heads of 129 x 32, flat to one-hot", "steps of v", np.concatenate(errors))


def norm() -> Iterator[Row]:
    """Rows of every width, from nearly constant to the whole of int16, with an outlier in every other row."""
    rng = np.random.default_rng(0)
    for dim in (64, 192, 384, 1023):
        spread = 2.0 ** rng.uniform(0, 12, (2000, 1))
        x = rng.normal(0, 1, (2000, dim)) * spread
        x[::2, 0] += 20 * spread[::2, 0]
        q = np.clip(np.rint(x), INT16.min, INT16.max).astype(np.int64)
        q = q[q.std(axis=1) > 0]
        exact = (q - q.mean(axis=1, keepdims=True)) / q.std(axis=1, keepdims=True)
        error = np.abs(f.normalise(q) / 1024 - exact)
        yield row("norm", f"2,000 rows of {dim}, values to +-32", "standard deviations", error)


def measure() -> tuple[Row, ...]:
    """Every row of the table."""
    return (*gelu(), *elementary(), *softmax(), *attention(), *norm())


def table(rows: tuple[Row, ...]) -> str:
    """The rows in Markdown."""
    lines = ["| quantity | inputs | maximum error | mean error | in |", "|---|---|---|---|---|"]
    lines += [f"| {r.quantity} | {r.domain} | {r.max_error:.2e} | {r.mean_error:.2e} | {r.unit} |" for r in rows]
    return "\n".join(lines)


def main() -> None:
    """Measure, write the JSON, print the table."""
    rows = measure()
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "codesign": codesign.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rows": [asdict(r) for r in rows],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    part = RESULTS.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(RESULTS)
    print(table(rows))


if __name__ == "__main__":
    main()
