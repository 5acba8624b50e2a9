# SPDX-License-Identifier: Apache-2.0
"""The C-simulation of a machine, built once a session and size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from codesign.schedule.design import MachineSize
from tests.hls.build import compile_hls


@pytest.fixture(scope="session")
def csim(tmp_path_factory: pytest.TempPathFactory) -> Callable[[MachineSize], Path]:
    """`csim(size)`: the C-simulation of a machine of that size."""
    built: dict[MachineSize, Path] = {}

    def build(size: MachineSize) -> Path:
        if size not in built:
            standard = "c++17" if len(built) % 2 else "c++14"  # Vitis HLS reads C++14; both must do
            folder = tmp_path_factory.mktemp("csim")
            built[size] = compile_hls(folder, size, ("src/top.cpp", "tb/csim_main.cpp"), standard)
        return built[size]

    return build
