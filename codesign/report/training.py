# SPDX-License-Identifier: Apache-2.0
"""The scores that the training left in the bundle's manifest."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codesign.emit.bundle import MANIFEST
from codesign.engines import Bundle
from codesign.errors import InputError


class Scores(BaseModel):
    """As `codesign.train.metrics.Scores`."""

    model_config = ConfigDict(frozen=True)
    miou: float
    depth_rel: float
    depth_rmse: float


class Compared(BaseModel):
    """Scores of models trained alike: without quantization, and fake-quantized with int8 experts."""

    model_config = ConfigDict(frozen=True)
    unquantized: Scores | None = Field(default=None, alias="float")
    int8: Scores | None = None


class Training(BaseModel):
    """Scores on the first `test_images` test scenes: constant guesses, the fake-quantized model, its comparisons."""

    model_config = ConfigDict(frozen=True)
    test_images: int = Field(default=0, ge=0)
    baseline: Scores | None = None
    scores: Scores | None = None
    compared: Compared = Compared()


def read_training(bundle: Bundle) -> Training:
    """The bundle's training scores. Raises InputError when the manifest holds something else."""
    try:
        return Training.model_validate_json(bundle.manifest.training)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the text"
        raise InputError(
            f"{bundle.path / MANIFEST}: training must hold scores: {where}: {first['msg']}; generate the bundle again"
        ) from None
