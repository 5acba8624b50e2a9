# SPDX-License-Identifier: Apache-2.0
"""The report: self-contained, well-formed, escaped, and true to what was measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from codesign.emit.bundle import BundleSource, write_bundle
from codesign.engines import Bundle, Engine, SimulationResult, simulate
from codesign.errors import InputError
from codesign.reference import run_task
from codesign.report import report
from codesign.report.frame import kinds, read_frames
from codesign.report.measure import measure, to_map
from codesign.report.roofline import roofs_of, whole_frame
from codesign.schedule import ArrayShape, Options, load_board, plan
from codesign.spec import Readout
from codesign.spec.patches import to_patches
from codesign.train import metrics
from codesign.train.digitscenes import NUM_CLASSES, Split, scenes
from tests.conftest import restamp, take_build
from tests.graphs import GraphShape, random_graph

VOID = {"meta", "img", "line", "rect"}
SCENES = GraphShape(tokens=33, dim=16, experts=4, patch=16, classes=(11, 1), cells=2)  # 4 x 8 patches: 64 x 128 pixels
TRAINING = {
    "test_images": 3,
    "scores": {"miou": 0.5127, "depth_rel": 0.0813, "depth_rmse": 0.0432},
    "baseline": {"miou": 0.0701, "depth_rel": 0.5, "depth_rmse": 0.2},
    "compared": {"float": {"miou": 0.6543, "depth_rel": 0.0777, "depth_rmse": 0.0421}},
    "something_else": [1, 2],
}


class Checker(HTMLParser):
    """Collects tags and text; every tag that opens must close, and nothing may be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.content: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert tag not in {"script", "link", "iframe", "object"}
        for name, value in attrs:
            assert name not in {"href", "onload", "onclick"}
            assert name != "src" or (value or "").startswith("data:image/png;base64,")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.content.append(data)


