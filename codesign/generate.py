# SPDX-License-Identifier: Apache-2.0
"""From a QONNX file to a bundle: import, size, schedule, emit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codesign.emit.bundle import BundleSource, Pixels, write_bundle
from codesign.engines.images import load_images
from codesign.errors import InputError
from codesign.frontend import import_qonnx, read_metadata
from codesign.passes import verify
from codesign.schedule import Options, load_board, plan
from codesign.spec import ImageSpec
from codesign.train.digitscenes import HEIGHT, WIDTH, Split, scenes

METRICS_KEY = "codesign.metrics"
DEFAULT_IMAGES = 16
DEFAULT_OPTIONS = Options()


def generate(
    model: Path, board: str, out: Path, images: Path | None = None, options: Options = DEFAULT_OPTIONS
) -> Path:
    """Write the bundle of a QONNX model for a board to folder `out`, all or nothing, and return that folder.

    `images`: the test images that go into the bundle, a .npy file or a folder of PNGs; when None, 16 test scenes of
    DigitScenes. Raises InputError for a model, board or image that cannot be taken, and when the model does not fit.
    """
    target = load_board(board)
    graph = import_qonnx(model)
    verify(graph)
    pixels = _scenes(graph.image) if images is None else load_images(images, graph.image)
    design = plan(graph, target, options)
    training = read_metadata(model).get(METRICS_KEY, "{}")
    return write_bundle(BundleSource(graph, design, pixels, training), out)


def _scenes(spec: ImageSpec) -> Pixels:
    if (spec.height, spec.width, spec.channels) != (HEIGHT, WIDTH, 3):
        size = f"{spec.height} x {spec.width} x {spec.channels}"
        raise InputError(f"test images must be given for a model that takes {size} images; name them with --images")
    return np.ascontiguousarray(scenes(Split.TEST, DEFAULT_IMAGES).images)
