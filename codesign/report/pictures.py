# SPDX-License-Identifier: Apache-2.0
"""Sample predictions as small PNGs inside the page."""

from __future__ import annotations

import base64
import io
from colorsys import hsv_to_rgb
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from codesign.report.measure import Measurement, Prediction
from codesign.train.digitscenes import NUM_CLASSES
from codesign.train.pictures import colour_classes, colour_depth

SAMPLES = 4

U8 = npt.NDArray[np.uint8]


def samples(measured: Measurement) -> str:
    """A table with one image a row: the input, then for each task the truth (where known) and the prediction."""
    titles = ["input"]
    for one in measured.predictions:
        task = one.output.task
        titles += [
            f"{task}: {what}"
            for what in (("truth", "prediction") if _truth(measured, one, 0) is not None else ("prediction",))
        ]
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    rows = "".join(_row(measured, index) for index in range(min(SAMPLES, len(measured.images))))
    return f'<table class="pictures"><tr>{head}</tr>{rows}</table>'


def _row(measured: Measurement, index: int) -> str:
    cells = [_picture(measured.images[index], f"test image {index}")]
    for one in measured.predictions:
        truth = _truth(measured, one, index)
        if truth is not None:
            cells.append(_picture(truth, f"{one.output.task} of image {index}, truth"))
        cells.append(_picture(_colour(one, one.maps[index]), f"{one.output.task} of image {index}, predicted"))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _truth(measured: Measurement, one: Prediction, index: int) -> U8 | None:
    if measured.truth is None:
        return None
    known = {"semseg": measured.truth.semseg.astype(np.float64), "depth": measured.truth.depth.astype(np.float64)}
    labels = known.get(one.output.task)
    return None if labels is None else _colour(one, labels[index])


def _colour(one: Prediction, values: npt.NDArray[np.float64]) -> U8:
    if one.output.classes == 1:
        return colour_depth(values)
    classes = values.astype(np.uint8)
    return colour_classes(classes) if one.output.classes <= NUM_CLASSES else _hues(one.output.classes)[classes]


def _hues(classes: int) -> U8:
    """Colours for a data set that brings none: hues a golden section apart, class 0 dark."""
    hues = (hsv_to_rgb(0.618034 * n % 1.0, 0.65, 0.7 + 0.1 * (n % 3)) for n in range(1, classes))
    return (np.asarray([(0.15, 0.15, 0.18), *hues]) * 255).round().astype(np.uint8)


def _picture(pixels: U8, label: str) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(label, quote=True)}">'
