# SPDX-License-Identifier: Apache-2.0
"""Photographs of any size: crops of the two that come with scikit-learn, a temple under a blue sky and a flower."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from codesign.spec import ImageSpec
from codesign.spec.patches import Pixels

SOURCES = 2
_SMALLEST_CROP = 0.5
"""Side of the smallest crop, relative to the largest one of the same aspect ratio."""


@cache
def _sources() -> tuple[Image.Image, ...]:
    from sklearn.datasets import load_sample_images  # half a second to import, so only when photographs are made

    images = tuple(Image.fromarray(pixels) for pixels in load_sample_images().images)
    assert len(images) == SOURCES
    return images


def photographs(spec: ImageSpec, count: int, rng: np.random.Generator | None = None) -> Pixels:
    """Images uint8 [count, height, width, channels], the two sources in turn.

    Without `rng` each is the largest crop from the middle; with it a crop of random size and place, perhaps mirrored.
    """
    images = [_crop(_sources()[i % SOURCES], spec, rng) for i in range(count)]
    return np.stack([np.asarray(image, dtype=np.uint8).reshape(spec.height, spec.width, -1) for image in images])


def _crop(source: Image.Image, spec: ImageSpec, rng: np.random.Generator | None) -> Image.Image:
    zoom, left, top, mirrored = (1.0, 0.5, 0.5, 1.0) if rng is None else rng.random(4)
    scale = min(source.width / spec.width, source.height / spec.height)
    if rng is not None:
        scale *= _SMALLEST_CROP + (1.0 - _SMALLEST_CROP) * zoom
    width, height = scale * spec.width, scale * spec.height
    x, y = left * (source.width - width), top * (source.height - height)
    box = (x, y, min(x + width, source.width), min(y + height, source.height))
    image = source.resize((spec.width, spec.height), Image.Resampling.LANCZOS, box=box)
    if mirrored < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image if spec.channels > 1 else image.convert("L")
