# SPDX-License-Identifier: Apache-2.0
"""Local routing consistency of a trace: SRP and SCH of Liang et al. 2025 (arXiv 2505.16056, "moe-lrc").

Windows of L neighbouring tokens slide over a sequence; c[w, e] tokens of window w choose expert e.

SRP(L), segment routing best performance: the F1 score of the best router that must decide once for a whole window. The
best one takes the experts with c[w, e] >= m for some m:
`SRP = max over m of 2 * S(m) / (L * N(m) + S(0))` with `S(m)` the sum, and `N(m)` the number, of all c[w, e] >= m.

SCH(L, C), segment cache best hit rate: the share of choices that a cache of C experts hits when its content is fixed
for a window at best: `SCH = (sum over w of the C largest c[w, e]) / (sum of all c[w, e])`.

A sequence is a batch of several tokens (an image, a prompt), or neighbouring batches of one token (decoding).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.experts.run.routing import RoutingTrace

SEGMENTS = (4, 16, 64, 256)
"""Window lengths, as in the paper's code."""
CACHE_FACTORS = (1.0, 1.5, 2.0, 3.0)
"""Cache sizes, in multiples of the experts that a token chooses."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Consistency:
    """A layer (or all of them: None) at one window length. `sch`: by cache size, in experts a layer."""

    layer: int | None
    segment: int
    windows: int
    srp: float
    threshold: int
    """The m of the best router."""
    sch: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Analysis:
    """A whole trace. `uniform`: what SRP and SCH would be at best by chance is not zero; experts and choices say it."""

    source: str
    tokens: int
    layers: int
    num_experts: int
    mean_choices: float
    """Experts a token chooses, on average."""
    rows: tuple[Consistency, ...]


def analyze(trace: RoutingTrace, segments: Sequence[int] = SEGMENTS) -> Analysis:
    """SRP and SCH of each layer, and of all. Window lengths that no sequence reaches are left out.

    Raises InputError when a window length is below 1, or the trace is shorter than all of them.
    """
    for length in segments:
        if length < 1:
            raise InputError(f"segments must be at least 1 token, not {length!r}; choose other lengths")
    sequences = list(_sequences(trace))
    longest = max(end - begin for begin, end in sequences)
    fitting = [length for length in segments if length <= longest]
    if not fitting:
        raise InputError(
            f"segments must be at most the {longest} tokens of a sequence, not {min(segments)}; lower them"
        )
    chosen = _chosen(trace)
    k = float(chosen.sum()) / max(1, chosen.shape[0] * chosen.shape[1])
    sizes = sorted({min(trace.num_experts, max(1, round(factor * k))) for factor in CACHE_FACTORS})
    rows = []
    for length in fitting:
        each = [
            np.concatenate([_windows(chosen[begin:end, layer], length) for begin, end in sequences])
            for layer in range(trace.layers)
        ]
        rows += [_consistency(layer, length, [counts], sizes) for layer, counts in enumerate(each)]
        rows.append(_consistency(None, length, each, sizes))
    return Analysis(trace.source, len(chosen), trace.layers, trace.num_experts, k, tuple(rows))


def _sequences(trace: RoutingTrace) -> Iterator[tuple[int, int]]:
    begin = end = 0
    single = False
    for tokens in trace.batches:
        if end > begin and not (single and tokens == 1):
            yield begin, end
            begin = end
        end, single = end + tokens, tokens == 1
    yield begin, end


def _chosen(trace: RoutingTrace) -> npt.NDArray[np.bool_]:
    """Whether a token chooses an expert, [tokens, layers, experts]."""
    made = np.zeros((*trace.experts.shape[:2], trace.num_experts), dtype=np.bool_)
    at = np.nonzero(trace.gates)
    made[at[0], at[1], trace.experts[at]] = True
    return made


def _windows(chosen: npt.NDArray[np.bool_], length: int) -> Counts:
    """c[w, e] of every window of a sequence [T, E]."""
    total = np.zeros((len(chosen) + 1, chosen.shape[1]), dtype=np.int64)
    total[1:] = chosen.cumsum(axis=0)
    counts: Counts = total[length:] - total[:-length] if length <= len(chosen) else total[:0]
    return counts


def _consistency(layer: int | None, length: int, each: list[Counts], sizes: list[int]) -> Consistency:
    """Of several layers: one router with one threshold for all of them, and a cache of the same size in each."""
    found = np.concatenate([counts.ravel() for counts in each])
    histogram = np.bincount(found, minlength=length + 1)
    number = histogram[::-1].cumsum()[::-1]
    matches = (histogram * np.arange(length + 1))[::-1].cumsum()[::-1]
    f1 = 2 * matches / np.maximum(1, length * number + matches[0])
    best = int(np.argmax(f1[1:])) + 1
    total = max(1, int(matches[0]))
    ranked = [-np.sort(-counts, axis=1) for counts in each]
    sch = tuple((size, sum(int(counts[:, :size].sum()) for counts in ranked) / total) for size in sizes)
    return Consistency(layer, length, sum(len(counts) for counts in each), float(f1[best]), best, sch)
