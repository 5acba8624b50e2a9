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
