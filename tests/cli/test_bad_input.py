# SPDX-License-Identifier: Apache-2.0
"""Bad input, as a user meets it: one line on stderr with offender and remedy, status 2, nothing left behind."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, numpy_helper
from PIL import Image

from codesign.cli import main
from codesign.train.checkpoint import write_checkpoint
from codesign.train.model import MultiTaskViT
from codesign.train.recipe import parse_recipe
from tests.conftest import one_line, restamp
from tests.train.tiny import RECIPE

Edit = Callable[[ModelProto], None]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The error line of a command that must end with status 2."""
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    line = one_line(err)
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def node(model: ModelProto, op_type: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.op_type == op_type)


def lacking_operator(model: ModelProto) -> None:
    gelu = node(model, "Gelu")
    gelu.op_type = "Relu"
    del gelu.attribute[:]


def dynamic_shape(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def float_weight(model: ModelProto) -> None:
    conv = node(model, "Conv")
    conv.input[1] = next(n for n in model.graph.node if conv.input[1] in n.output).input[0]


def bit_width(model: ModelProto) -> None:
    quant = next(n for n in model.graph.node if n.output[0].endswith("attn.q.weight.quant"))
    quant.input[3] = "bits"
    model.graph.initializer.append(numpy_helper.from_array(np.array(70.0, np.float32), "bits"))


def not_finite(value: float) -> Edit:
    def edit(model: ModelProto) -> None:
        weight = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 1)
        array = numpy_helper.to_array(weight).copy()
        array.flat[3] = value
        weight.CopyFrom(numpy_helper.from_array(array, weight.name))

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lacking_operator, ("Relu",)),
        (dynamic_shape, ("image", "batch")),
        (float_weight, ("patch_embed.weight",)),
        (bit_width, ("attn.q.weight", "70")),
        (not_finite(float("nan")), ("NaN",)),
        (not_finite(float("inf")), ("Inf",)),
    ],
    ids=["operator", "dynamic", "float", "bits", "nan", "inf"],
)
def test_models_that_cannot_be_taken(
    edit: Edit, words: tuple[str, ...], model: ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(model)
    onnx.save(model, str(tmp_path / "model.onnx"))
    line = refused(capsys, "generate", tmp_path / "model.onnx", "--out", tmp_path / "bundle")
    for word in words:
        assert word in line
    assert re.search(r"; \w+", line), "a remedy"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_truncated_onnx(exported: ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = exported.SerializeToString()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2])
    line = refused(capsys, "generate", tmp_path / "model.onnx", "--out", tmp_path / "bundle")
    assert "must be a whole ONNX file" in line
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_truncated_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "model.safetensors"
    torch.manual_seed(1)
    write_checkpoint(checkpoint, MultiTaskViT(parse_recipe(RECIPE, "tiny")), RECIPE, {})
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    line = refused(capsys, "export", checkpoint, "--out", tmp_path / "out" / "model.onnx")
    assert "model.safetensors must be a whole safetensors file" in line
    assert not list((tmp_path / "out").iterdir())
    line = refused(capsys, "demo", "--checkpoint", checkpoint, "--out", tmp_path / "demo")
    assert "model.safetensors must be a whole safetensors file" in line
    assert not (tmp_path / "demo").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "out"]


