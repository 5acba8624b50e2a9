# SPDX-License-Identifier: Apache-2.0
"""A small exported model, made once for all workers."""

from __future__ import annotations

import fcntl
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto

from codesign.train.recipe import ExpertWeights
from tests.frontend.conftest import small_model


@pytest.fixture(scope="session")
def exported(shared: Path) -> ModelProto:
    """The model. Tests change copies of it."""
    path = shared / "small.onnx"
    with (shared / "small.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            onnx.save(small_model(ExpertWeights.TERNARY), str(path))
    return onnx.load(str(path))


@pytest.fixture
def model(exported: ModelProto) -> ModelProto:
    """A fresh copy of the exported model."""
    copy = ModelProto()
    copy.CopyFrom(exported)
    return copy
