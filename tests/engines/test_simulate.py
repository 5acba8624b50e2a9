# SPDX-License-Identifier: Apache-2.0
"""Every engine computes the same bits; and whoever changes one bit turns the verdict red."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codesign.engines import ENGINES, Bundle, Engine, load_profiles, load_result, simulate
from codesign.errors import InputError
from codesign.schedule.isa import BEAT_BYTES, Opcode
from tests.conftest import restamp, take_build

KEYS = [
    "engine", "images", "tasks", "bit_exact", "mismatches", "cycles", "macs", "macs_per_cycle", "mac_utilisation",
    "seconds",
]  # fmt: skip


def test_every_engine_has_an_implementation() -> None:
    assert set(ENGINES) == set(Engine)


@pytest.mark.parametrize("engine", [Engine.REFERENCE, Engine.CSIM])
def test_bit_exact(bundle: Path, engine: Engine) -> None:
    result = simulate(bundle, engine, trace_tensors=True)
    assert result.bit_exact
    content = json.loads(result.to_json())
    assert list(content) == KEYS
    assert content["engine"] == engine.value
    assert (content["images"], content["tasks"], content["mismatches"]) == (3, ["semseg", "depth"], [])
    assert content["bit_exact"] is True
    assert content["cycles"] is content["macs_per_cycle"] is content["mac_utilisation"] is None
    assert content["macs"] == 3 * sum(task.macs for task in Bundle.load(bundle).manifest.tasks)


@pytest.mark.parametrize("traced", [False, True])
def test_rtlsim_is_bit_exact(bundle: Path, traced: bool) -> None:
    result = simulate(bundle, Engine.RTLSIM, trace_tensors=traced)
    assert result.bit_exact, result.mismatches
    content = json.loads(result.to_json())
    cycles = content["cycles"]
    assert list(cycles) == ["semseg", "depth"]
    assert all(len(each) == 3 and min(each) > 0 for each in cycles.values())
    assert content["macs_per_cycle"] == content["macs"] / sum(map(sum, cycles.values()))
    assert content["mac_utilisation"] == content["macs_per_cycle"] / (16 * 16)
    loaded = Bundle.load(bundle)
    if not traced:
        for profile in load_profiles(loaded):
            task = loaded.task(profile.task)
            assert len(profile.instruction_cycles) == task.num_instructions
            assert sum(profile.instruction_cycles) <= np.mean(cycles[profile.task])
            assert profile.written_bytes == task.output_bytes
            assert profile.read_bytes >= loaded.manifest.image.bytes


def test_tasks_limit_images_and_progress(bundle: Path, tmp_path: Path) -> None:
    own = np.load(bundle / "data" / "images.npy")
    for index in (2, 0):
        Image.fromarray(own[index]).save(tmp_path / f"{index}.png")
    seen: list[tuple[int, int]] = []
    result = simulate(
        bundle,
        Engine.CSIM,
        ("depth", "depth"),
        tmp_path,
        limit=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (result.tasks, result.images, result.bit_exact) == (("depth",), 1, True)
    assert seen[-1] == (1, 1)


def test_result_is_kept_and_read_back(copy: Path) -> None:
    result = simulate(copy, Engine.REFERENCE)
    kept = load_result(Bundle.load(copy), Engine.REFERENCE)
    assert kept is not None
    assert kept.to_json() == result.to_json()
    assert load_result(Bundle.load(copy), Engine.CSIM) is None
    assert load_profiles(Bundle.load(copy)) == ()
    (copy / "results" / "reference.json").write_text('{"engine": "reference"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"must be a result of codesign simulate; simulate on reference again"):
        load_result(Bundle.load(copy), Engine.REFERENCE)
    assert not list((copy / "build").iterdir())


def test_foreign_images_have_no_golden_outputs(bundle: Path, tmp_path: Path) -> None:
    """The reference judges the others; only the bundle's own images have golden outputs that judge it."""
    images = np.load(bundle / "data" / "images.npy") ^ 255
    np.save(tmp_path / "other.npy", images)
    assert simulate(bundle, Engine.REFERENCE, images=tmp_path / "other.npy").bit_exact
    assert simulate(bundle, Engine.CSIM, images=tmp_path / "other.npy").bit_exact


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ("flow",)}, r"task must be one of semseg, depth, not 'flow'"),
        ({"images": Path("nowhere.npy")}, r"images must be a \.npy file or a folder of PNGs"),
        ({"limit": 0}, r"jobs and limit must be at least 1"),
        ({"jobs": 0}, r"jobs and limit must be at least 1"),
    ],
)
def test_bad_arguments(bundle: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(bundle, Engine.CSIM, **arguments)


# ---- mutations: one bit, and the verdict is red ----


def flip(file: Path, byte: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[byte] ^= 1 << bit
    file.write_bytes(content)


def head_weight_byte(bundle: Path, task: str) -> int:
    """Where in memory.bin the first weight of a task's last LINEAR, its head, lies."""
    loaded = Bundle.load(bundle)
    entry = loaded.task(task)
    head = [i for i in loaded.instructions(entry) if i.opcode is Opcode.LINEAR][-1]
    ports = loaded.manifest.machine.ports
    line = head.mem_addr + loaded.size.record_blocks * loaded.size.block_lines
    assert loaded.manifest.memory.bytes % ports == 0
    return line * BEAT_BYTES  # in the first stripe


def mutate_weight(bundle: Path) -> None:
    flip(bundle / "data" / "memory.bin", head_weight_byte(bundle, "depth"), 6)


def mutate_golden(bundle: Path) -> None:
    file = bundle / "data" / "golden_depth.npy"
    flip(file, file.stat().st_size - np.load(file).shape[1], 0)  # the first element of the last image


def mutate_cpp_table(bundle: Path) -> None:
    """The lowest bit of GELU's table at its peak, where activations live."""
    file = bundle / "hls" / "include" / "codesign" / "codesign_config.hpp"
    text = file.read_text(encoding="utf-8")
    start = text.index("{", text.index("GeluDeltaTable")) + 1
    end = text.index("}", start)
    entries = [int(e) for e in text[start:end].replace("\n", " ").split(",") if e.strip()]
    entries[4] ^= 1 << 6
    file.write_text(text[:start] + ", ".join(map(str, entries)) + text[end:], encoding="utf-8")


def mutate_rtl_rounding(bundle: Path) -> None:
    """Half up becomes down: the constant 1 of the rounding shift becomes 0."""
    file = bundle / "rtl" / "round_shift.sv"
    text = file.read_text(encoding="utf-8")
    assert text.count("clamped_q + 18'sd1") == 1
    file.write_text(text.replace("clamped_q + 18'sd1", "clamped_q + 18'sd0"), encoding="utf-8")


Mutation = Callable[[Path], None]


@pytest.mark.parametrize("mutation", [mutate_weight, mutate_golden, mutate_cpp_table, mutate_rtl_rounding])
def test_mutated_files_are_refused(copy: Path, mutation: Mutation) -> None:
    """Without a new hash in the manifest nothing runs at all."""
    mutation(copy)
    with pytest.raises(InputError, match=r"must have the hash in the manifest"):
        simulate(copy, Engine.CSIM)


@pytest.mark.parametrize(
    ("engine", "mutation", "tasks"),
    [
        (Engine.REFERENCE, mutate_golden, {"depth"}),
        (Engine.CSIM, mutate_weight, {"depth"}),
        (Engine.CSIM, mutate_cpp_table, {"semseg", "depth"}),
        (Engine.RTLSIM, mutate_rtl_rounding, {"semseg", "depth"}),
    ],
)
def test_one_bit_turns_the_verdict_red(copy: Path, engine: Engine, mutation: Mutation, tasks: set[str]) -> None:
    mutation(copy)
    restamp(copy)
    result = simulate(copy, engine)
    assert not result.bit_exact
    assert {one.task for one in result.mismatches} == tasks
    first = result.mismatches[0]
    assert first.expected != first.found
    assert json.loads(result.to_json())["bit_exact"] is False


def test_one_weight_bit_turns_rtlsim_red(bundle: Path, copy: Path) -> None:
    take_build(bundle, Engine.RTLSIM, copy)
    mutate_weight(copy)
    restamp(copy)
    result = simulate(copy, Engine.RTLSIM, trace_tensors=True)
    assert {(one.task, one.tensor) for one in result.mismatches} == {("depth", "depth")}


def test_intermediate_difference_is_named(copy: Path) -> None:
    """With every tensor compared, the first one that differs is the one the mutation breaks."""
    mutate_cpp_table(copy)
    restamp(copy)
    result = simulate(copy, Engine.CSIM, trace_tensors=True)
    traced = [t.tensor for t in Bundle.load(copy).task("semseg").traced.tensors]
    first = result.mismatches[0]
    assert first.tensor in traced
    assert "fc1" in first.tensor or "gelu" in first.tensor
    assert str(first).startswith(f"task semseg, image 0: {first.tensor}[")
