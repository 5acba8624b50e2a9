# SPDX-License-Identifier: Apache-2.0
"""Training: the same result whether interrupted or not, and quantizers that do what the scheme says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codesign.errors import InputError
from codesign.train.checkpoint import read_checkpoint, read_tensors
from codesign.train.compare import compare
from codesign.train.fit import Training, state_path, train, train_recipe
from codesign.train.quantizers import Mode
from codesign.train.recipe import read_recipe
from tests.train.tiny import write_recipe


class StopHereError(Exception):
    pass


def _run(recipe: Path, out: Path, stop_at: int | None = None) -> Training:
    def on_step(step: int, steps: int, loss: float) -> None:
        if step == stop_at:
            raise StopHereError

    parsed, text = read_recipe(recipe)
    return train_recipe(parsed, text, out, on_step=on_step, quiet=True, save_every=4)


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    whole = _run(recipe, tmp_path / "whole.safetensors")
    out = tmp_path / "parts.safetensors"
    for stop in (1, 3, 7, 10):  # before the first save, with float and with quantized activations, after the last step
        with pytest.raises(StopHereError):
            _run(recipe, out, stop)
        assert state_path(out).exists()
        assert not out.exists()
    resumed = _run(recipe, out)
    assert resumed.scores == whole.scores
    assert not state_path(out).exists()
    ours, _ = read_tensors(out)
    theirs, _ = read_tensors(tmp_path / "whole.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def test_scheme_of_a_trained_model(tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    train(write_recipe(tmp_path), out, quiet=True)
    checkpoint = read_checkpoint(out)
    assert checkpoint.metrics["test_images"] == 2
    model = checkpoint.model
    for block in model.blocks:
        for linear in (block.attn.q, block.attn.proj):
            quantized = linear.quant_weight()
            steps = quantized.value / quantized.scale
            torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
            assert steps.round().abs().amax(dim=1).eq(127).all()  # narrow range, largest magnitude of each row
    experts = model.blocks[1].moe.w1
    ternary = experts.quant_weight()
    assert ternary.scale.shape == (4, 32, 1)
    assert set((ternary.value / ternary.scale).round().unique().tolist()) == {-1.0, 0.0, 1.0}
    torch.testing.assert_close(ternary.scale[..., 0], experts.weight.abs().mean(-1))
    assert float(model.image_quant.scale()) == 1 / 128
    assert float(model.residual_quant.scale().detach()).hex().startswith("0x1.0000000000000p")
    assert len({id(q) for q in model.constant_quants()}) == 3  # one for the residual stream, one per head


def test_float_twin_differs_from_quantized(tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    model = train(write_recipe(tmp_path), out, quiet=True).model
    image = torch.rand(1, 3, 64, 128) - 0.5
    outputs = []
    for mode in (Mode.FLOAT, Mode.QUANTIZED):
        model.set_mode(mode, mode)
        with torch.no_grad():
            outputs.append(model(image, model.recipe.tasks).heads[1])
    assert not torch.equal(*outputs)


def test_comparison_shares_the_float_steps(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    results = compare(recipe, tmp_path / "out.safetensors", tmp_path / "work", quiet=True)
    assert set(results) == {"ternary", "int8", "float"}
    assert read_checkpoint(tmp_path / "out.safetensors").metrics["compared"] == results
    alone = write_recipe(tmp_path, expert_weights='"int8"')
    assert train(alone, tmp_path / "alone.safetensors", quiet=True).scores.depth_rel == results["int8"]["depth_rel"]


def test_refusals(tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    with pytest.raises(StopHereError):
        _run(write_recipe(tmp_path), out, 6)
    with pytest.raises(InputError, match=r"state must belong to this recipe; delete it or train without resuming"):
        train(write_recipe(tmp_path, seed="4"), out, quiet=True)
    state_path(out).write_bytes(b"1234")
    with pytest.raises(InputError, match=r"must be a whole safetensors file"):
        train(write_recipe(tmp_path), out, quiet=True)
    with pytest.raises(InputError, match=r"image_height x image_width must be 64 x 128, not 32 x 128"):
        train(write_recipe(tmp_path, image_height="32"), out, quiet=True)
    with pytest.raises(InputError, match=r"tasks must be \['semseg', 'depth'\], not \['depth'\]; name both"):
        train(write_recipe(tmp_path, tasks='["depth"]'), out, quiet=True)
    with pytest.raises(InputError, match=r"must be writable: .*; choose another output path"):
        train(write_recipe(tmp_path), tmp_path / "no" / "t.safetensors", quiet=True)
