# SPDX-License-Identifier: Apache-2.0
"""Compiles programs of hls/ with g++ for a machine of a given size."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codesign.assets import asset
from codesign.emit import render_hls_config
from codesign.schedule.design import MachineSize

HLS = asset("hls")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")


def ap_types() -> Path:
    """The folder of ap_int.h and hls_stream.h, from the hls4ml wheel (found without importing it)."""
    spec = find_spec("hls4ml")
    assert spec is not None, "hls4ml must be installed; pip install 'codesign[sim]'"
    assert spec.origin is not None
    return Path(spec.origin).parent / "templates" / "vivado" / "ap_types"


def compile_hls(
    folder: Path, size: MachineSize, sources: tuple[str, ...], standard: str, options: tuple[str, ...] = ()
) -> Path:
    """A program built from files of `hls/` for a machine of that size. Fails on any warning in our files."""
    (folder / "codesign_config.hpp").write_text(render_hls_config(size), encoding="utf-8")
    program = folder / "program"
    include = (f"-I{folder}", f"-I{HLS / 'include'}", "-isystem", str(ap_types()))
    files = (str(HLS / source) for source in sources)
    command = ["g++", f"-std={standard}", "-O2", *WARNINGS, *options, *include, *files, "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[:4000]
    return program


def evaluate(units: Path, name: str, records: npt.NDArray[np.int64], outputs: int) -> npt.NDArray[np.int64]:
    """The results [n, outputs] of a unit of hls/tests/units.cpp, for n records."""
    done = subprocess.run([str(units), name], input=records.astype("<i8").tobytes(), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, dtype="<i8").reshape(len(records), outputs)
