# SPDX-License-Identifier: Apache-2.0
"""Train a recipe together with its float twin and its other expert weights, and write down what quantization costs.

`python -m codesign.train.compare models/digits.toml --out models/digits.safetensors --work build/compare`

The three runs are the same until `weight_quant_step`, so the second and third go on from the first one's state there.
"""

from __future__ import annotations

import argparse
import re
import sys
from enum import Enum
from pathlib import Path

from codesign.errors import CodesignError
from codesign.train import pictures
from codesign.train.checkpoint import read_checkpoint, write_atomically, write_checkpoint
from codesign.train.digitscenes import Split, scenes
from codesign.train.evaluate import predict
from codesign.train.fit import state_path, train_recipe
from codesign.train.recipe import ExpertWeights, parse_recipe, read_recipe


class Variant(str, Enum):
    """The three ways to train one recipe; the values are keys of the checkpoint's metrics."""

    TERNARY = "ternary"
    INT8 = "int8"
    FLOAT = "float"

    def of(self, text: str) -> str:
        """A recipe's text with this variant's quantization."""
        experts = ExpertWeights.INT8 if self is Variant.INT8 else ExpertWeights.TERNARY
        enabled = str(self is not Variant.FLOAT).lower()
        text = re.sub(r"(?m)^enabled\s*=\s*\w+", f"enabled = {enabled}", text)
        return re.sub(r'(?m)^expert_weights\s*=\s*"\w+"', f'expert_weights = "{experts.value}"', text)


def compare(recipe_path: Path, out: Path, work: Path, quiet: bool = False) -> dict[str, object]:
    """Train all variants in `work`, write the recipe's own to `out` with everyone's scores in its metrics."""
    _, text = read_recipe(recipe_path)
    work.mkdir(parents=True, exist_ok=True)
    own = next(v for v in Variant if v.of(text) == text)
    order = [own, *(v for v in Variant if v is not own)]
    paths = {v: work / f"{v.value}.safetensors" for v in order}
    for variant in order:
        if not paths[variant].exists():
            later = [paths[v] for v in order if v is not variant and not paths[v].exists()]
            _train(variant.of(text), paths[variant], later, quiet)
    checkpoint = read_checkpoint(paths[own])
    results = {v.value: read_checkpoint(paths[v]).metrics["scores"] for v in order}
    write_checkpoint(out, checkpoint.model, text, {**checkpoint.metrics, "compared": results})
    return results


def _train(text: str, path: Path, later: list[Path], quiet: bool) -> None:
    recipe = parse_recipe(text, path.stem)

    def fork(step: int, steps: int, loss: float) -> None:
        if step == recipe.train.weight_quant_step:
            content = state_path(path).read_bytes()
            for other in later:
                if not state_path(other).exists():
                    write_atomically(state_path(other), content)

    train_recipe(recipe, text, path, on_step=fork, quiet=quiet)


def draw(checkpoint: Path, folder: Path, count: int = 6) -> None:
    """Write the contact sheet and the sample predictions of a checkpoint as PNG files into `folder`."""
    pictures.save(pictures.contact_sheet(scenes(Split.TRAIN, 12)), folder / "digitscenes.png")
    test = scenes(Split.TEST, count)
    out = predict(read_checkpoint(checkpoint).model, test.images)
    pictures.save(pictures.prediction_sheet(test, out.semseg, out.depth), folder / "predictions.png")


def main(arguments: list[str]) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m codesign.train.compare")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--work", type=Path, required=True, help="folder for the three runs; finished ones are kept")
    parser.add_argument("--pictures", type=Path, help="folder for digitscenes.png and predictions.png")
    options = parser.parse_args(arguments)
    try:
        for name, scores in compare(options.recipe, options.out, options.work).items():
            print(f"{name}: {scores}")
        if options.pictures is not None:
            draw(options.out, options.pictures)
    except CodesignError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
