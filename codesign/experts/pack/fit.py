# SPDX-License-Identifier: Apache-2.0
"""One expert of a graph in a format: digits, and rescalings fitted on the rows that calibration routes to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.errors import InputError
from codesign.experts.file.writer import ExpertRescaling
from codesign.experts.pack.fitting import Floats, adjusted, fit_line, rescaled, stacked
from codesign.experts.pack.mixtures import TERNARY_FORMATS, Expert, Samples
from codesign.experts.pack.residual import fit_residual, hessian_of
from codesign.reference import functions as f
from codesign.reference.functions import Ints
from codesign.reference.moe import Matrix, activate, dot, matrix_of
from codesign.spec import INT16
from codesign.spec.moe import ExpertFormat, MoeLayer
from codesign.spec.ops import GATE_FRACTION_BITS

_FEWEST_ROWS, _MOST_ROWS = 64, 4096
"""An expert that fewer rows reach is fitted on all rows; more than the most add nothing."""


@dataclass(frozen=True)
class FormatChoice:
    """How experts are to be packed. `ternarize`: round weights that are not ternary; `compensate`: move rounding errors
    into the columns that follow (residual format, with calibration).
    """

    kind: ExpertFormat
    ternarize: bool = False
    compensate: bool = True

    def sets(self, calibrated: bool) -> int:
        """Rescalings an expert: one, or one for each width when they are fitted."""
        fitted = calibrated and self.kind in (ExpertFormat.NESTED, ExpertFormat.RESIDUAL)
        return len(self.kind.widths) if fitted else 1


@dataclass(frozen=True)
class FittedExpert:
    """Matrices in the format, and rescalings [sets, N]."""

    w1: Matrix
    w2: Matrix
    fc1: ExpertRescaling
    fc2: ExpertRescaling


@dataclass(frozen=True)
class _Coarse:
    """A matrix in the format; one unit of its sums is worth `unit` [N] of the model's; `exact`: at its full width."""

    matrix: Matrix
    unit: Floats
    exact: bool

    @property
    def inputs(self) -> int:
        """Its columns."""
        return int(self.matrix.digits[0].shape[1])

    def own(self, rescaling: ExpertRescaling) -> ExpertRescaling:
        """The model's rescaling, for sums in these units."""
        return rescaling if self.exact else rescaled(rescaling, self.unit, self.inputs)

    def line(
        self, rescaling: ExpertRescaling, wanted: Ints, found: Ints, weights: Floats, count: int
    ) -> ExpertRescaling:
        """The rescaling for `count` levels, whose sums are `found` where the model's are `wanted`, both [rows, N]."""
        if self.exact and count == len(self.matrix.digits):
            return rescaling
        line = fit_line(wanted / self.unit, found.astype(np.float64), weights)
        return adjusted(self.own(rescaling), line, self.inputs)


def fit_expert(
    layer: MoeLayer, expert: Expert, number: int, choice: FormatChoice, samples: Samples | None
) -> FittedExpert:
    """The expert of that number in a format; without samples its rescalings are the model's."""
    if samples is None:
        first = _coarse(expert.w1, expert.fc1.bias[0], choice, None)
        second = _coarse(expert.w2, expert.fc2.bias[0], choice, None)
        return FittedExpert(first.matrix, second.matrix, first.own(expert.fc1), second.own(expert.fc2))
    x, weights = _rows(samples, number)
    h = hidden(layer, expert, x)
    first = _coarse(expert.w1, expert.fc1.bias[0], choice, hessian_of(x, weights))
    second = _coarse(expert.w2, expert.fc2.bias[0], choice, hessian_of(h, weights))
    wanted = f.matmul(x, expert.w1, _NONE), f.matmul(h, expert.w2, _NONE)
    fitted = []
    for count in range(1, len(choice.kind.widths) + 1):
        acc = dot(x, first.matrix, choice.kind, count)
        fc1 = first.line(expert.fc1, wanted[0], acc, weights, count)
        found = dot(activate(layer, applied(acc, fc1)), second.matrix, choice.kind, count)
        fitted.append((fc1, second.line(expert.fc2, wanted[1], found, weights, count)))
    return FittedExpert(first.matrix, second.matrix, stacked([a for a, _ in fitted]), stacked([b for _, b in fitted]))


_NONE = np.zeros(1, dtype=np.int64)


def hidden(layer: MoeLayer, expert: Expert, x: Ints) -> Ints:
    """The expert's own hidden values int8 for rows x, with its whole weights."""
    return activate(layer, applied(f.matmul(x, expert.w1, _NONE), expert.fc1))


def applied(acc: Ints, rescaling: ExpertRescaling) -> Ints:
    """Sums [T, N] by the first set of a rescaling, int16."""
    scaled = (acc + rescaling.bias[0]) * rescaling.multiplier[0]
    return f.saturate(f.shift_round(scaled, rescaling.shift[0]), INT16)


def _rows(samples: Samples, number: int) -> tuple[Ints, Floats]:
    """What flows into an expert, and how much each row counts: its error is multiplied by its gate, then squared."""
    gates = samples.gates[:, number]
    own = np.nonzero(gates > 0)[0][:_MOST_ROWS]
    if len(own) < _FEWEST_ROWS:
        x = samples.x[:_MOST_ROWS]
        return x, np.ones(len(x))
    return samples.x[own], np.square(gates[own] * 2.0**-GATE_FRACTION_BITS)


def _coarse(weight: Ints, bias: Ints, choice: FormatChoice, hessian: Floats | None) -> _Coarse:
    """A layer's weights [N, K] in the format, for a bias [N] and inputs of that Hessian [K, K]."""
    one = np.ones(len(weight))
    if choice.kind is ExpertFormat.RESIDUAL:
        matrix, unit = fit_residual(weight, hessian if choice.compensate else None, bias)
        return _Coarse(matrix, unit, False)
    if choice.kind in TERNARY_FORMATS and int(np.abs(weight).max(initial=0)) > 1:
        if not choice.ternarize:
            raise InputError(
                "weights must be -1, 0 and 1 to be packed as ternary, and they are int8; pack --format int8 or nested,"
                " or round them with --ternarize"
            )
        ternary, unit = ternarized(weight)
        return _Coarse(matrix_of(ternary, choice.kind), unit, False)
    return _Coarse(matrix_of(weight, choice.kind), one, True)


def ternarized(weight: Ints) -> tuple[Ints, Floats]:
    """Weights [N, K] as -1, 0 and 1, and what one is worth [N]: round(w / mean |w|), BitNet b1.58, equation 3."""
    size = np.maximum(np.abs(weight).mean(axis=1), 1e-6)
    ternary = np.clip(np.rint(weight / size[:, None]), -1, 1).astype(np.int64)
    kept = np.abs(ternary).sum(axis=1)
    worth = (weight * ternary).sum(axis=1) / np.maximum(kept, 1)  # the least squares of what was rounded away
    return ternary, np.where(kept > 0, worth, 1.0)
