# SPDX-License-Identifier: Apache-2.0
"""The recipe: every number that decides a model and its training, read from TOML and checked."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from codesign.settings import parse_toml, read_text
from codesign.spec import Readout
from codesign.train.digitscenes import NUM_CLASSES

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]

HEAD_DIM = 32
MAX_EXPERTS = 16
MAX_COLUMNS = 1024


class Task(str, Enum):
    """A dense task; the value names the ONNX output."""

    SEMSEG = "semseg"
    DEPTH = "depth"

    @property
    def channels(self) -> int:
        """Values per cell."""
        return NUM_CLASSES if self is Task.SEMSEG else 1

    @property
    def readout(self) -> Readout:
        """What becomes of a cell's values. Depth is predicted as its logarithm: its error is a relative one."""
        return Readout.CLASS if self is Task.SEMSEG else Readout.LOG


class ExpertWeights(str, Enum):
    """Integer type of the expert weights; all other weights are int8."""

    TERNARY = "ternary"
    INT8 = "int8"

    @property
    def bit_width(self) -> int:
        """Bits per weight, sign included."""
        return 2 if self is ExpertWeights.TERNARY else 8


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelRecipe(_Section):
    """Shape of the network (M3ViT, Liang et al. 2022, section 3)."""

    image_height: Positive
    image_width: Positive
    patch: Positive
    embed_dim: Positive
    num_heads: Positive
    depth: Positive
    mlp_hidden: Positive
    num_experts: Annotated[int, Field(ge=2, le=MAX_EXPERTS)]
    expert_hidden: Positive
    top_k: Positive
    cells: Positive

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.image_height % self.patch or self.image_width % self.patch:
            raise ValueError(f"patch must divide {self.image_height} and {self.image_width}, not be {self.patch}")
        if self.patch % self.cells:
            raise ValueError(f"cells must divide patch ({self.patch}), not be {self.cells}")
        if self.embed_dim != self.num_heads * HEAD_DIM:
            raise ValueError(f"embed_dim must be num_heads x {HEAD_DIM}, not {self.embed_dim}")
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k must be at most num_experts ({self.num_experts}), not {self.top_k}")
        for name in ("mlp_hidden", "expert_hidden"):
            if getattr(self, name) % 32 or getattr(self, name) > MAX_COLUMNS:
                raise ValueError(f"{name} must be a multiple of 32 up to {MAX_COLUMNS}, not {getattr(self, name)}")
        if 3 * self.patch * self.patch > MAX_COLUMNS:
            raise ValueError(f"patch must be at most 18, not {self.patch}")
        return self

    @property
    def grid_height(self) -> int:
        """Rows of patches."""
        return self.image_height // self.patch

    @property
    def grid_width(self) -> int:
        """Columns of patches."""
        return self.image_width // self.patch

    @property
    def num_tokens(self) -> int:
        """Patches and the class token."""
        return self.grid_height * self.grid_width + 1

    @property
    def cell_size(self) -> int:
        """Pixels per side of an output cell."""
        return self.patch // self.cells

    def is_moe(self, block: int) -> bool:
        """Odd blocks are mixtures of experts."""
        return block % 2 == 1

    def head_outputs(self, task: Task) -> int:
        """Values that the head of a task predicts per patch: cells x cells x channels, channel last."""
        return self.cells * self.cells * task.channels


class QuantRecipe(_Section):
    """What the recipe may choose of the quantization scheme; the rest is fixed in `quantizers`."""

    enabled: bool
    expert_weights: ExpertWeights


class TrainRecipe(_Section):
    """How long to train, on what, and when quantization sets in."""

    seed: Count
    threads: Positive
    train_images: Positive
    batch: Positive
    depth_batch: Positive
    steps: Positive
    weight_quant_step: Count
    act_quant_step: Count
    freeze_step: Count
    calibration_batches: Positive
    learning_rate: Rate
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)]
    warmup_steps: Count
    background_weight: Rate
    balance_weight: Annotated[float, Field(ge=0.0)]
    depth_weight: Annotated[float, Field(ge=0.0)]
    test_images: Positive

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        phases = (self.weight_quant_step, self.act_quant_step, self.freeze_step, self.steps)
        if list(phases) != sorted(phases):
            raise ValueError(
                f"weight_quant_step, act_quant_step, freeze_step and steps must not decrease, not be {phases}"
            )
        if self.act_quant_step == self.steps:
            raise ValueError(f"act_quant_step must be less than steps ({self.steps}), or nothing is trained quantized")
        if self.depth_batch > self.batch:
            raise ValueError(f"depth_batch must be at most batch ({self.batch}), not {self.depth_batch}")
        if self.batch > self.train_images:
            raise ValueError(f"batch must be at most train_images ({self.train_images}), not {self.batch}")
        return self


class Recipe(_Section):
    """A whole recipe."""

    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]
    model: ModelRecipe
    quant: QuantRecipe
    train: TrainRecipe

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must differ, not be {[t.value for t in self.tasks]}")
        return self


def parse_recipe(text: str, origin: str) -> Recipe:
    """Check a recipe's TOML text. `origin` names it in the one-line InputError."""
    return parse_toml(Recipe, text, f"recipe {origin}", "models/digits.toml")


def read_recipe(path: Path) -> tuple[Recipe, str]:
    """The recipe and its text. Raises InputError if the file cannot be read or is not a valid recipe."""
    text = read_text(path, "recipe")
    return parse_recipe(text, str(path)), text
