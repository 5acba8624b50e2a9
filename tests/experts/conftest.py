# SPDX-License-Identifier: Apache-2.0
"""Stores that the tests of the runtime share."""

from __future__ import annotations

import pytest

from codesign.experts.file.store import Store
from codesign.spec.moe import ExpertFormat
from tests.experts.streaming import layer_of, make_store


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[ExpertFormat, bool], Store]:
    folder = tmp_path_factory.mktemp("stores")
    made = {}
    for kind in ExpertFormat:
        for gated in (True, False):
            layers = layer_of("a", gated=gated), layer_of("b", dim=33, hidden=140, gated=gated)
            made[kind, gated] = make_store(folder / f"{kind.value}{gated}", kind, layers)
    return made
