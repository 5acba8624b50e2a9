# SPDX-License-Identifier: Apache-2.0
"""What tests share, each made once for all workers: a small random bundle, its engines, the shipped models' bundles."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from codesign.emit.bundle import BundleSource, write_bundle
from codesign.engines import Bundle, Engine
from codesign.engines.build import build
from codesign.schedule import ArrayShape, Options, load_board, plan
from tests.digits import Digits, make_digits
from tests.graphs import GraphShape, random_graph

SHAPE = GraphShape(tokens=9, dim=16, experts=4)
ARRAY = ArrayShape(simd=16, pe=16)
IMAGES = 3

GPUS = Path("/dev/nvidia0"), Path("/dev/nvhost-gpu")
if not any(path.exists() for path in GPUS):  # Triton reads this when it is first imported, by whomever
    os.environ["TRITON_INTERPRET"] = "1"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # behind a shell's `&`; what tests start would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def bundle(shared: Path) -> Path:
    """A bundle of a random graph with every operator, two tasks, three images. Tests do not change its files."""
    folder = shared / "bundle"
    with (shared / "bundle.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            graph = random_graph(np.random.default_rng(7), SHAPE)
            spec = graph.image
            shape = (IMAGES, spec.height, spec.width, spec.channels)
            images = np.random.default_rng(8).integers(0, 256, shape, dtype=np.uint8)
            write_bundle(BundleSource(graph, plan(graph, load_board("zcu104"), Options(ARRAY)), images), folder)
    return folder


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, without what was built, for tests that break it."""
    folder = tmp_path / "copy"
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("build", "results", "report.html"))
    return folder


def take_build(bundle: Path, engine: Engine, copy: Path) -> None:
    """Give a copy what is built of an engine, so that it need not build it again. Runs nothing: results are shared."""
    (bundle / "build").mkdir(exist_ok=True)
    build(Bundle.load(bundle), engine, ())
    shutil.copytree(bundle / "build" / engine.value, copy / "build" / engine.value)


def restamp(bundle: Path) -> None:
    """Make the manifest's hashes those of the files as they are now."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    for entry in manifest["files"]:
        entry["sha256"] = hashlib.sha256((bundle / entry["path"]).read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def one_line(text: str) -> str:
    """The text, which must be one line that does not look like a traceback."""
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text.rstrip("\n")


@pytest.fixture(scope="session")
def digits(shared: Path) -> Digits:
    """Bundles of the shipped models and stores of their experts, made once for all workers."""
    made = Digits(shared / "digits")
    with (shared / "digits.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.folder.exists():
            make_digits(Digits(shared / "digits.part"))
            (shared / "digits.part").rename(made.folder)
    return made
