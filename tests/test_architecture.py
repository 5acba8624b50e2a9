# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, which third-party package may appear where, and that every backend knows every operator."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codesign.schedule.place import FUSED
from codesign.spec import OpKind

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "codesign"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = (
    ("errors", "assets", "settings", "progress"),
    ("spec",),
    ("reference", "passes", "frontend", "train", "synthesis", "kernels"),
    ("schedule",),
    ("emit",),
    ("engines",),
    ("experts",),
    ("report",),
    ("cli", "cli_experts", "generate", "demo", "__main__"),
)
"""A module may import from layers above its own line; siblings do not import each other, but for these:"""
SIBLINGS = {
    ("assets", "errors"),
    ("settings", "errors"),
    ("passes", "reference"),
    ("synthesis", "reference"),
    ("synthesis", "passes"),
    ("kernels", "reference"),
    ("cli", "generate"),
    ("cli", "cli_experts"),
    ("cli", "demo"),
    ("demo", "generate"),
    ("__main__", "cli"),
}

EXPERTS = ("file", "pack", "run", "gpu", "command")
"""Within `experts`, each may import from those before it."""

ALLOWED = {
    "numpy": ("",),
    "safetensors": ("spec/serialize.py", "train/"),
    "torch": ("train/", "engines/cuda", "experts/gpu", "kernels/gpu/"),
    "triton": ("kernels/gpu/code/",),
    "brevitas": ("train/",),
    "lightning": ("train/",),
    "torchmetrics": ("train/",),
    "sklearn": ("train/", "synthesis/pictures.py"),
    "onnx": ("frontend/", "train/export.py", "train/onnx_cleanup.py"),
    "qonnx": ("frontend/", "train/export.py"),
    "google": ("frontend/load.py",),  # protobuf's DecodeError
    "scipy": ("frontend/qonnx_ops.py",),
    "jinja2": ("emit/",),
    "pydantic": (
        "settings.py",
        "train/",
        "synthesis/recipe.py",
        "synthesis/layers.py",
        "schedule/",
        "emit/",
        "engines/",
        "report/",
    ),
    "PIL": ("train/pictures.py", "synthesis/pictures.py", "engines/images.py", "report/"),
    "plotly": ("report/",),
    "rich": ("cli.py", "cli_experts.py", "progress.py", "demo.py", "generate.py", "train/fit.py"),
    "typer": ("cli.py", "cli_experts.py"),
    "hls4ml": ("emit/", "engines/"),
    "subprocess": ("engines/toolchain.py",),
}
"""Third-party packages (and subprocess), with the files (prefixes below codesign/) that may import them."""

FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "__import__", "os.system", "os.popen"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            yield from ((node.module or "") + "." + alias.name for alias in node.names)


def module(path: Path) -> str:
    """`codesign/spec/ops.py` to `spec`, `codesign/errors.py` to `errors`."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_import_direction(path: Path) -> None:
    own = module(path)
    if path == PACKAGE / "__init__.py":
        assert not [name for name in imports(path) if name.startswith("codesign")]
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "codesign" or parts[1].startswith("__version"):
            continue
        other = parts[1]
        if other != own:
            below = layer(other) < layer(own) or (own, other) in SIBLINGS
            assert below, f"{path.relative_to(ROOT)} must not import codesign.{other}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "experts").rglob("*.py")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_import_direction_within_experts(path: Path) -> None:
    own = path.relative_to(PACKAGE / "experts").parts[0].removesuffix(".py")
    others = [name.split(".")[2] for name in imports(path) if name.startswith("codesign.experts.")]
    if own == "__init__":
        assert not others
    for other in others:
        assert EXPERTS.index(other) <= EXPERTS.index(own), f"experts/{own} must not import experts/{other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_third_party_packages(path: Path) -> None:
    where = path.relative_to(PACKAGE).as_posix()
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in FORBIDDEN_MODULES, f"{where} must not import {top}"
        if top == "codesign" or (top in sys.stdlib_module_names and top not in ALLOWED):
            continue
        assert top in ALLOWED, f"{where} imports {top}, which has no place in ALLOWED"
        assert where.startswith(ALLOWED[top]), f"{where} must not import {top}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_dangerous(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in FORBIDDEN_CALLS, f"{path}:{node.lineno}"
            shell = [k for k in node.keywords if k.arg == "shell"]
            assert not shell, f"{path}:{node.lineno} must not pass shell="


def test_every_package_has_a_layer() -> None:
    found = {module(p) for p in FILES} - {"__init__"}
    assert found <= {name for names in LAYERS for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_licence_header(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# SPDX-License-Identifier: Apache-2.0\n")


def operator_maps(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Dict displays at module level, or in a call there, whose keys are members of OpKind."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or statement.value is None:
            continue
        for node in ast.walk(statement.value):
            keys = node.keys if isinstance(node, ast.Dict) else []
            members = {k.attr for k in keys if isinstance(k, ast.Attribute) and ast.unparse(k.value) == "OpKind"}
            if members:
                target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
                yield f"{path.relative_to(PACKAGE).as_posix()}:{ast.unparse(target)}", members


MAPS = [m for path in FILES for m in operator_maps(path)]


@pytest.mark.parametrize(("name", "members"), MAPS, ids=[name for name, _ in MAPS])
def test_backend_knows_every_operator(name: str, members: set[str]) -> None:
    if name.startswith("schedule/"):  # the scheduler gives these to the instruction before them
        fused = {kind.name for kind in FUSED}
        assert not members & fused
        members = members | fused
    assert members == {kind.name for kind in OpKind}, name


def test_backends_are_found() -> None:
    names = {name for name, _ in MAPS}
    assert {"reference/run.py:OPERATORS", "passes/verify.py:CHECKS", "passes/bounds.py:BOUNDS"} <= names
