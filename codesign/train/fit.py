# SPDX-License-Identifier: Apache-2.0
"""Training: one plain loop in three phases (float, quantized weights, everything quantized), resumable at every save.

What a step does depends on the recipe and the step's number only: batches come from a permutation per epoch, noise from
a generator that is seeded per step. So the state to resume from is weights, optimizer moments and the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save as serialize
from torch import Tensor

from codesign.errors import InputError
from codesign.train import losses, metrics
from codesign.train.checkpoint import load_tensors, read_tensors, write_atomically, write_checkpoint
from codesign.train.digitscenes import HEIGHT, NUM_CLASSES, WIDTH, Scenes, Split, batches, scenes
from codesign.train.evaluate import evaluate, to_input
from codesign.train.model import MultiTaskViT
from codesign.train.optimizer import Optimizer
from codesign.train.quantizers import ActQuant, Mode
from codesign.train.recipe import Recipe, Task, TrainRecipe, parse_recipe, read_recipe

_STATE_FORMAT = "codesign-training-1"
_RESIDUAL_HEADROOM = 2.0
_HEAD_HEADROOM = 1.5

Report = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Training:
    """What a training run gave: the model, its scores on the test set, and the seconds this call took."""

    model: MultiTaskViT
    scores: metrics.Scores
    seconds: float


def train(
    recipe_path: Path, out: Path, resume: bool = True, on_step: Report | None = None, quiet: bool = False
) -> Training:
    """Train a recipe and write the checkpoint to `out`; an interrupted run goes on from `<out>.state`.

    `on_step(step, steps, loss)` is called after every step. Raises InputError for a bad recipe, a state that belongs to
    another recipe, or an output that cannot be written.
    """
    recipe, text = read_recipe(recipe_path)
    return train_recipe(recipe, text, out, resume, on_step, quiet)


def train_recipe(
    recipe: Recipe,
    text: str,
    out: Path,
    resume: bool = True,
    on_step: Report | None = None,
    quiet: bool = False,
    save_every: int = 50,
) -> Training:
    """`train` for a recipe that has been read already; `text` goes into the checkpoint."""
    _check_geometry(recipe)
    started = time.monotonic()
    torch.set_num_threads(recipe.train.threads)
    torch.use_deterministic_algorithms(True)
    run = _Run(recipe, text, state_path(out))
    if resume:
        run.load()
    run.save()  # finds out now, not after minutes, whether the folder can be written
    with _progress(quiet) as progress:
        run.data = _load(recipe.train, progress)
        bar = progress.add_task("training", total=recipe.train.steps, completed=run.step)
        while run.step < recipe.train.steps:
            loss = run.advance()
            if run.step % save_every == 0 or run.step == recipe.train.weight_quant_step:
                run.save()
            progress.update(bar, completed=run.step, description=f"training, loss {loss:.3f}")
            if on_step is not None:
                on_step(run.step, recipe.train.steps, loss)
    run.set_phase()
    test = scenes(Split.TEST, recipe.train.test_images, recipe.train.seed)
    scores = evaluate(run.model, test)
    seconds = time.monotonic() - started
    measured = {
        "test_images": len(test),
        "scores": asdict(scores),
        "baseline": asdict(metrics.baseline(test.semseg, test.depth, NUM_CLASSES)),
    }
    write_checkpoint(out, run.model, text, measured)
    run.state.unlink(missing_ok=True)
    return Training(run.model, scores, seconds)


def state_path(out: Path) -> Path:
    """Where a run that writes `out` keeps the state to resume from."""
    return out.with_name(out.name + ".state")


def _progress(quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=quiet)


def _check_geometry(recipe: Recipe) -> None:
    shape = recipe.model
    if (shape.image_height, shape.image_width) != (HEIGHT, WIDTH):
        raise InputError(
            f"image_height x image_width must be {HEIGHT} x {WIDTH}, not {shape.image_height} x {shape.image_width}; "
            "DigitScenes has one size"
        )
    if set(recipe.tasks) != set(Task):
        raise InputError(f"tasks must be {[t.value for t in Task]}, not {[t.value for t in recipe.tasks]}; name both")


def _load(recipe: TrainRecipe, progress: Progress) -> Scenes:
    """The training images, made now: a few milliseconds each."""
    bar = progress.add_task("drawing scenes", total=recipe.train_images)
    parts = []
    for part in batches(Split.TRAIN, recipe.train_images, 256, recipe.seed):
        parts.append(part)
        progress.advance(bar, len(part))
    return Scenes(
        np.concatenate([p.images for p in parts]),
        np.concatenate([p.semseg for p in parts]),
        np.concatenate([p.depth for p in parts]),
    )


class _Run:
    """Model, optimizer and position of a training run."""

    def __init__(self, recipe: Recipe, text: str, state: Path) -> None:
        self.recipe, self.text, self.state = recipe, text, state
        self.data = scenes(Split.TRAIN, 0)
        self.step = 0
        torch.manual_seed(recipe.train.seed)
        self.model = MultiTaskViT(recipe)
        self.optimizer = Optimizer(self.model, recipe.train.weight_decay)

    def advance(self) -> float:
        """One step; returns the loss."""
        plan = self.recipe.train
        if self.recipe.quant.enabled and self.step == plan.act_quant_step:
            self._calibrate()
        self.set_phase()
        self.model.train()
        torch.manual_seed(plan.seed * 1_000_003 + self.step)
        loss = self._loss(self._batch(self.step))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step(learning_rate(plan, self.step))
        self.step += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(f"the loss must stay finite, not {value} at step {self.step}; lower learning_rate")
        return value

    def set_phase(self) -> None:
        """Switch quantizers, and freeze their ranges, as the step demands."""
        plan, on = self.recipe.train, self.recipe.quant.enabled
        weights = Mode.QUANTIZED if on and self.step >= plan.weight_quant_step else Mode.FLOAT
        activations = Mode.QUANTIZED if on and self.step >= plan.act_quant_step else Mode.FLOAT
        self.model.set_mode(weights, activations)
        constant = set(self.model.constant_quants())
        for quant in self.model.act_quants():
            quant.parameter.requires_grad_(quant not in constant and self.step < plan.freeze_step)

    def _batch(self, step: int) -> Scenes:
        plan = self.recipe.train
        per_epoch = plan.train_images // plan.batch
        epoch, position = divmod(step, per_epoch)
        order = np.random.default_rng((plan.seed, epoch)).permutation(plan.train_images)
        chosen = order[position * plan.batch : (position + 1) * plan.batch]
        return Scenes(self.data.images[chosen], self.data.semseg[chosen], self.data.depth[chosen])

    def _loss(self, batch: Scenes) -> Tensor:
        plan, shape = self.recipe.train, self.recipe.model
        counts = (plan.batch, plan.depth_batch)
        out = self.model(to_input(batch.images), (Task.SEMSEG, Task.DEPTH), counts)
        classes = losses.pixels_of_cells(torch.from_numpy(batch.semseg), shape.cell_size).long()
        depth = losses.pixels_of_cells(torch.from_numpy(batch.depth[: plan.depth_batch]), shape.cell_size)
        scores = losses.head_to_cells(out.heads[0], shape, Task.SEMSEG)
        values = losses.head_to_cells(out.heads[1], shape, Task.DEPTH)
        semseg = losses.semseg_loss(scores, classes, plan.background_weight)
        total: Tensor = (
            semseg + plan.depth_weight * losses.depth_loss(values, depth) + plan.balance_weight * out.balance
        )
        return total

    def _calibrate(self) -> None:
        """Set every activation range from what the float activations of a few batches look like."""
        self.model.set_mode(Mode.QUANTIZED, Mode.OBSERVE)
        self.model.eval()
        with torch.no_grad():
            for i in range(self.recipe.train.calibration_batches):
                self.model(to_input(self._batch(i).images), (Task.SEMSEG, Task.DEPTH))
        for quant in self.model.act_quants():
            quant.set_threshold(float(quant.seen))
        for head in self.model.head_quants:
            assert isinstance(head, ActQuant)
            head.set_threshold(float(head.seen) * _HEAD_HEADROOM)
        residual = self.model.residual_quant  # a power of two, so that its scale is exact in any format
        residual.set_threshold(2.0 ** math.ceil(math.log2(float(residual.seen) * _RESIDUAL_HEADROOM)))

    def save(self) -> None:
        """Write the state atomically."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors.update({f"optimizer.{name}": tensor for name, tensor in self.optimizer.state().items()})
        metadata = {"format": _STATE_FORMAT, "recipe": self.text, "step": str(self.step)}
        write_atomically(self.state, serialize({k: v.detach().contiguous() for k, v in tensors.items()}, metadata))

    def _continues(self, other: Recipe, step: int) -> bool:
        """Whether `step` steps of the other recipe are steps of this one: until weights are quantized, how is open."""
        early = step <= self.recipe.train.weight_quant_step
        return other == self.recipe or (early and other.model_copy(update={"quant": self.recipe.quant}) == self.recipe)

    def load(self) -> None:
        """Go on from the saved state, if there is one."""
        if not self.state.exists():
            return
        tensors, metadata = read_tensors(self.state)
        if metadata.get("format") != _STATE_FORMAT or not metadata.get("step", "").isdecimal():
            raise InputError(f"{self.state} must be a training state; delete it or train without resuming")
        if not self._continues(parse_recipe(metadata["recipe"], str(self.state)), int(metadata["step"])):
            raise InputError(f"{self.state} must belong to this recipe; delete it or train without resuming")
        weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        load_tensors(self.model, weights, self.state)
        # Loading makes Brevitas build some quantizers anew; an older optimizer would train parameters of no model.
        self.optimizer = Optimizer(self.model, self.recipe.train.weight_decay)
        moments = {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
        self.optimizer.load(moments)
        self.step = int(metadata["step"])


def learning_rate(plan: TrainRecipe, step: int) -> float:
    """Linear warm-up, then a cosine to zero over all phases."""
    if step < plan.warmup_steps:
        return plan.learning_rate * (step + 1) / plan.warmup_steps
    rest = (step - plan.warmup_steps) / max(1, plan.steps - plan.warmup_steps)
    return plan.learning_rate * 0.5 * (1.0 + math.cos(math.pi * rest))
