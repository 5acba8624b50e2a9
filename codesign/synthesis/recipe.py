# SPDX-License-Identifier: Apache-2.0
"""The recipe of a synthetic model: its shape and nothing else, read from TOML and checked."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from codesign.errors import InputError
from codesign.passes.verify import MAX_NORM_DIM
from codesign.settings import parse_toml, read_text
from codesign.spec import ImageSpec, Readout

MAX_TOKENS = 1 << 15
"""Keys and values of all tokens stay on chip, in words of 16 address bits."""

Positive = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class ExpertWeights(str, Enum):
    """Format of the expert weights; all other weights are int8 with a scale per output channel."""

    INT8 = "int8"
    INT4 = "int4"
    TERNARY = "ternary"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageRecipe(_Section):
    """What the model sees. One channel is grey, three are RGB."""

    height: Positive
    width: Positive
    patch: Positive
    channels: Literal[1, 3]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(f"patch must divide {self.height} and {self.width}, not be {self.patch}")
        return self

    @property
    def spec(self) -> ImageSpec:
        """As the graph carries it."""
        return ImageSpec(self.height, self.width, self.channels, self.patch)


class ModelRecipe(_Section):
    """Shape of the network (M3ViT, Liang et al. 2022, section 3). Blocks count from 0."""

    class_token: bool
    embed_dim: Annotated[int, Field(ge=2, le=MAX_NORM_DIM, strict=True)]
    depth: Positive
    num_heads: Positive
    head_dim: Positive
    mlp_hidden: Positive
    moe_blocks: tuple[Count, ...]
    """The blocks that are mixtures of experts; the others have an MLP."""
    num_experts: Positive
    expert_hidden: Positive
    top_k: Positive
    expert_weights: ExpertWeights

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.moe_blocks) != sorted(set(self.moe_blocks)):
            raise ValueError(f"moe_blocks must ascend, not be {list(self.moe_blocks)}")
        if self.moe_blocks and self.moe_blocks[-1] >= self.depth:
            raise ValueError(f"moe_blocks must be below depth ({self.depth}), not {self.moe_blocks[-1]}")
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k must be at most num_experts ({self.num_experts}), not {self.top_k}")
        return self

    @property
    def attention_width(self) -> int:
        """Columns of Q, K and V."""
        return self.num_heads * self.head_dim


class TaskRecipe(_Section):
    """A dense task with a linear head: each patch predicts cells x cells x classes values."""

    name: Name
    classes: Positive
    cells: Positive
    readout: Readout

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.readout is Readout.CLASS) != (self.classes > 1):
            raise ValueError(f"classes must be above 1 for readout 'class' and 1 for any other, not {self.classes}")
        return self

    @property
    def outputs(self) -> int:
        """Values per patch."""
        return self.classes * self.cells**2


class Recipe(_Section):
    """A whole recipe."""

    name: Name
    image: ImageRecipe
    model: ModelRecipe
    tasks: Annotated[tuple[TaskRecipe, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"tasks must have distinct names, not {names}")
        if self.num_tokens > MAX_TOKENS:
            raise ValueError(f"image must have at most {MAX_TOKENS} tokens, not {self.num_tokens}")
        for task in self.tasks:
            if self.image.patch % task.cells:
                raise ValueError(f"cells of {task.name} must divide patch ({self.image.patch}), not be {task.cells}")
        return self

    @property
    def num_tokens(self) -> int:
        """Patches, and the class token if there is one."""
        return self.image.spec.num_patches + self.model.class_token

    def changed(
        self, *, layers: int | None = None, top_k: int | None = None, expert_weights: ExpertWeights | None = None
    ) -> Recipe:
        """The recipe with its first `layers` blocks, another top-k or another expert format; None keeps.

        Raises InputError for a value that the recipe does not admit.
        """
        m = self.model
        if layers is not None and not 1 <= layers <= m.depth:
            raise InputError(
                f"layers must be in 1..{m.depth} for {self.name}, not {layers!r}; ask for fewer, or enlarge the recipe"
            )
        if top_k is not None and not 1 <= top_k <= m.num_experts:
            raise InputError(
                f"top_k must be in 1..{m.num_experts} for {self.name}, not {top_k!r}; choose as many experts or fewer"
            )
        depth = m.depth if layers is None else layers
        changes = {
            "depth": depth,
            "moe_blocks": tuple(b for b in m.moe_blocks if b < depth),
            "top_k": m.top_k if top_k is None else top_k,
            "expert_weights": expert_weights or m.expert_weights,
        }
        return self.model_copy(update={"model": m.model_copy(update=changes)})


def parse_recipe(text: str, origin: str) -> Recipe:
    """Check a recipe's TOML text. `origin` names it in the one-line InputError."""
    return parse_toml(Recipe, text, f"recipe {origin}", "models/m3vit_tiny.toml")


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises InputError if it cannot be read or is not a valid recipe."""
    return parse_recipe(read_text(path, "recipe"), str(path))
