# SPDX-License-Identifier: Apache-2.0
"""What `codesign experts pack` takes: a bundle, a checkpoint, a QONNX file, or a recipe without weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from codesign.engines.bundle import Bundle
from codesign.engines.images import load_images
from codesign.errors import InputError
from codesign.experts.file.codec import encode_expert
from codesign.experts.file.store import Store
from codesign.experts.file.writer import ExpertRescaling, LayerSource, PackedExpert, write_store
from codesign.experts.pack.fit import FormatChoice, fit_expert
from codesign.experts.pack.mixtures import Expert
from codesign.experts.pack.pack import PackResult, Watch, result_of
from codesign.frontend import import_qonnx
from codesign.passes import verify
from codesign.reference.functions import Ints
from codesign.settings import read_text
from codesign.spec import INT16, Graph, ImageSpec, Requant
from codesign.spec.patches import Pixels
from codesign.synthesis import read_recipe, synthesise
from codesign.synthesis.layers import LayersRecipe, is_layers_recipe, parse_layers, random_expert

SCENES = "digitscenes"
"""Names the training scenes of DigitScenes where images are asked for."""
CALIBRATION_SCENES = 64


def read_source(path: Path, seed: int, layers: int | None) -> Graph | LayersRecipe:
    """The graph, or the LLM-shaped layers, that a path names; `seed` and `layers` count for recipes.

    Raises InputError for what is none of these.
    """
    if path.suffix == ".toml":
        text = read_text(path, "recipe")
        if is_layers_recipe(text):
            return parse_layers(text, str(path)).changed(layers)
        return synthesise(read_recipe(path).changed(layers=layers), seed).graph
    if layers is not None or seed:
        raise InputError(f"seed and layers must be left out for {path}, which has weights; drop them")
    if path.is_dir():
        return Bundle.load(path).graph
    graph = _from_checkpoint(path) if path.suffix == ".safetensors" else import_qonnx(path)
    verify(graph)
    return graph


def _from_checkpoint(path: Path) -> Graph:
    from codesign.train.export import export  # torch takes seconds to import

    with TemporaryDirectory() as folder:
        return import_qonnx(export(path, Path(folder) / f"{path.stem}.onnx"))


def read_calibration(images: str, spec: ImageSpec) -> Pixels:
    """Images uint8 [n, height, width, channels]: a .npy file, a folder of PNGs, or training scenes of DigitScenes.

    Raises InputError when they are not there, or of another size.
    """
    if images != SCENES:
        return load_images(Path(images), spec)
    from codesign.train.digitscenes import HEIGHT, WIDTH, Split, scenes

    if (spec.height, spec.width, spec.channels) != (HEIGHT, WIDTH, 3):
        raise InputError(
            f"calibration images must be {spec.height} x {spec.width} x {spec.channels}, and {SCENES} has"
            f" {HEIGHT} x {WIDTH} x 3; name a .npy file or a folder of PNGs"
        )
    return np.ascontiguousarray(scenes(Split.TRAIN, CALIBRATION_SCENES).images)


def pack_layers(recipe: LayersRecipe, choice: FormatChoice, out: Path, seed: int, watch: Watch) -> PackResult:
    """Write LLM-shaped layers with random weights, one expert in memory at a time.

    Ternary experts are rounded from the int8 ones. Raises InputError for a store that cannot be written.
    """
    rounded = FormatChoice(choice.kind, ternarize=True)
    sources = [
        LayerSource(recipe.layer(number), 1, partial(_random_experts, recipe, rounded, seed, number))
        for number in range(recipe.layers.count)
    ]
    write_store(out, choice.kind, recipe.name, sources, partial(watch, "packing experts"))
    return result_of(Store.open(out))


def _random_experts(recipe: LayersRecipe, choice: FormatChoice, seed: int, number: int) -> Iterator[PackedExpert]:
    layer = recipe.layer(number)
    for e in range(layer.num_experts):
        drawn = random_expert(recipe, seed, number, e)
        whole = Expert(
            drawn.w1.astype(np.int64), drawn.w2.astype(np.int64), _rescaling(drawn.scale1), _rescaling(drawn.scale2)
        )
        made = fit_expert(layer, whole, e, choice, None)
        yield PackedExpert(encode_expert(layer, choice.kind, made.w1, made.w2), made.fc1, made.fc2)


def _rescaling(scale: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> ExpertRescaling:
    requant = Requant.of_scale([float(s) for s in scale], INT16)
    none: Ints = np.zeros((1, len(scale)), dtype=np.int64)
    return ExpertRescaling(none, np.array([requant.multiplier]), np.array([requant.shift]))
