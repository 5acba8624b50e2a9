# SPDX-License-Identifier: Apache-2.0
"""DigitScenes: road-scene-like composites of the real handwritten digits that come with scikit-learn.

Every image shows a sky, a far skyline, a textured ground with a road that vanishes at the horizon, and three to six
digits that stand on the ground as cut-outs. A pinhole camera decides everything geometric: a ground row `t` (0 at the
horizon, 1 at the bottom) lies at depth `1 / (1 + 7 t)`, and a digit that stands there is `t` times its full height
tall, so nearer digits are bigger, lower and occlude farther ones. Two dense labels come with each image:

* `semseg`: 0 for background, 1..10 for the digits 0..9;
* `depth`: normalised depth in [0.125, 1]; the sky is at 1.

The digits (1797 images of 8x8, `sklearn.datasets.load_digits`) are divided once, by a fixed permutation, into disjoint
sets for train, validation and test. Image `i` of a split depends on the seed, the split and `i` only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError

HEIGHT = 64
WIDTH = 128
NUM_CLASSES = 11
CLASS_NAMES = ("background", *(f"digit {d}" for d in range(10)))
NEAREST_DEPTH = 0.125

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_SPLIT_SEED = 20240229
_DEPTH_RATIO = 1.0 / NEAREST_DEPTH - 1.0
_TRIES = 6


class Split(Enum):
    """The three disjoint sets of digits; the value enters the random seed."""

    TRAIN = 1
    VALIDATION = 2
    TEST = 3


@dataclass(frozen=True)
class Scenes:
    """Images u8 [n, 64, 128, 3] (RGB), class labels u8 [n, 64, 128] and depth f32 [n, 64, 128]."""

    images: U8
    semseg: U8
    depth: F32

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class _Digits:
    bitmaps: F32  # [n, 8, 8], 0..1
    labels: npt.NDArray[np.int64]  # [n], 0..9


@cache
def _all_digits() -> _Digits:
    from sklearn.datasets import load_digits  # half a second to import, so only when scenes are made

    bunch = load_digits()
    return _Digits((bunch.images / 16.0).astype(np.float32), bunch.target.astype(np.int64))


@cache
def digit_indices(split: Split) -> tuple[int, ...]:
    """Indices into `load_digits` that belong to the split: 1197 train, 300 validation, 300 test."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(_all_digits().labels))
    bounds = {Split.TEST: (0, 300), Split.VALIDATION: (300, 600), Split.TRAIN: (600, len(order))}
    first, last = bounds[split]
    return tuple(int(i) for i in order[first:last])


@cache
def _resize_matrix(size: int) -> F32:
    """Bilinear weights [size, 8] that stretch eight pixels over `size`."""
    centre = np.clip((np.arange(size) + 0.5) * 8.0 / size - 0.5, 0.0, 7.0)
    return np.maximum(0.0, 1.0 - np.abs(centre[:, None] - np.arange(8)[None, :])).astype(np.float32)


@dataclass(frozen=True)
class _Placed:
    """A digit in the image: its box, coverage (0..1 per pixel), class, depth and how far down the ground it stands."""

    top: int
    left: int
    alpha: F32
    label: int
    depth: float
    ground: float


def _smooth_noise(rng: np.random.Generator, rows: int, cols: int, cells_y: int, cells_x: int) -> F32:
    """Bilinear value noise in [-1, 1], shape [rows, cols]."""
    grid = rng.uniform(-1.0, 1.0, (cells_y + 1, cells_x + 1)).astype(np.float32)
    y = np.linspace(0.0, cells_y, rows, dtype=np.float32)
    x = np.linspace(0.0, cells_x, cols, dtype=np.float32)
    wy = np.maximum(0.0, 1.0 - np.abs(y[:, None] - np.arange(cells_y + 1)))
    wx = np.maximum(0.0, 1.0 - np.abs(x[:, None] - np.arange(cells_x + 1)))
    return np.asarray(wy @ grid @ wx.T, dtype=np.float32)


def _background(rng: np.random.Generator, horizon: int) -> tuple[F32, F32]:
    """Sky, skyline, ground and road without digits: colours [64, 128, 3] in 0..255 and depth [64, 128]."""
    rows = np.arange(HEIGHT, dtype=np.float32)
    t = np.clip((rows - horizon) / (HEIGHT - 1 - horizon), 0.0, 1.0)
    depth = np.repeat((1.0 / (1.0 + _DEPTH_RATIO * t))[:, None], WIDTH, axis=1).astype(np.float32)

    sky = rng.uniform((60, 90, 130), (110, 140, 190))
    haze = sky * 0.5 + 60.0
    ground = rng.uniform((40, 40, 30), (110, 105, 85))
    up = np.clip((horizon - rows) / horizon, 0.0, 1.0)[:, None]
    colour_of_row = np.where(
        rows[:, None] < horizon, haze + (sky - haze) * up, haze + (ground - haze) * np.sqrt(t)[:, None]
    )
    image = np.repeat(colour_of_row[:, None, :], WIDTH, axis=1).astype(np.float32)

    skyline = horizon - 2.0 - 5.0 * np.abs(_smooth_noise(rng, 1, WIDTH, 1, 10)[0])
    far = (rows[:, None] >= skyline[None, :]) & (rows[:, None] < horizon)
    image[far] = image[far] * 0.55 + rng.uniform(30, 70)

    vanishing = rng.uniform(0.3, 0.7) * WIDTH
    half_width = rng.uniform(35, 60)
    offset = np.abs(np.arange(WIDTH, dtype=np.float32)[None, :] - vanishing) - half_width * t[:, None]
    road = (offset < 0) & (t[:, None] > 0)
    image[road] = image[road] * 0.75
    line = (np.abs(offset) < 0.6 + 1.2 * t[:, None]) & (t[:, None] > 0)
    image[line] = image[line] * 0.5 + 70.0

    texture = 9.0 * _smooth_noise(rng, HEIGHT, WIDTH, 8, 12) + 7.0 * _smooth_noise(rng, HEIGHT, WIDTH, 32, 48)
    return image + texture[:, :, None], depth


