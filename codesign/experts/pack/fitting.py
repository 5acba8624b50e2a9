# SPDX-License-Identifier: Apache-2.0
"""Rescalings that make up for coarser weights: gain and offset of each output, by least squares on calibration rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.experts.file.writer import ExpertRescaling
from codesign.reference.functions import Ints
from codesign.spec import INT16, INT32, Requant

Floats = npt.NDArray[np.float64]

_LEAST_GAIN, _MOST_GAIN = 1 / 16, 4.0
_LEAST_SPREAD = 1e-9
"""Below such a variance of integers all rows are one value, and rounding: there is no gain to fit."""
_FEWEST_ROWS = 8
"""Below so many rows a gain is noise: only the offset is fitted."""


@dataclass(frozen=True)
class Line:
    """`wanted ~ gain * found + offset`, per output [N]."""

    gain: Floats
    offset: Floats


def fit_line(wanted: Floats, found: Floats, weights: Floats | None = None) -> Line:
    """Least squares for each column of two arrays [rows, N]; gains stay within 1/16..4. `weights` [rows] say how much a
    row counts (positive; None: all alike).
    """
    if not len(found):
        return Line(np.ones(found.shape[1]), np.zeros(found.shape[1]))
    share = np.full(len(found), 1 / len(found)) if weights is None else weights / weights.sum()
    centre, middle = share @ wanted, share @ found
    if len(found) < _FEWEST_ROWS:
        return Line(np.ones_like(middle), centre - middle)
    spread = share @ np.square(found - middle)
    together = share @ ((found - middle) * (wanted - centre))
    gain = np.where(spread > _LEAST_SPREAD, together / np.maximum(spread, _LEAST_SPREAD), 1.0)
    gain = np.clip(gain, _LEAST_GAIN, _MOST_GAIN)
    return Line(gain, centre - gain * middle)


def scale_of(rescaling: ExpertRescaling) -> Floats:
    """The real factors [N] of a rescaling's first set."""
    factors: Floats = rescaling.multiplier[0] * 2.0 ** -rescaling.shift[0].astype(np.float64)
    return factors


def rescaled(rescaling: ExpertRescaling, unit: Floats, inputs: int) -> ExpertRescaling:
    """The rescaling for sums in which one unit is worth `unit` [N] of what it was."""
    return _made(scale_of(rescaling) * unit, rescaling.bias[0] / unit, inputs)


def adjusted(rescaling: ExpertRescaling, line: Line, inputs: int) -> ExpertRescaling:
    """The rescaling that applies a line to the sums before the bias is added."""
    return _made(scale_of(rescaling) * line.gain, (rescaling.bias[0] + line.offset) / line.gain, inputs)


def _made(scale: Floats, bias: Floats, inputs: int) -> ExpertRescaling:
    limit = INT32.max - inputs * 128 * 128
    requant = Requant.of_scale([float(s) for s in scale], INT16)
    clipped: Ints = np.clip(np.rint(bias), -limit, limit).astype(np.int64)
    return ExpertRescaling(clipped[None], np.array([requant.multiplier]), np.array([requant.shift]))


def stacked(sets: list[ExpertRescaling]) -> ExpertRescaling:
    """The rescalings of several widths as one."""
    return ExpertRescaling(
        np.concatenate([s.bias for s in sets]),
        np.concatenate([s.multiplier for s in sets]),
        np.concatenate([s.shift for s in sets]),
    )