@pytest.mark.parametrize("what", ["size", "dtype"])
def test_wrong_images(
    what: str, bundle: Path, model: ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.zeros((2, 64, 100, 3), np.uint8) if what == "size" else np.zeros((2, 64, 128, 3), np.float32)
    np.save(tmp_path / "images.npy", images)
    onnx.save(model, str(tmp_path / "model.onnx"))
    line = refused(
        capsys, "generate", tmp_path / "model.onnx", "--out", tmp_path / "bundle", "--images", tmp_path / "images.npy"
    )
    assert re.search(
        r"images\.npy must be uint8 \[n, 64, 128, 3\], not (uint8|float32) \[2, 64, 1\d\d, 3\]; resize", line
    )
    assert not (tmp_path / "bundle").exists()
    line = refused(capsys, "simulate", bundle, "--engine", "reference", "--images", tmp_path / "images.npy")
    assert "images.npy must be uint8 [n, " in line


def test_wrong_png(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (5, 5)).save(tmp_path / "small.png")
    line = refused(capsys, "simulate", bundle, "--images", tmp_path)
    assert "small.png must be uint8 [" in line


def test_unknown_task(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "simulate", bundle, "--engine", "csim", "--task", "flow")
    assert line == "task must be one of semseg, depth, not 'flow'; choose one of those"


def test_unknown_board(model: ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(model, str(tmp_path / "model.onnx"))
    line = refused(capsys, "generate", tmp_path / "model.onnx", "--board", "zcu999", "--out", tmp_path / "bundle")
    assert "board must be one of" in line
    assert "'zcu999'" in line


def test_output_below_a_file(model: ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(model, str(tmp_path / "model.onnx"))
    line = refused(capsys, "generate", tmp_path / "model.onnx", "--out", tmp_path / "model.onnx" / "bundle")
    assert re.search(r"must be writable: (Not a directory|File exists); choose another place", line)


def test_read_only_output(model: ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """/proc refuses new entries to everybody, root included."""
    onnx.save(model, str(tmp_path / "model.onnx"))
    line = refused(capsys, "generate", tmp_path / "model.onnx", "--out", "/proc/codesign-bundle")
    assert line.startswith("output folder /proc/codesign-bundle must be writable: ")
    line = refused(capsys, "export", tmp_path / "model.onnx", "--out", "/proc/nothing/model.onnx")
    assert "/proc/nothing" in line


def test_output_is_not_a_bundle(model: ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with somebody's files is never replaced."""
    onnx.save(model, str(tmp_path / "model.onnx"))
    precious = tmp_path / "home" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("years", encoding="utf-8")
    line = refused(capsys, "generate", tmp_path / "model.onnx", "--out", precious.parent)
    assert "must be empty or an earlier bundle, not hold other files; choose another name" in line
    assert precious.read_text(encoding="utf-8") == "years"


def full_disk() -> None:
    """No file may grow beyond 8 KiB: the kernel refuses the write, as a full disk does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def test_full_disk(model: ModelProto, tmp_path: Path) -> None:
    onnx.save(model, str(tmp_path / "model.onnx"))
    command = [sys.executable, "-m", "codesign", "generate", "model.onnx", "--out", "bundle"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=full_disk, timeout=120, check=False
    )
    assert done.returncode == 2, done.stderr
    line = one_line(done.stderr)
    assert line.startswith("error: output folder bundle must have room and be writable: ")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(("engine", "tool"), [("csim", "g++"), ("rtlsim", "make")])
def test_missing_tools(
    engine: str, tool: str, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    line = refused(capsys, "simulate", copy, "--engine", engine)
    assert line == f"{tool} must be installed, and it was not found; install the Debian package {tool}"
    assert not list((copy / "build").iterdir())


def test_sources_that_do_not_build(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "hls" / "src" / "top.cpp").write_text("int main( {\n", encoding="utf-8")
    restamp(copy)
    line = refused(capsys, "simulate", copy, "--engine", "csim")
    assert line.startswith("building csim must succeed, not exit with 2: g++ must succeed, not exit with 1: ")
    assert "top.cpp:1:" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("simulate",),
        ("simulate", "x", "--engine", "fpga"),
        ("simulate", "x", "--jobs", "0"),
        ("--nope",),
    ],
)
def test_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, *arguments).endswith("; see codesign --help")


def test_a_model_larger_than_memory(
    model: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(model, str(tmp_path / "model.onnx"))

    def too_much(*_: object) -> None:
        np.empty(1 << 60, np.uint8)

    monkeypatch.setattr("codesign.generate.plan", too_much)
    line = refused(capsys, "generate", tmp_path / "model.onnx", "--out", tmp_path / "bundle")
    assert line == "the model must fit this computer's memory, and it does not; use fewer tokens or more memory"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_an_array_that_cannot_be_built(model: ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(model, str(tmp_path / "model.onnx"))
    line = refused(capsys, "generate", tmp_path / "model.onnx", "--array", "7x9", "--out", tmp_path / "bundle")
    assert "PE a multiple of 16 up to SIMD, not 7x9; choose for example 64x48" in line
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_recipe_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must be a readable text file" in refused(capsys, "train", tmp_path / "no.toml", "--out", tmp_path / "m")
    assert "must be a folder with a manifest.json" in refused(capsys, "report", tmp_path)
