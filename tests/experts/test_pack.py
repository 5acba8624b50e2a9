# SPDX-License-Identifier: Apache-2.0
"""From models to stores: exact where the format holds the model's integers, fitted and measured where it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codesign.assets import asset
from codesign.cli import main
from codesign.errors import InputError
from codesign.experts.file.codec import stored_experts
from codesign.experts.file.store import Store
from codesign.experts.pack.fit import FormatChoice
from codesign.experts.pack.mixtures import expert_of, mixtures
from codesign.experts.pack.pack import PackResult, measure, pack_graph
from codesign.experts.pack.sources import pack_layers, read_calibration, read_source
from codesign.reference.moe import integers
from codesign.spec import ExpertsParams, Graph, Requant
from codesign.spec.moe import Activation, ExpertFormat
from codesign.spec.patches import Pixels
from codesign.synthesis import ExpertWeights, Synthesis, synthesise
from codesign.synthesis.layers import INPUT_SIGMA, LayersRecipe, parse_layers, random_expert, read_layers
from tests.digits import Digits
from tests.graphs import GraphShape, random_graph
from tests.synthesis.conftest import TEXT

NO_LAYER = "[layers]\ncount = 1\nembed_dim = 64\nhidden = 32\nnum_experts = 3\ntop_k = 2\n"
LITTLE = f'name = "little"\n{NO_LAYER}activation = "silu_gated"\n'


@pytest.fixture(scope="module")
def model() -> Synthesis:
    """int8 experts with a trained model's statistics; 20 images."""
    from codesign.synthesis import parse_recipe

    recipe = parse_recipe(TEXT, "little").changed(expert_weights=ExpertWeights.INT8, layers=2)
    return synthesise(recipe, images=4)


@pytest.fixture(scope="module")
def images(model: Synthesis) -> Pixels:
    return np.concatenate([model.calibration, model.test])


def pack(model: Synthesis, kind: ExpertFormat, path: Path, images: Pixels | None, **choice: bool) -> PackResult:
    return pack_graph(model.graph, FormatChoice(kind, **choice), path, images)


def quality(result: PackResult) -> dict[int, float]:
    return {q.width: q.sqnr_db for q in result.quality}


# -- exact formats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ExpertFormat.INT8, ExpertFormat.NESTED])
def test_uncalibrated_stores_hold_the_graphs_integers(kind: ExpertFormat, model: Synthesis, tmp_path: Path) -> None:
    result = pack(model, kind, tmp_path / "a.experts", None)
    assert (result.layers, result.quality, result.format) == (1, (), kind)
    assert result.bytes == (tmp_path / "a.experts").stat().st_size
    store = Store.open(tmp_path / "a.experts")
    (mixture,) = mixtures(model.graph)
    constants = store.constants(0)
    for e in range(mixture.layer.num_experts):
        expert = expert_of(model.graph, mixture, e)
        w1, w2 = stored_experts(store, 0)(e)
        np.testing.assert_array_equal(integers(w1, kind, len(kind.levels)), expert.w1)
        np.testing.assert_array_equal(integers(w2, kind, len(kind.levels)), expert.w2)
        for found, wanted in ((constants.fc1, expert.fc1), (constants.fc2, expert.fc2)):
            np.testing.assert_array_equal(found.bias[:, e], wanted.bias)
            np.testing.assert_array_equal(found.multiplier[:, e], wanted.multiplier)
            np.testing.assert_array_equal(found.shift[:, e], wanted.shift)


def test_tasks_share_a_layer_unless_their_rescalings_differ(model: Synthesis) -> None:
    (mixture,) = mixtures(model.graph)
    assert mixture.nodes == ("semseg.block1.experts", "depth.block1.experts")
    assert mixture.layer.name == "block1.experts"
    node = mixture.node
    assert isinstance(node.params, ExpertsParams)
    other = replace(node, params=replace(node.params, gelu=Requant((40000,), (20,), node.params.gelu.out_type)))
    nodes = tuple(other if n.name == node.name else n for n in model.graph.nodes)
    changed = replace(model.graph, nodes=nodes)
    assert [m.layer.name for m in mixtures(changed)] == ["semseg.block1.experts", "depth.block1.experts"]


def test_ternary_of_the_shipped_model(tmp_path: Path, shipped: Graph) -> None:
    for kind, bits in ((ExpertFormat.TERNARY, 2), (ExpertFormat.TRITS, 1.625)):
        result = pack_graph(shipped, FormatChoice(kind), tmp_path / "a.experts")
        weights = 3 * 8 * 2 * 64 * 64
        assert result.level_bytes == (weights * bits / 8,)


@pytest.fixture
def shipped(digits: Digits) -> Graph:
    return digits.graph(ExpertFormat.TERNARY)


# -- fitted formats ---------------------------------------------------------------------------------------------------