def _place(rng: np.random.Generator, digits: tuple[int, ...], horizon: int) -> list[_Placed]:
    """Three to six digits, farthest first; a draw that would hide most of another digit is drawn again."""
    data = _all_digits()
    placed: list[_Placed] = []
    boxes: list[tuple[int, int]] = []
    for _ in range(int(rng.integers(3, 7))):
        for _ in range(_TRIES):
            ground = float(rng.uniform(0.38, 1.0))
            height = round(ground * rng.uniform(0.9, 1.15) * (HEIGHT - 1 - horizon))
            width = max(8, round(height * rng.uniform(0.75, 1.0)))
            left = int(rng.integers(-width // 6, WIDTH - width + width // 6 + 1))
            overlap = [max(0, min(left + width, b) - max(left, a)) / min(width, b - a) for a, b in boxes]
            if not overlap or max(overlap) < 0.45:
                break
        else:
            continue
        which = digits[int(rng.integers(len(digits)))]
        alpha = _resize_matrix(height) @ data.bitmaps[which] @ _resize_matrix(width).T
        alpha = np.clip((alpha - 0.25) / 0.3, 0.0, 1.0)
        bottom = round(horizon + ground * (HEIGHT - 1 - horizon))
        boxes.append((left, left + width))
        depth = 1.0 / (1.0 + _DEPTH_RATIO * ground)
        placed.append(_Placed(bottom - height + 1, left, alpha, 1 + int(data.labels[which]), depth, ground))
    return sorted(placed, key=lambda p: p.ground)


def _paint(rng: np.random.Generator, item: _Placed, image: F32, semseg: U8, depth: F32) -> None:
    """Draw one digit over the image and its labels, in place."""
    height, width = item.alpha.shape
    y0, y1 = max(0, item.top), min(HEIGHT, item.top + height)
    x0, x1 = max(0, item.left), min(WIDTH, item.left + width)
    alpha = item.alpha[y0 - item.top : y1 - item.top, x0 - item.left : x1 - item.left]
    under = image[y0:y1, x0:x1]

    # Bright paint on a darker world: a digit that nobody could see would only be label noise.
    colour = np.clip(under.mean() + rng.uniform(90.0, 130.0) + rng.uniform(-40.0, 40.0, 3), 0.0, 255.0)
    fade = 0.85 + 0.15 * item.ground  # far things lose contrast
    shade = np.linspace(1.0, rng.uniform(0.7, 1.0), y1 - y0)[:, None, None]
    cover = (alpha * fade)[:, :, None]
    image[y0:y1, x0:x1] = under * (1.0 - cover) + colour * shade * cover
    solid = alpha > 0.5
    semseg[y0:y1, x0:x1][solid] = item.label
    depth[y0:y1, x0:x1][solid] = item.depth


def scene(split: Split, index: int, seed: int = 0) -> tuple[U8, U8, F32]:
    """Image u8 [64, 128, 3], classes u8 [64, 128] and depth f32 [64, 128] of scene `index`."""
    rng = np.random.default_rng((seed, split.value, index))
    horizon = int(rng.integers(14, 22))
    image, depth = _background(rng, horizon)
    semseg = np.zeros((HEIGHT, WIDTH), np.uint8)
    for item in _place(rng, digit_indices(split), horizon):
        _paint(rng, item, image, semseg, depth)
    gain = rng.uniform(0.85, 1.15, 3)
    noise = rng.standard_normal((HEIGHT, WIDTH, 3), dtype=np.float32) * rng.uniform(2.0, 6.0)
    pixels = np.clip(np.rint(image * gain + noise), 0.0, 255.0).astype(np.uint8)
    return pixels, semseg, depth


def scenes(split: Split, count: int, seed: int = 0, first: int = 0) -> Scenes:
    """Scenes `first` to `first + count - 1` of a split. Raises InputError if a number is negative."""
    if count < 0 or first < 0:
        raise InputError(f"count and first must be 0 or more, not {count} and {first}; ask for at least one scene")
    images = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    semseg = np.empty((count, HEIGHT, WIDTH), np.uint8)
    depth = np.empty((count, HEIGHT, WIDTH), np.float32)
    for i in range(count):
        images[i], semseg[i], depth[i] = scene(split, first + i, seed)
    return Scenes(images, semseg, depth)


def batches(split: Split, total: int, batch: int, seed: int = 0) -> Iterator[Scenes]:
    """The first `total` scenes of a split in pieces of at most `batch`."""
    for first in range(0, total, batch):
        yield scenes(split, min(batch, total - first), seed, first)
