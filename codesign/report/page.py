# SPDX-License-Identifier: Apache-2.0
"""Puts the page together. Everything that comes from a bundle is escaped; the page loads nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from codesign import __version__
from codesign.engines import Bundle, Engine, load_result
from codesign.errors import InputError, reason
from codesign.report.frame import read_frames
from codesign.report.lanes import timelines
from codesign.report.measure import Measurement, measure
from codesign.report.roofline import roofline, roofs_of
from codesign.report.sections import accuracy, cards, experts, machine, predictions, traffic
from codesign.report.spending import cycles
from codesign.report.training import read_training

PAGE = "report.html"


def _silent(done: int, total: int) -> None:
    """The progress callback of somebody who does not watch."""


def report(path: Path, progress: Callable[[int, int], None] = _silent) -> Path:
    """Write `report.html` into the bundle in folder `path` and return its path.

    The accuracy of the integer model is measured here, on as many test scenes as the training was scored on; verdicts
    and cycles are those of the last `simulate` of each engine. Raises InputError for a bad bundle, a damaged result
    file, or when the page cannot be written.
    """
    bundle = Bundle.load(path)
    return write_page(bundle, measure(bundle, read_training(bundle).test_images, progress))


def write_page(bundle: Bundle, measured: Measurement) -> Path:
    """`report` for a bundle that was opened and measured already."""
    training = read_training(bundle)
    verdicts = tuple((engine, load_result(bundle, engine)) for engine in Engine)
    frames = read_frames(bundle)
    m = bundle.manifest
    sections = (
        accuracy(measured, training),
        predictions(measured),
        roofline(frames, roofs_of(bundle)),
        timelines(bundle, frames),
        cycles(frames, bundle.peak_macs_per_cycle),
        experts(measured),
        traffic(frames),
        machine(bundle),
    )
    template = Template(files("codesign.report").joinpath("page.html").read_text(encoding="utf-8"))
    text = template.substitute(
        title=escape(f"{m.name} on {m.board}"),
        subtitle=escape(f"{m.part} at {m.clock_mhz:g} MHz, design {m.machine.design_hash:08x}"),
        cards=cards(verdicts, m.clock_mhz),
        sections="".join(sections),
        footer=escape(f"codesign {__version__}. Cycles and frames per second are simulated, not measured on a board."),
    )
    return _write(bundle.path / PAGE, text)


def _write(page: Path, text: str) -> Path:
    temporary = page.with_name(f".{page.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(page)
    except OSError as error:
        raise InputError(f"{page} must be writable and have room: {reason(error)}; free some space") from None
    finally:
        temporary.unlink(missing_ok=True)
    return page
