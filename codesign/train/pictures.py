# SPDX-License-Identifier: Apache-2.0
"""Pictures for the docs: a contact sheet of DigitScenes, and predictions beside the truth. Needs Pillow."""

from __future__ import annotations

import colorsys
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from codesign.train.digitscenes import HEIGHT, NUM_CLASSES, WIDTH, Scenes

U8 = npt.NDArray[np.uint8]

_GAP = 4
_TITLE = 14


def class_colours() -> U8:
    """One colour per class, [classes, 3]; background is nearly black."""
    hues = [colorsys.hsv_to_rgb(d / 10, 0.85 if d % 2 else 0.6, 1.0) for d in range(NUM_CLASSES - 1)]
    return np.array([(24, 24, 28), *(tuple(round(255 * v) for v in rgb) for rgb in hues)], np.uint8)


def colour_classes(semseg: U8) -> U8:
    """Class map [height, width] to colours [height, width, 3]."""
    return np.asarray(class_colours()[semseg], np.uint8)


def colour_depth(depth: npt.NDArray[np.floating]) -> U8:
    """Depth map [height, width] to a blue (far) to yellow (near) ramp on a logarithmic scale."""
    near = np.clip(-np.log2(np.maximum(depth, 1e-3)) / 3.0, 0.0, 1.0)[..., None]
    far_colour, near_colour = np.array((25, 35, 95.0)), np.array((255, 225, 90.0))
    return np.asarray(np.rint(far_colour + (near_colour - far_colour) * near), np.uint8)


def grid(rows: list[list[U8]], titles: list[str], zoom: int = 2) -> Image.Image:
    """Tiles [height, width, 3] in rows, enlarged, with a title over each column."""
    width, height = WIDTH * zoom, HEIGHT * zoom
    size = (len(titles) * (width + _GAP) + _GAP, _TITLE + len(rows) * (height + _GAP) + _GAP)
    sheet = Image.new("RGB", size, (250, 250, 250))
    draw = ImageDraw.Draw(sheet)
    for c, title in enumerate(titles):
        left = _GAP + c * (width + _GAP)
        draw.text((left, 2), title, fill=(20, 20, 20))
        for r, row in enumerate(rows):
            tile = Image.fromarray(row[c]).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, _TITLE + _GAP + r * (height + _GAP)))
    return sheet


def contact_sheet(data: Scenes, columns: int = 2) -> Image.Image:
    """All scenes of `data`, each as image, classes and depth, `columns` scenes a row."""
    tiles = [[data.images[i], colour_classes(data.semseg[i]), colour_depth(data.depth[i])] for i in range(len(data))]
    rows = [list(chain.from_iterable(tiles[i : i + columns])) for i in range(0, len(tiles), columns)]
    return grid(rows, ["image", "classes", "depth"] * columns)


def prediction_sheet(data: Scenes, semseg: U8, depth: npt.NDArray[np.floating]) -> Image.Image:
    """Image, true and predicted classes, true and predicted depth, one scene a row."""
    rows = [
        [
            data.images[i], colour_classes(data.semseg[i]), colour_classes(semseg[i]),
            colour_depth(data.depth[i]), colour_depth(depth[i]),
        ]
        for i in range(len(data))
    ]  # fmt: skip
    return grid(rows, ["image", "classes, true", "classes, predicted", "depth, true", "depth, predicted"])


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