def read(page: Path) -> Checker:
    checker = Checker()
    text = page.read_text(encoding="utf-8")
    assert "http" not in text
    assert "url(" not in text
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose images are the first test scenes of DigitScenes."""
    folder = tmp_path_factory.mktemp("labelled") / "bundle"
    graph = random_graph(np.random.default_rng(3), SCENES)
    images = scenes(Split.TEST, 2).images
    design = plan(graph, load_board("zcu104"), Options(ArrayShape(16, 16)))
    return write_bundle(BundleSource(graph, design, images, json.dumps(TRAINING)), folder)


def test_scores_are_those_of_all_test_scenes(labelled: Path) -> None:
    bundle, truth = Bundle.load(labelled), scenes(Split.TEST, 3)
    measured = measure(bundle, 3, lambda done, total: None)
    maps = {}
    for task in ("semseg", "depth"):
        out = bundle.graph.output_of(task)
        heads = np.stack(
            [run_task(bundle.graph, task, x)[out.tensor] for x in to_patches(truth.images, bundle.graph.image)]
        )
        cells = heads[:, out.first_row :].reshape(3, 4, 8, 2, 2, out.classes).transpose(0, 1, 3, 2, 4, 5)
        cells = cells.reshape(3, 8, 16, out.classes)
        small = cells.argmax(-1) if out.classes > 1 else np.exp(cells[..., 0] * bundle.graph.spec_of(out.tensor).scale)
        maps[task] = small.repeat(8, axis=1).repeat(8, axis=2)
    expected = metrics.scores(truth.semseg, maps["semseg"].astype(np.uint8), truth.depth, maps["depth"], NUM_CLASSES)
    assert measured.scores == expected
    assert len(measured.images) == 3


def test_accuracy_table_and_pictures(labelled: Path) -> None:
    checker = read(report(labelled))
    text = " ".join(checker.content)
    measured = measure(Bundle.load(labelled), 3, lambda done, total: None)
    assert measured.scores is not None
    for figure in (
        "7.0%",
        "51.3%",
        "8.1%",
        "0.0432",
        f"{measured.scores.miou:.1%}",
        f"{measured.scores.depth_rmse:.4f}",
    ):
        assert figure in text
    assert checker.tags.count("img") == 3 * 5  # three scenes: input, two truths, two predictions
    assert "No RTL simulation yet" in text


def test_expert_load_counts_tokens(labelled: Path) -> None:
    bundle = Bundle.load(labelled)
    measured = measure(bundle, 0, lambda done, total: None)
    for load in measured.loads:
        gates = run_task(bundle.graph, load.task, to_patches(bundle.images, bundle.graph.image)[1])
        name = next(n.output.name for n in bundle.graph.nodes if n.name == load.layer)
        assert load.tokens[1].tolist() == (gates[name] > 0).sum(axis=0).tolist()
        assert load.tokens.sum(axis=1).tolist() == [33 * 2] * 2
    assert {load.task for load in measured.loads} == {"semseg", "depth"}


def test_verdicts(copy: Path) -> None:
    text = " ".join(read(report(copy)).content)
    assert text.count("not run") == len(Engine) - 1  # a GPU's card is there when it ran
    simulate(copy, Engine.REFERENCE)
    assert "bit exact" in " ".join(read(report(copy)).content)
    file = copy / "data" / "golden_depth.npy"
    buffers = np.load(file)
    buffers[0, 0] ^= 1
    np.save(file, buffers)
    restamp(copy)
    simulate(copy, Engine.REFERENCE)
    text = " ".join(read(report(copy)).content)
    assert "DIFFERENT" in text
    assert "depth[0, 0] must be" in text


@pytest.fixture(scope="module")
def simulated(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulationResult]:
    """A copy of the bundle whose RTL was simulated on all its images."""
    folder = tmp_path_factory.mktemp("simulated") / "bundle"
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("build", "results", "report.html"))
    take_build(bundle, Engine.RTLSIM, folder)
    return folder, simulate(folder, Engine.RTLSIM)


def test_cycles_and_traffic_of_a_real_run(simulated: tuple[Path, SimulationResult]) -> None:
    copy, result = simulated
    text = " ".join(read(report(copy)).content)
    assert result.cycles is not None
    for one in result.cycles:
        assert f"{one.task}: {np.mean(one.cycles):,.0f} cycles" in text
    assert "simulated: " in text
    for opcode in ("LINEAR", "ATTENTION", "EXPERTS", "NORM", "ROUTE", "LOAD", "STORE"):
        assert opcode in text


def test_a_real_run_is_drawn(simulated: tuple[Path, SimulationResult]) -> None:
    page = report(simulated[0])
    text = " ".join(read(page).content)
    assert text.count("times the roofline, cycles measured in RTL") == 2
    assert text.count("measured in RTL") == 4
    html = page.read_text(encoding="utf-8")
    for task in ("semseg", "depth"):
        assert f'aria-label="timeline of {task}"' in html
        assert f'aria-label="roofline of {task}"' in html
    assert text.count("array: dense layer, ") == 2
    assert "No RTL simulation yet" not in text


def test_traces_account_for_every_cycle(simulated: tuple[Path, SimulationResult]) -> None:
    folder, result = simulated
    bundle = Bundle.load(folder)
    assert result.cycles is not None
    for frame, counted in zip(read_frames(bundle), result.cycles, strict=True):
        trace, spent = frame.trace, frame.spent
        assert trace is not None
        assert spent is not None
        assert frame.profile is not None
        assert abs(trace.cycles - counted.cycles[0]) <= 1
        assert sum(one.cycles for one in spent) == trace.completed[-1]
        assert sum(one.slots for one in spent) == pytest.approx(sum(w.slots for w in trace.windows), abs=64)
        assert sum(kind.cycles for kind in kinds(frame)) == trace.completed[-1]
        assert sum(kind.macs for kind in kinds(frame)) == frame.task.macs
        roofs = roofs_of(bundle)
        point = whole_frame(frame, roofs)
        assert 0 < point.rate <= roofs.at(point.intensity)
        assert point.label == f"whole frame, RTL: {frame.task.macs / np.mean(counted.cycles):,.0f}"
        assert sum(row.read_bytes for row in frame.estimate.instructions) < frame.read_bytes


def test_without_a_simulation_the_estimate_is_drawn(labelled: Path) -> None:
    page = report(labelled)
    text = " ".join(read(page).content)
    estimates = [frame.estimate for frame in read_frames(Bundle.load(labelled))]
    assert text.count("cycles estimated: no RTL simulation yet") == 2
    for one in estimates:
        assert f"{one.task}: {one.cycles:,} cycles estimated" in text
    html = page.read_text(encoding="utf-8")
    assert html.count('aria-label="roofline of') == 2
    assert "timeline of" not in html


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("S ", "must be a trace of codesign simulate; simulate on rtlsim again"),
        ("C ", "must show every instruction of semseg; simulate on rtlsim again"),
        ("W ", "must show every instruction of semseg; simulate on rtlsim again"),
    ],
)
def test_damaged_trace(simulated: tuple[Path, SimulationResult], tmp_path: Path, change: str, message: str) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(simulated[0], folder, ignore=shutil.ignore_patterns("build", "report.html"))
    file = folder / "results" / "timeline_semseg.trace"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith(change)), encoding="utf-8")
    with pytest.raises(InputError) as error:
        report(folder)
    assert str(error.value) == f"{file.resolve()} {message}"
    assert not (folder / "report.html").exists()


def test_names_are_escaped(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest["name"] = "<script>alert(1)</script>"
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert "<script>alert(1)</script>" in " ".join(read(report(copy)).content)  # as text: `read` refuses the tag


def test_damaged_training(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest["training"] = '{"scores": {"miou": "good"}}'
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputError, match=r"training must hold scores: scores\.miou: .*; generate the bundle again"):
        report(copy)
    assert not (copy / "report.html").exists()


def test_map_takes_the_larger_score_and_the_scale(labelled: Path) -> None:
    graph = Bundle.load(labelled).graph
    semseg, depth = graph.output_of("semseg"), graph.output_of("depth")
    heads = np.zeros((1, 33, 2 * 2 * 11), dtype=np.int64)
    heads[0, 1, 7] = 5  # patch 0, cell (0, 0), class 7
    heads[0, 1 + 8, 3 * 11 + 2] = 5  # patch (1, 0), cell (1, 1), class 2
    classes = to_map(graph, semseg, heads)[0]
    assert (classes[:8, :8] == 7).all()
    assert (classes[24:32, 8:16] == 2).all()
    assert classes.sum() == 64 * 7 + 64 * 2
    tens, scale = np.full((1, 33, 4), 10, dtype=np.int64), graph.spec_of(depth.tensor).scale
    np.testing.assert_array_equal(to_map(graph, depth, tens), np.exp(10 * scale))
    np.testing.assert_array_equal(to_map(graph, replace(depth, readout=Readout.VALUE), tens), 10 * scale)
