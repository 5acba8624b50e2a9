# SPDX-License-Identifier: Apache-2.0
"""Routing traces: the file, the draws, and SRP and SCH against their definitions."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.experts.run.analyze import analyze
from codesign.experts.run.routing import RoutingTrace, drawn_trace, trace_of_gates


def brute(trace: RoutingTrace, layers: list[int], length: int, size: int) -> tuple[float, float]:
    """SRP by trying every threshold, and SCH by counting, window by window."""
    sequences: list[list[int]] = []
    for number, tokens in enumerate(trace.batches):
        rows = list(range(trace.rows(number).start, trace.rows(number).stop))
        if tokens == 1 and number and trace.batches[number - 1] == 1:
            sequences[-1] += rows
        else:
            sequences.append(rows)
    counts, hits, total = [], 0, 0
    for layer in layers:
        for rows in sequences:
            for begin in range(len(rows) - length + 1):
                c = [0] * trace.num_experts
                for t in rows[begin : begin + length]:
                    for e, g in zip(trace.experts[t, layer], trace.gates[t, layer], strict=True):
                        c[e] += g > 0
                counts += c
                hits += sum(sorted(c)[-size:])
                total += sum(c)
    best = 0.0
    for m in range(1, length + 1):
        chosen = [c for c in counts if c >= m]
        best = max(best, 2 * sum(chosen) / (length * len(chosen) + sum(counts)))
    return best, hits / total


@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    experts=st.integers(1, 6),
    layers=st.integers(1, 2),
    length=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_srp_and_sch_are_their_definitions(
    batches: list[int], experts: int, layers: int, length: int, seed: int
) -> None:
    trace = drawn_trace(layers, experts, min(2, experts), (*batches, 6), seed)
    result = analyze(trace, (length,))
    for row in result.rows:
        each = list(range(layers)) if row.layer is None else [row.layer]
        for size, rate in row.sch:
            srp, sch = brute(trace, each, length, size)
            assert row.srp == pytest.approx(srp)
            assert rate == pytest.approx(sch)


def test_tokens_that_all_choose_alike_are_perfectly_consistent() -> None:
    gates = np.zeros((20, 5), dtype=np.uint16)
    gates[:, [1, 3]] = 1000
    result = analyze(trace_of_gates("alike", [[gates]]), (4, 16))
    assert {row.srp for row in result.rows} == {1.0}
    assert {rate for row in result.rows for size, rate in row.sch if size >= 2} == {1.0}
    assert result.mean_choices == 2


def test_windows_longer_than_a_sequence_are_left_out() -> None:
    trace = drawn_trace(1, 4, 2, (5, 5), 0)
    assert {row.segment for row in analyze(trace).rows} == {4}
    with pytest.raises(InputError, match=r"^segments must be at most the 5 tokens of a sequence, not 6; lower them$"):
        analyze(trace, (6,))
    with pytest.raises(InputError, match=r"^segments must be at least 1 token, not 0; choose other lengths$"):
        analyze(trace, (0,))


def test_drawn_traces_are_skewed_and_local() -> None:
    """Far from uniform and independent: some experts are hot, and neighbours choose alike."""
    trace = drawn_trace(2, 64, 8, (1,) * 400, seed=7)
    use = np.bincount(trace.experts[:, 0].ravel(), minlength=64) / trace.experts[:, 0].size
    assert np.sort(use)[-8:].sum() > 2 * 8 / 64
    same = [len(set(a) & set(b)) for a, b in zip(trace.experts[1:, 0], trace.experts[:-1, 0], strict=True)]
    far = [len(set(a) & set(b)) for a, b in zip(trace.experts[200:, 0], trace.experts[:-200, 0], strict=True)]
    assert np.mean(same) > 1.3 * np.mean(far) > 1.3 * 1.0  # by chance 1 of 8
    again = drawn_trace(2, 64, 8, (1,) * 400, seed=7)
    assert np.array_equal(trace.experts, again.experts)
    other = drawn_trace(2, 64, 8, (1,) * 400, seed=8)
    shared = np.corrcoef(use, np.bincount(other.experts[:, 0].ravel(), minlength=64))[0, 1]
    assert shared > 0.5  # the same popularity, other draws


def test_drawn_traces_are_as_skewed_as_a_measured_one() -> None:
    """Figures of OLMoE-1B-7B on 49,152 tokens (huggingface.co/datasets/mkvn/quantization-cache-amplification)."""
    trace = drawn_trace(16, 64, 8, (1,) * 2000, seed=1)
    used = np.zeros((2000, 16, 64), dtype=bool)
    np.put_along_axis(used, trace.experts.astype(np.int64), True, axis=2)
    again = (used[1:] & used[:-1]).sum() / used[1:].sum()
    assert abs(again - 0.372) < 0.02  # mean of 14 layers, which lie between 0.25 and 0.47
    shares = np.sort(used.mean(axis=0).ravel() / 8 / 16)[::-1]
    assert abs(shares[:20].sum() - 0.0625) < 0.01
    assert abs(shares[:51].sum() - 0.1348) < 0.015
    pairs = np.random.default_rng(0).integers(0, 2000, (2, 400))
    assert abs((used[pairs[0]] | used[pairs[1]]).sum(axis=2).mean() - 14.635) < 0.2


def test_a_trace_comes_back(tmp_path: Path) -> None:
    trace = drawn_trace(3, 9, 2, (4, 1, 2), 5)
    trace.save(tmp_path / "trace")
    back = RoutingTrace.load(tmp_path / "trace")
    assert (back.source, back.batches, back.num_experts) == (trace.source, trace.batches, trace.num_experts)
    assert np.array_equal(back.experts, trace.experts)
    assert np.array_equal(back.gates, trace.gates)
    for batch in range(3):
        gates = back.dense_gates(batch, 1)
        again = trace_of_gates("", [[back.dense_gates(batch, n) for n in range(3)]])
        assert np.array_equal(again.dense_gates(0, 1), gates)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace"
    drawn_trace(1, 4, 2, (3,), 1).save(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^trace .*; record|^trace .* has not"):
        RoutingTrace.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"format": "other"},
        {"num_experts": "4"},
        {"num_experts": -1},
        {"shape": [3, 1]},
        {"shape": [1 << 40, 1, 2]},
        {"batches": [2]},
        {"batches": None},
        {"num_experts": 1},
    ],
)
def test_wrong_headers_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "trace"
    drawn_trace(1, 4, 2, (3,), 1).save(path)
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 8)[0]
    header = json.dumps({**json.loads(content[16 : 16 + length]), **change}).encode()
    data = content[16 + length :]
    crc = zlib.crc32(data, zlib.crc32(header))
    path.write_bytes(struct.pack("<8sII", b"CDGTRACE", len(header), crc) + header + data)
    with pytest.raises(InputError):
        RoutingTrace.load(path)


def test_a_missing_trace_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be readable: No such file or directory; record one with --record$"):
        RoutingTrace.load(tmp_path / "none")
