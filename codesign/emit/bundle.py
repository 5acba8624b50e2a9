# SPDX-License-Identifier: Apache-2.0
"""Writes the bundle (docs/bundle.md): what a person or a CI needs to simulate, synthesise and deploy the machine."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codesign import __version__
from codesign.assets import asset, licence
from codesign.emit import manifest as m
from codesign.emit.params import render_hls_config, render_sv_package, render_template
from codesign.errors import InputError, reason
from codesign.passes import slice_experts
from codesign.reference import run_task
from codesign.schedule import Design, MachineSize, Step, Stored, TaskPrograms, isa, striped
from codesign.spec import Graph
from codesign.spec.patches import Pixels, to_patches
from codesign.spec.serialize import save_graph

MANIFEST = "manifest.json"
MEMORY = "data/memory.bin"


@dataclass(frozen=True)
class BundleSource:
    """What goes into a bundle beside the design."""

    graph: Graph
    design: Design
    images: Pixels
    """Test images, uint8 [n, height, width, channels]; their golden outputs go with them."""
    training: str = "{}"
    """Training metrics as a JSON object."""


@contextmanager
def replacing_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block ends well, and vanishes when it does not."""
    if out.exists() and not out.is_dir():
        raise InputError(f"output must be a folder, not the file {out}; choose another name")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise InputError(
            f"output folder {out} must be empty or an earlier bundle, not hold other files; choose another name"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InputError(f"output folder {out} must be writable: {reason(error)}; choose another place") from None
    try:
        yield work
        work.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        work.rename(out)
    except OSError as error:
        raise InputError(
            f"output folder {out} must have room and be writable: {reason(error)}; free some space"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def ap_types() -> Path:
    """The folder of hls4ml's `ap_types` headers. Raises InputError when hls4ml is not installed."""
    found = importlib.util.find_spec("hls4ml")
    if found is None or found.origin is None:
        raise InputError("hls4ml must be installed for its ap_types headers; do pip install 'codesign[sim]'")
    return Path(found.origin).parent / "templates" / "vivado" / "ap_types"


_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "tests", ".*")


def _copy_sources(work: Path, design: Design) -> None:
    shutil.copytree(asset("hls"), work / "hls", ignore=_IGNORED)
    shutil.copytree(ap_types(), work / "hls" / "ap_types", ignore=_IGNORED)
    shutil.copytree(asset("rtl"), work / "rtl", ignore=_IGNORED)
    shutil.copytree(asset("rtl_tests") / "machine", work / "sim", ignore=_IGNORED)
    shutil.copy(licence(), work / "LICENSE")
    (work / "driver").mkdir()
    shutil.copy(asset("boards") / design.board.name / "driver.py", work / "driver" / "driver.py")


def _write_generated(work: Path, source: BundleSource) -> None:
    design = source.design
    (work / "rtl" / "codesign_pkg.sv").write_text(render_sv_package(design.size), encoding="utf-8")
    (work / "hls" / "include" / "codesign" / "codesign_config.hpp").write_text(
        render_hls_config(design.size), encoding="utf-8"
    )
    view = {
        "version": __version__,
        "name": source.graph.name,
        "board": design.board.name,
        "part": design.board.part,
        "clock_mhz": design.board.clock_mhz,
        "tasks": source.graph.tasks,
        "images": len(source.images),
        "design_hash": design.size.hash32(),
    }
    for template, path in (
        ("run_hls.tcl.j2", "hls/run_hls.tcl"),
        ("bundle_README.md.j2", "README.md"),
        ("bundle_Makefile.j2", "Makefile"),
        ("bundle_test_bundle.py.j2", "test_bundle.py"),
        ("bundle_requirements.txt.j2", "requirements.txt"),
    ):
        (work / path).write_text(render_template(template, view), encoding="utf-8")


def graph_of(graph: Graph, width: isa.Width) -> Graph:
    """The graph that a Program of that width computes."""
    return graph if width is isa.Width.STORED else slice_experts(graph, isa.SLICE_BITS[width])


def result_of(programs: TaskPrograms) -> Stored:
    """The whole result of a task: a tiled Program stores it block by block, one behind the other."""
    first, *more = programs.plain.stored
    return replace(first, rows=first.rows + sum(s.rows for s in more))


def golden_name(task: str, width: str) -> str:
    """The file of the golden outputs of a task at a width."""
    return f"data/golden_{task}.npy" if width == "stored" else f"data/golden_{task}_{width}.npy"


def golden(graph: Graph, programs: TaskPrograms, x: npt.NDArray[np.int64], line_bytes: int) -> Pixels:
    """What the plain Program must leave at the start of the output buffer, in line order: the result of each image.

    x [n, patches, elements] -> [n, bytes of the result, whole lines].
    """
    stored = result_of(programs)
    graph = graph_of(graph, programs.width)
    size = 2 * stored.rows * stored.row_elements
    buffers = np.zeros((len(x), -(-size // line_bytes) * line_bytes), dtype=np.uint8)
    for i, one in enumerate(x):
        rows = np.zeros((stored.rows, stored.row_elements), dtype="<i2")
        rows[:, : stored.columns] = run_task(graph, programs.task, one)[stored.tensor]
        buffers[i, : rows.nbytes] = rows.view(np.uint8).reshape(-1)
    return buffers


def _write_data(work: Path, source: BundleSource) -> None:
    data = work / "data"
    data.mkdir()
    design = source.design
    (work / MEMORY).write_bytes(striped(design.memory, design.size.ports))
    save_graph(source.graph, data / "graph.json", data / "graph.safetensors")
    np.save(data / "images.npy", source.images, allow_pickle=False)
    x = to_patches(source.images, source.graph.image)
    for programs in design.tasks:
        expected = golden(source.graph, programs, x, design.size.line_bytes)
        np.save(work / golden_name(programs.task, programs.width.name.lower()), expected, allow_pickle=False)


_DTYPE = {isa.Unit.ACT: "int8", isa.Unit.RES: "int16", isa.Unit.QUEUE: "uint16"}


def _tensor(graph: Graph, s: Stored, line_bytes: int) -> m.BufferTensor:
    kind = m.TensorKind.QUEUE if s.unit is isa.Unit.QUEUE else m.TensorKind.MATRIX
    return m.BufferTensor.model_validate(
        {
            "tensor": s.tensor,
            "kind": kind,
            "offset": s.line * line_bytes,
            "first_row": s.first_row,
            "rows": s.rows,
            "columns": s.columns,
            "row_elements": s.row_elements,
            "dtype": _DTYPE[s.unit],
            "scale": graph.spec_of(s.tensor).scale,
            "instruction": s.step,
        }
    )


def _info(step: Step, size: MachineSize) -> m.InstructionInfo:
    i = step.instruction
    read = i.blocks * size.block_bytes
    return m.InstructionInfo(name=step.name, opcode=i.opcode.name, macs=step.macs, read_bytes=read)


def _task(graph: Graph, programs: TaskPrograms, size: MachineSize) -> m.Task:
    line = size.line_bytes
    out = graph.output_of(programs.task)
    plain, traced = programs.plain, programs.traced
    return m.Task(
        name=programs.task,
        width=m.ExpertWidth(programs.width.name.lower()),
        program_addr=plain.addr,
        num_instructions=len(plain.steps),
        output_bytes=plain.output_lines * line,
        macs=programs.macs,
        result=_tensor(graph, result_of(programs), line),
        classes=out.classes,
        cells=out.cells,
        first_row=out.first_row,
        readout=out.readout,
        instructions=tuple(_info(s, size) for s in plain.steps),
        traced=m.TracedProgram(
            program_addr=traced.addr,
            num_instructions=len(traced.steps),
            output_bytes=traced.output_lines * line,
            tensors=tuple(_tensor(graph, s, line) for s in traced.stored),
        ),
    )


def file_hashes(folder: Path) -> tuple[m.FileHash, ...]:
    """SHA-256 of every file below `folder` but the manifest, sorted by path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return tuple(
        m.FileHash(path=str(p.relative_to(folder)), sha256=hashlib.sha256(p.read_bytes()).hexdigest()) for p in files
    )


def _manifest(source: BundleSource, files: tuple[m.FileHash, ...]) -> m.Manifest:
    design, image = source.design, source.graph.image
    identity = {"design_hash": design.size.hash32(), "magic": isa.MAGIC, "isa_version": isa.ISA_VERSION}
    return m.Manifest(
        format=m.FORMAT,
        codesign_version=__version__,
        name=source.graph.name,
        board=design.board.name,
        part=design.board.part,
        clock_mhz=design.board.clock_mhz,
        machine=m.Machine.model_validate({**asdict(design.size), **identity}),
        registers=tuple(
            m.RegisterEntry.model_validate(
                {"name": r.name, "offset": r.offset, "bit_width": r.bit_width, "host_writes": r.host_writes}
            )
            for r in isa.REGISTERS
        ),
        unit_states=tuple(m.UnitState(name=name, bits=bits) for name, bits in isa.UNIT_STATES),
        dram=design.board.memory,
        image=m.Image(
            **asdict(image), row_bytes=design.input_row_bytes, bytes=design.input_lines * design.size.line_bytes
        ),
        memory=m.MemoryFile(file=MEMORY, bytes=len(design.memory)),
        tasks=tuple(_task(source.graph, t, design.size) for t in design.tasks),
        training=source.training,
        files=files,
    )


def write_bundle(source: BundleSource, out: Path) -> Path:
    """Writes the bundle to `out`, replacing an earlier bundle there; all or nothing.

    Raises InputError when the folder cannot be written or the images do not fit the model.
    """
    with replacing_folder(out) as work:
        _copy_sources(work, source.design)
        _write_generated(work, source)
        _write_data(work, source)
        text = _manifest(source, file_hashes(work)).model_dump_json(indent=1)
        with (work / MANIFEST).open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    return out
