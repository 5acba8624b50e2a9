# SPDX-License-Identifier: Apache-2.0
"""Bundles of the shipped models, and stores of their experts in every format, made once for all workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codesign.assets import asset
from codesign.engines.bundle import Bundle
from codesign.experts.pack.fit import FormatChoice
from codesign.experts.pack.mixtures import TERNARY_FORMATS
from codesign.experts.pack.pack import pack_graph
from codesign.generate import generate
from codesign.schedule import ArrayShape, Options
from codesign.spec import Graph
from codesign.spec.moe import ExpertFormat


@dataclass(frozen=True)
class Digits:
    """The folder of them."""

    folder: Path

    def bundle(self, kind: ExpertFormat) -> Path:
        """The bundle of the model whose weights suit a format."""
        return self.folder / ("digits" if kind in TERNARY_FORMATS else "digits_int8")

    def store(self, kind: ExpertFormat) -> Path:
        """Its experts. Tests do not change the file."""
        return self.folder / f"{kind.value}.experts"

    def graph(self, kind: ExpertFormat) -> Graph:
        return Bundle.load(self.bundle(kind)).graph


def make_digits(digits: Digits) -> None:
    """Fill the folder: half a minute."""
    from codesign.train.digitscenes import Split, scenes
    from codesign.train.export import export

    digits.folder.mkdir()
    images = digits.folder / "images.npy"
    np.save(images, np.ascontiguousarray(scenes(Split.TEST, 3).images))
    for name in ("digits", "digits_int8"):
        model = export(asset("models") / f"{name}.safetensors", digits.folder / f"{name}.onnx")
        generate(model, "zcu104", digits.folder / name, images, Options(ArrayShape(32, 32)))
    for kind in ExpertFormat:
        pack_graph(digits.graph(kind), FormatChoice(kind), digits.store(kind))
