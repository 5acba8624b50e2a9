# SPDX-License-Identifier: Apache-2.0
"""A bundle is checked before use: whatever is missing, foreign or changed is named in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from codesign.engines import Bundle
from codesign.errors import InputError


def test_load(bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    assert loaded.graph.tasks == ("semseg", "depth")
    assert loaded.peak_macs_per_cycle == 16 * 16
    assert len(loaded.golden("depth")) == len(loaded.images) == 3


def refuse(folder: Path, pattern: str) -> None:
    with pytest.raises(InputError, match=pattern) as caught:
        Bundle.load(folder)
    assert "\n" not in str(caught.value)


def test_no_bundle(tmp_path: Path) -> None:
    refuse(tmp_path, r"bundle .* must be a folder with a manifest\.json, and there is none; run codesign generate")
    refuse(tmp_path / "nowhere", r"must be a folder with a manifest\.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', "\x00\x01"])
def test_foreign_manifest(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text, encoding="utf-8")
    refuse(copy, r"manifest\.json must be a manifest of format 2: .*; generate it again")


def test_truncated_manifest(copy: Path) -> None:
    whole = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").write_bytes(whole[: len(whole) // 2])
    refuse(copy, r"must be a manifest of format 2")


@pytest.mark.parametrize("name", ["data/memory.bin", "data/graph.json", "rtl/codesign_pkg.sv", "driver/driver.py"])
def test_changed_file(copy: Path, name: str) -> None:
    file = copy / name
    file.write_bytes(file.read_bytes() + b" ")
    refuse(copy, rf"{re.escape(name)} must have the hash in the manifest, \w{{12}}, not \w{{12}}; generate it again")


@pytest.mark.parametrize("name", ["data/memory.bin", "data/golden_depth.npy", "hls/src/top.cpp"])
def test_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    refuse(copy, rf"bundle .* must hold {re.escape(name)}: No such file or directory; generate it again")


def test_unlisted_file(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"] = [f for f in manifest["files"] if f["path"] != "data/golden_depth.npy"]
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    refuse(copy, r"must list data/golden_depth\.npy in its manifest, and it does not; generate it again")


def test_unknown_task(bundle: Path) -> None:
    with pytest.raises(InputError, match=r"task must be one of semseg, depth, not 'flow'; choose one of those"):
        Bundle.load(bundle).task("flow")


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("machine", "simd"), 32, r"must name the machine that was generated: design_hash of its sizes is"),
        (("machine", "act_words"), 77, r"design_hash of its sizes"),
        (("machine", "design_hash"), 1, r"design_hash of its sizes is \d+, not 1;"),
        (("machine", "isa_version"), 1, r"isa_version of its sizes is 2, not 1;"),
        (("machine", "ports"), 3, r"ports must be 1, 2 or 4"),
        (("registers", 0, "offset"), 512, r"must have register memory_base at 16, not 512;"),
        (("memory", "bytes"), 64, r"must give memory the \d+ bytes of its file, not 64;"),
        (("tasks", 0, "num_instructions"), 5, r"must describe the 5 instructions of task semseg, not \d+;"),
        (("tasks", 1, "program_addr"), 10**9, r"must have the Program of task depth end within memory's \d+ bytes"),
        (("tasks", 0, "traced", "num_instructions"), 10**6, r"must have the Program of task semseg end within"),
        (("image", "patch"), 1, r"must describe the graph's image, \(.*\), in whole lines"),
        (("image", "bytes"), 7, r"must describe the graph's image"),
        (("tasks", 0, "result", "tensor"), "foo", r"must describe tensors of the graph, not rows 0 to \d+ of foo"),
        (("tasks", 0, "traced", "tensors", 0, "rows"), 10**6, r"tensors of the graph, not rows 0 to 1000000"),
        (("clock_mhz",), 0, r"clock_mhz: Input should be greater than 0"),
    ],
)  # fmt: skip
def test_manifest_of_another_machine(copy: Path, where: tuple[str | int, ...], value: object, words: str) -> None:
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    section = manifest
    for key in where[:-1]:
        section = section[key]
    section[where[-1]] = value
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    refuse(copy, words)
