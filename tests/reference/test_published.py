# SPDX-License-Identifier: Apache-2.0
"""The published errors are those of this code: the JSON is computed again, and the page shows the JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.approximations import RESULTS, Row, measure, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "approximations.md"


def published() -> tuple[Row, ...]:
    return tuple(Row(**entry) for entry in json.loads(RESULTS.read_text(encoding="utf-8"))["rows"])


def test_results_are_current() -> None:
    for old, new in zip(published(), measure(), strict=True):
        assert (old.quantity, old.domain, old.unit) == (new.quantity, new.domain, new.unit)
        assert new.max_error == pytest.approx(old.max_error, rel=1e-6), old.quantity
        assert new.mean_error == pytest.approx(old.mean_error, rel=1e-6), old.quantity


def test_page_shows_the_results() -> None:
    shown = PAGE.read_text(encoding="utf-8").split("<!-- table: begin -->\n")[1].split("\n<!-- table: end -->")[0]
    assert shown == table(published())
