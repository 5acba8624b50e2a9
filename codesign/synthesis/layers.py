# SPDX-License-Identifier: Apache-2.0
"""Mixture layers without a model around them: LLM-shaped experts with random weights, one at a time.

The recipe names shapes only. An expert's weights depend on the seed, its layer and its number, so that a store of the
first layers is the start of a store of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from codesign.errors import InputError
from codesign.settings import parse_toml, read_text
from codesign.spec import INT8, Requant
from codesign.spec.moe import Activation, MoeLayer
from codesign.spec.ops import GELU_FRACTION_BITS
from codesign.synthesis import profile
from codesign.synthesis.recipe import Name, Positive
from codesign.synthesis.weights import TAIL, generator, log_normal

INPUT_SIGMA = 28.0
"""Deviation of the int8 inputs that the rescalings are made for: a norm's outputs, of which 4.5 sigma fit."""
_ARGUMENT = 2.0**GELU_FRACTION_BITS * profile.ARGUMENT_SIGMA
"""Deviation of a first layer's int16 outputs."""
_HIDDEN_SIGMAS = 8.0
"""int8's largest hidden value, in deviations: products of two have heavy tails."""
_GATED_SIGMA = {Activation.SILU_GATED: 0.6, Activation.GELU: 0.64}
"""Deviation of the activation's real output when its arguments are normal."""
_BRANCH = 0.15 / profile.RESIDUAL_SCALE
"""Deviation of an expert's int16 output."""
_QUANTILES = 1 << 16
_COLUMN_SPREAD = 0.25

Bytes = npt.NDArray[np.int8]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LayersSection(_Section):
    """The shape that all layers share."""

    count: Positive
    embed_dim: Annotated[int, Field(ge=1, le=8192, strict=True)]
    hidden: Annotated[int, Field(ge=1, le=8192, strict=True)]
    num_experts: Annotated[int, Field(ge=1, le=4096, strict=True)]
    top_k: Positive
    activation: Activation

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k must be at most num_experts ({self.num_experts}), not {self.top_k}")
        return self


class LayersRecipe(_Section):
    """A whole recipe."""

    name: Name
    layers: LayersSection

    def changed(self, layers: int | None) -> LayersRecipe:
        """The recipe with its first `layers` layers; None keeps. Raises InputError for more than it has, or none."""
        if layers is None:
            return self
        if not 1 <= layers <= self.layers.count:
            raise InputError(f"layers must be in 1..{self.layers.count} for {self.name}, not {layers!r}; ask for fewer")
        return self.model_copy(update={"layers": self.layers.model_copy(update={"count": layers})})

    def layer(self, number: int) -> MoeLayer:
        """The shape of a layer, and the rescaling behind its activation."""
        s = self.layers
        fraction = 2.0 ** -(GELU_FRACTION_BITS * (2 if s.activation is Activation.SILU_GATED else 1))
        step = _HIDDEN_SIGMAS * _GATED_SIGMA[s.activation] / INT8.max
        requant = Requant.of_scale(fraction / step, INT8)
        return MoeLayer(f"layer{number}.experts", s.embed_dim, s.hidden, s.num_experts, s.top_k, s.activation, requant)


def is_layers_recipe(text: str) -> bool:
    """Whether TOML text is meant as such a recipe rather than as one of a whole model."""
    return any(line.strip() == "[layers]" for line in text.splitlines())


def parse_layers(text: str, origin: str) -> LayersRecipe:
    """Check a recipe's TOML text. `origin` names it in the one-line InputError."""
    return parse_toml(LayersRecipe, text, f"recipe {origin}", "models/olmoe_layers.toml")


def read_layers(path: Path) -> LayersRecipe:
    """The recipe in a file. Raises InputError if it cannot be read or is not a valid recipe."""
    return parse_layers(read_text(path, "recipe"), str(path))


@dataclass(frozen=True)
class RandomExpert:
    """An expert's weights int8 [N, K], and the factors [N] from each layer's sums to int16."""

    w1: Bytes
    w2: Bytes
    scale1: npt.NDArray[np.float64]
    scale2: npt.NDArray[np.float64]


def random_expert(recipe: LayersRecipe, seed: int, layer: int, expert: int) -> RandomExpert:
    """Weights with heavy tails and columns of unequal size, and rescalings that give each output its usual size."""
    shape = recipe.layer(layer)
    rng = generator(seed, f"layer{layer}.expert{expert}")
    (rows1, inputs), (rows2, hidden) = shape.shapes
    w1, w2 = _weights(rng, rows1, inputs), _weights(rng, rows2, hidden)
    step = _HIDDEN_SIGMAS / INT8.max
    return RandomExpert(
        w1,
        w2,
        _factors(rng, w1, INPUT_SIGMA, _ARGUMENT, profile.OUTPUT_SPREAD),
        _factors(rng, w2, 1.0 / step, _BRANCH, profile.BRANCH_SPREAD),
    )


def _factors(
    rng: np.random.Generator, weight: Bytes, inputs: float, outputs: float, spread: float
) -> npt.NDArray[np.float64]:
    """The factors at which rows of weights over inputs of one deviation give outputs of another."""
    norms = np.sqrt(np.einsum("nk,nk->n", weight, weight, dtype=np.float64))
    factors: npt.NDArray[np.float64] = outputs * log_normal(rng, len(weight), spread) / (inputs * np.maximum(norms, 1))
    return factors


def _weights(rng: np.random.Generator, rows: int, columns: int) -> Bytes:
    """int8 weights that span each row's largest. Student's t by a table of quantiles: gigabytes are drawn of it."""
    drawn = rng.integers(0, _QUANTILES, (rows, columns), dtype=np.uint16)
    values = _quantiles()[drawn]
    values *= log_normal(rng, columns, _COLUMN_SPREAD).astype(np.float32)
    largest = np.maximum(values.max(axis=1), -values.min(axis=1))
    values *= (np.float32(127.0) / largest)[:, None]
    np.rint(values, out=values)
    return values.astype(np.int8)


@cache
def _quantiles() -> npt.NDArray[np.float32]:
    """Quantiles of Student's t: those of a fixed large sample, the tails smoothed by its size."""
    sample = np.random.default_rng(0).standard_t(TAIL, 16 * _QUANTILES)
    sample.sort()
    middle: npt.NDArray[np.float32] = sample.reshape(_QUANTILES, -1).mean(axis=1).astype(np.float32)
    return middle
