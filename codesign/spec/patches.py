# SPDX-License-Identifier: Apache-2.0
"""From images to the graph's input: the one definition of how pixels become patches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.spec.graph import ImageSpec

Pixels = npt.NDArray[np.uint8]


def to_patches(images: Pixels, spec: ImageSpec) -> npt.NDArray[np.int64]:
    """Images [n, height, width, channels] as the graph's input [n, patches, channels * patch * patch].

    Raises InputError for images that are not uint8 of the model's size.
    """
    expected = (spec.height, spec.width, spec.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
        raise InputError(
            f"images must be uint8 of shape [n, {', '.join(map(str, expected))}], not {images.dtype}"
            f" {list(images.shape)}; resize or convert them"
        )
    n, p = images.shape[0], spec.patch
    x = images.astype(np.int64) - spec.pixel_offset
    x = x.reshape(n, spec.height // p, p, spec.width // p, p, spec.channels).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(n, spec.num_patches, spec.patch_elements)
