# SPDX-License-Identifier: Apache-2.0
"""Charts: lengths are proportional, labels escaped, the XML well-formed."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from codesign.report import svg


def rects(text: str) -> list[dict[str, str]]:
    return [dict(e.attrib) for e in ET.fromstring(text).iter() if e.tag == "rect"]


def test_bars_share_one_scale() -> None:
    rows = [
        svg.Bar("a & <b>", ((30.0, "#111111"), (10.0, "#222222")), "40", "a"),
        svg.Bar("c", ((20.0, "#111111"), (0.0, "#222222")), "20", "c"),
    ]
    found = [float(r["width"]) for r in rects(svg.bars(rows, "chart"))]
    assert len(found) == 3
    assert np.allclose([w / found[0] for w in found], [1, 1 / 3, 2 / 3], atol=0.01)
    texts = [e.text for e in ET.fromstring(svg.bars(rows, "chart")).iter() if e.tag == "text"]
    assert "a & <b>" in texts


def test_timeline_fills_its_width() -> None:
    text = svg.timeline([svg.Segment("x", 250, "#111111"), svg.Segment("y", 750, "#222222")], "time")
    _, second = rects(text)
    assert abs(float(second["x"]) / (float(second["x"]) + float(second["width"])) - 0.25) < 0.01
    ticks = [e.text for e in ET.fromstring(text).iter() if e.tag == "text"]
    assert ticks == ["0", "200", "400", "600", "800", "1,000"]


def test_heatmap_darkens_with_the_value() -> None:
    text = svg.heatmap(np.array([[0.0, 5.0, 10.0]]), ["row"], ["0", "1", "2"], "load")
    shades = [int(r["fill"][1:3], 16) for r in rects(text)]
    assert shades[0] > shades[1] > shades[2]
    assert [e.text for e in ET.fromstring(text).iter() if e.tag == "text"][-3:] == ["0", "5", "10"]


def test_an_area_lies_between_its_edges() -> None:
    box = svg.Box(10, 20, 40, 100)
    text = svg.area(box, np.array([0.0, 0.0, 0.0, 0.25]), np.array([0.5, 0.5, 0.0, 1.0]), "#111111", "a & b")
    path = ET.fromstring(text).attrib["d"]
    assert path == "M10.0 120.0V70.0H30.0V120.0H10.0ZM40.0 95.0V20.0H50.0V95.0H40.0Z"
    assert svg.area(box, np.zeros(4), np.zeros(4), "#111111", "nothing") == ""


def test_a_diamond_points_right() -> None:
    corners = ET.fromstring(svg.marker(10, 20, 5, 4, "#111111", "x")).attrib["points"]
    assert corners == "15.0,20.0 10.0,25.0 5.0,20.0 10.0,15.0"
    assert ET.fromstring(svg.marker(10, 20, 5, 0, "#111111", "x")).attrib["r"] == "5.0"


def test_boxes() -> None:
    box = svg.Box(0, 0, 10, 10)
    assert box.touches(svg.Box(10, 10, 5, 5))
    assert not box.touches(svg.Box(11, 0, 5, 5))
    assert box.holds(svg.Box(1, 1, 9, 9))
    assert not box.holds(svg.Box(1, 1, 10, 5))


def test_empty_charts_are_charts() -> None:
    for text in (svg.bars([], "x"), svg.timeline([], "x"), svg.heatmap(np.zeros((1, 1)), ["a"], ["0"], "x")):
        ET.fromstring(text)