def test_nested_experts_gain_from_fitted_rescalings(model: Synthesis, images: Pixels, tmp_path: Path) -> None:
    """On images that nothing was fitted on; the whole width stays exact."""
    fitted = pack(model, ExpertFormat.NESTED, tmp_path / "fitted.experts", images)
    pack(model, ExpertFormat.NESTED, tmp_path / "plain.experts", None)
    own = quality_of(model, tmp_path / "plain.experts", images)
    found = quality(fitted)
    assert found[8] == own[8] == float("inf")
    assert found[2] > own[2] + 1.0
    assert found[4] > own[4] - 0.2
    assert found[4] > found[2] + 6.0


def quality_of(model: Synthesis, path: Path, images: Pixels) -> dict[int, float]:
    """Of a store, on the images that `pack_graph` holds back."""
    from codesign.experts.pack.mixtures import joined, sample

    found = mixtures(model.graph)
    kept = len(images) - len(images) // 4
    (samples,) = sample(model.graph, found, images[kept:], lambda done, total: None)
    return {q.width: q.sqnr_db for q in measure(model.graph, found[0], Store.open(path), joined(samples))}


def test_compensation_helps_residual_experts(model: Synthesis, images: Pixels, tmp_path: Path) -> None:
    """At 2 and 3 bits. Of so small a layer it costs at 4: the errors that the base moves are left to the planes."""
    compensated, plain = (
        quality(pack(model, ExpertFormat.RESIDUAL, tmp_path / "a.experts", images, compensate=compensate))
        for compensate in (True, False)
    )
    assert set(compensated) == {2, 3, 4}
    assert compensated[2] > plain[2] + 1.0
    assert compensated[3] > plain[3] + 0.3
    assert compensated[4] > plain[4] - 1.5
    assert compensated[2] + 2 < compensated[3] < compensated[4] - 1


