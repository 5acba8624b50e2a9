# SPDX-License-Identifier: Apache-2.0
"""Reads a user's images: one `.npy` file, or a folder of PNGs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from codesign.emit.manifest import Image as InputImage
from codesign.errors import InputError
from codesign.spec import ImageSpec
from codesign.spec.patches import Pixels, to_patches


def load_images(path: Path, spec: ImageSpec) -> Pixels:
    """Images uint8 [n, height, width, channels] from `path`: a .npy file of that shape, or a folder of PNGs by name.

    Raises InputError naming the file when it is missing, damaged, or of another size or dtype.
    """
    if path.is_dir():
        return _load_folder(path, spec)
    if path.suffix != ".npy" or not path.is_file():
        raise InputError(f"images must be a .npy file or a folder of PNGs, and {path} is neither; give such a path")
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"images {path} must be a whole .npy file: {str(error).splitlines()[0]}; save it again"
        ) from None
    _check(images, spec, f"images {path}", "n, ")
    return np.ascontiguousarray(images)


def _check(image: npt.NDArray[np.generic], spec: ImageSpec, name: str, batch: str) -> None:
    """Shape [batch,] height, width, channels and dtype."""
    one = (spec.height, spec.width, spec.channels)
    shape = image.shape[1:] if batch and image.ndim else image.shape
    if image.dtype != np.uint8 or shape != one or (batch and not len(image)):
        found = f"{image.dtype} {list(image.shape)}"
        if np.issubdtype(image.dtype, np.inexact) and not np.isfinite(image).all():
            found += " with NaN or Inf"
        raise InputError(
            f"{name} must be uint8 [{batch}{', '.join(map(str, one))}], not {found}; resize or convert to it"
        )


def _load_folder(folder: Path, spec: ImageSpec) -> Pixels:
    files = sorted(folder.glob("*.png"))
    if not files:
        raise InputError(f"image folder {folder} must hold PNG files, and there is none; give another folder")
    return np.stack([_load_png(file, spec) for file in files])


def _load_png(file: Path, spec: ImageSpec) -> Pixels:
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise InputError(f"image {file} must be a whole PNG: {error}; save it again") from None
    _check(pixels, spec, f"image {file}", "")
    return pixels


def input_buffer(image: Pixels, spec: InputImage) -> bytes:
    """The machine's input buffer for one image, in line order: patches as int8, rows zero padded to `row_bytes`."""
    geometry = ImageSpec(spec.height, spec.width, spec.channels, spec.patch, spec.pixel_offset)
    x = to_patches(image[None], geometry)[0]
    buffer = np.zeros((len(x), spec.row_bytes), dtype=np.int8)
    buffer[:, : x.shape[1]] = x
    return buffer.tobytes().ljust(spec.bytes, b"\0")