def test_ternarized_int8_experts(model: Synthesis, images: Pixels, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weights must be -1, 0 and 1 to be packed as ternary, and they are int8"):
        pack(model, ExpertFormat.TERNARY, tmp_path / "a.experts", None)
    assert not list(tmp_path.iterdir())
    result = pack(model, ExpertFormat.TERNARY, tmp_path / "a.experts", images, ternarize=True)
    assert 1.0 < quality(result)[2] < 20.0


@pytest.mark.parametrize("kind", [ExpertFormat.NESTED, ExpertFormat.RESIDUAL])
def test_planes_of_ternary_experts_are_refused(kind: ExpertFormat, shipped: Graph, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be int8 to be packed as \w+, not ternary as in block1.experts; pack"):
        pack_graph(shipped, FormatChoice(kind), tmp_path / "a.experts")


def test_a_single_calibration_image_is_refused(model: Synthesis, images: Pixels, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="calibration must have 2 images or more, not 1; give more"):
        pack(model, ExpertFormat.NESTED, tmp_path / "a.experts", images[:1])


def test_a_model_without_experts_is_refused(tmp_path: Path) -> None:
    graph = random_graph(np.random.default_rng(0), GraphShape())
    nodes = tuple(n for n in graph.nodes if not isinstance(n.params, ExpertsParams))
    first = nodes[: next(i for i, n in enumerate(graph.nodes) if isinstance(n.params, ExpertsParams))]
    outputs = tuple(replace(o, tensor=first[-1].output.name) for o in graph.outputs)
    with pytest.raises(InputError, match="must have mixtures of experts to pack, and it has none; give another"):
        pack_graph(replace(graph, nodes=first, outputs=outputs), FormatChoice(ExpertFormat.INT8), tmp_path / "a")


# -- layers without a model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ExpertFormat)
def test_llm_shaped_layers(kind: ExpertFormat, tmp_path: Path) -> None:
    recipe = parse_layers(LITTLE.replace("count = 1", "count = 2"), "little")
    result = pack_layers(recipe, FormatChoice(kind), tmp_path / "a.experts", 3, lambda what, done, total: None)
    assert result.layers == 2
    store = Store.open(tmp_path / "a.experts")
    store.verify()
    first = recipe.changed(1)
    pack_layers(first, FormatChoice(kind), tmp_path / "b.experts", 3, lambda what, done, total: None)
    again = Store.open(tmp_path / "b.experts")
    for e in range(3):
        for level in range(len(kind.levels)):
            np.testing.assert_array_equal(store.read_block(0, level, e), again.read_block(0, level, e))
    assert not np.array_equal(store.read_block(0, 0, 0), store.read_block(1, 0, 0))


def test_random_experts_use_their_ranges() -> None:
    """int8 inputs of the stated deviation: hidden values and outputs use their types, few saturate."""
    recipe = parse_layers(LITTLE.replace("64", "512").replace("32", "256"), "little")
    layer = recipe.layer(0)
    assert layer.activation is Activation.SILU_GATED
    from codesign.experts.pack.fit import applied, hidden
    from codesign.experts.pack.mixtures import Expert
    from codesign.experts.pack.sources import _rescaling

    drawn = random_expert(recipe, 0, 0, 0)
    assert np.abs(drawn.w1.astype(int)).max(axis=1).min() == 127
    expert = Expert(
        drawn.w1.astype(np.int64), drawn.w2.astype(np.int64), _rescaling(drawn.scale1), _rescaling(drawn.scale2)
    )
    x = np.clip(np.rint(np.random.default_rng(0).normal(0, INPUT_SIGMA, (400, 512))), -128, 127).astype(np.int64)
    h = hidden(layer, expert, x)
    assert 8 < h.std() < 40
    assert (np.abs(h) >= 127).mean() < 0.01
    o = applied(h @ expert.w2.T, expert.fc2)
    assert 30 < o.std() < 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("top_k = 2", "top_k = 4"), "layers: top_k must be at most num_experts (3), not 4"),
        (("count = 1", "count = 0"), "layers.count"),
        (("hidden = 32", "hidden = 9000"), "layers.hidden"),
        (("silu_gated", "relu"), "layers.activation"),
        (("hidden = 32\n", ""), "layers.hidden: is missing"),
    ],
)
def test_bad_recipes_of_layers(change: tuple[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_layers(LITTLE.replace(*change), "little")
    assert message in str(caught.value)
    assert "see models/olmoe_layers.toml for a complete one" in str(caught.value)


def test_the_shipped_recipe_is_olmoe() -> None:
    recipe = read_layers(asset("models") / "olmoe_layers.toml")
    layer = recipe.layer(15)
    assert (recipe.layers.count, layer.embed_dim, layer.hidden, layer.num_experts, layer.top_k) == (
        16,
        2048,
        1024,
        64,
        8,
    )
    with pytest.raises(InputError, match=r"layers must be in 1..16 for olmoe, not 17; ask for fewer"):
        recipe.changed(17)


# -- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "codesign", "experts", "pack", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_command_on_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "little.toml").write_text(LITTLE, encoding="utf-8")
    out = tmp_path / "new" / "a.experts"
    with pytest.raises(SystemExit) as stop:
        main(["experts", "pack", str(tmp_path / "little.toml"), "--format", "nested", "--out", str(out), "--json"])
    assert stop.value.code == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["store"] == str(out)
    assert facts["format"] == "nested"
    assert facts["bytes"] == out.stat().st_size
    Store.open(out).verify()


def test_the_command_on_a_bundle(bundle: Path, tmp_path: Path) -> None:
    done = run(bundle, "--format", "trits", "--out", tmp_path / "a.experts")
    assert done.returncode == 0, done.stderr
    assert "format  trits" in done.stdout
    assert Store.open(tmp_path / "a.experts").kind is ExpertFormat.TRITS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.onnx",), "none.onnx"),
        (("none.safetensors",), "checkpoint none.safetensors must be a file, and there is none"),
        (("none.toml",), "recipe none.toml must be a readable text file"),
        (("LITTLE", "--calibrate", "digitscenes"), "which has layers only; drop --calibrate"),
        (("LITTLE", "--layers", "2"), "layers must be in 1..1 for little, not 2; ask for fewer"),
        (("BUNDLE", "--seed", "1"), "seed and layers must be left out for"),
        (("BUNDLE", "--format", "nested"), "not ternary as in"),
        (("BUNDLE", "--format", "int8", "--calibrate", "none.npy"), "images must be a .npy file or a folder of PNGs"),
        (("BUNDLE", "--format", "int8", "--calibrate", "digitscenes"), "calibration images must be"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], message: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "little.toml").write_text(LITTLE, encoding="utf-8")
    known = {"BUNDLE": str(bundle), "LITTLE": str(tmp_path / "little.toml")}
    filled = [known.get(a, a) for a in arguments]
    with pytest.raises(SystemExit) as stop:
        main(["experts", "pack", *filled, "--out", str(tmp_path / "a.experts")])
    text = capsys.readouterr().err
    assert stop.value.code == 2
    assert text.count("\n") == 1
    assert message in text
    assert not (tmp_path / "a.experts").exists()


def test_sources(tmp_path: Path) -> None:
    (tmp_path / "little.toml").write_text(LITTLE, encoding="utf-8")
    (tmp_path / "model.toml").write_text(TEXT, encoding="utf-8")
    assert isinstance(read_source(tmp_path / "little.toml", 0, None), LayersRecipe)
    graph = read_source(tmp_path / "model.toml", 0, 2)
    assert isinstance(graph, Graph)
    scenes = read_calibration("digitscenes", graph.image)
    assert scenes.shape == (64, 64, 128, 3)
