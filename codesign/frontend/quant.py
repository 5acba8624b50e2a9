# SPDX-License-Identifier: Apache-2.0
"""Quant nodes of QONNX: what they say, and whether the machine can do it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.errors import InputError
from codesign.frontend.load import label
from codesign.frontend.model import MOVEMENT, QUANT, FloatModel, Floats, Ints, attribute, int_attribute, move

ACTIVATION_BITS = 8
RESIDUAL_BITS = 16
WEIGHT_BITS = (2, 8)


@dataclass(frozen=True)
class Quant:
    """A Quant node: `source` is its float input; `scale` broadcasts over it."""

    name: str
    source: str
    scale: Floats
    bit_width: int
    signed: bool
    narrow: bool

    @property
    def low(self) -> int:
        """Smallest integer."""
        return (-(1 << (self.bit_width - 1)) + int(self.narrow)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest integer."""
        if self.signed:
            return (1 << (self.bit_width - 1)) - 1
        return (1 << self.bit_width) - 1 - int(self.narrow)

    def integers(self, values: Floats) -> Ints:
        """The integers behind quantized `values`; divided in float32 and rounded half to even, as qonnx does."""
        ratio = values.astype(np.float32) / self.scale.astype(np.float32)
        return np.rint(np.clip(ratio, self.low, self.high)).astype(np.int64)

    @property
    def step(self) -> float:
        """The scale of a per-tensor quantizer. Raises InputError if there are several."""
        if self.scale.size != 1:
            raise InputError(
                f"scale of Quant {self.name} must be one number, not {self.scale.size}; quantize per tensor"
            )
        return float(self.scale.reshape(()))


@dataclass(frozen=True)
class Weight:
    """Quantized weights as integers, with the scale of every element (same shape)."""

    name: str
    values: Ints
    scale: Floats
    bit_width: int

    def per_output(self) -> Floats:
        """Scales [..., N] of weights [..., N, K]. Raises InputError if they differ inside one output channel."""
        first = self.scale[..., :1]
        if not np.array_equal(np.broadcast_to(first, self.scale.shape), self.scale):
            raise InputError(
                f"weight {self.name} must have one scale per output channel, not one per input; requantize it"
            )
        return np.asarray(first[..., 0], dtype=np.float64)

    def transposed(self, axes: tuple[int, ...]) -> Weight:
        """The same weights with permuted axes."""
        return Weight(self.name, self.values.transpose(axes), self.scale.transpose(axes), self.bit_width)

    def reshaped(self, shape: tuple[int, ...]) -> Weight:
        """The same weights in another shape."""
        return Weight(self.name, self.values.reshape(shape), self.scale.reshape(shape), self.bit_width)


def read_quant(model: FloatModel, tensor: str) -> Quant | None:
    """The Quant node that computes a tensor, or None if another node does. Raises InputError for a bad Quant node."""
    node = model.producer(tensor, QUANT)
    if node is None:
        return None
    name = label(node)
    if len(node.input) != 4:
        raise InputError(f"Quant {name} must have 4 inputs, not {len(node.input)}; export the model again")
    scale, zero_point, bits = (model.constant(i) for i in node.input[1:])
    if scale is None or zero_point is None or bits is None:
        raise InputError(f"scale, zero point and bit width of Quant {name} must be constants; export a static model")
    if np.any(zero_point != 0):
        raise InputError(f"zero point of Quant {name} must be 0, not {_show(zero_point)}; quantize symmetrically")
    if bits.size != 1 or float(bits.reshape(())) != int(bits.reshape(())):
        raise InputError(f"bit width of Quant {name} must be one whole number, not {_show(bits)}; quantize per tensor")
    if not scale.size or scale.min() <= 0:
        raise InputError(f"scale of Quant {name} must be positive, not {_show(scale)}; train the model again")
    mode = attribute(node, "rounding_mode") or b"ROUND"
    if mode not in (b"ROUND", b"HALF_EVEN"):
        raise InputError(f"rounding mode of Quant {name} must be ROUND, not {mode!r}; export the model again")
    signed, narrow = int_attribute(node, "signed", 1), int_attribute(node, "narrow", 0)
    return Quant(name, node.input[0], scale, int(bits.reshape(())), bool(signed), bool(narrow))


def require_activation(model: FloatModel, tensor: str, bit_width: int) -> Quant:
    """The signed per-tensor Quant behind an activation. Raises InputError if there is none or it does not fit."""
    quant = read_quant(model, tensor)
    if quant is None:
        found = model.describe(tensor)
        raise InputError(f"{found} must be followed by a Quant of {bit_width} bits; quantize its output")
    if quant.bit_width != bit_width:
        raise InputError(
            f"bit width of Quant {quant.name} must be {bit_width}, not {quant.bit_width}; change its quantizer"
        )
    if not quant.signed or quant.narrow:
        found = f"signed={int(quant.signed)} narrow={int(quant.narrow)}"
        raise InputError(f"Quant {quant.name} must be signed over its full range, not {found}; change its quantizer")
    quant.step  # noqa: B018  (raises if it is not per tensor)
    return quant


def require_weight(model: FloatModel, tensor: str, user: str) -> Weight:
    """The quantized constant behind a weight. Raises InputError, naming `user`, if it is in float or does not fit."""
    node = model.producer(tensor)
    if node is not None and node.op_type in MOVEMENT:
        inner = require_weight(model, node.input[0], user)
        moved = np.asarray(move(model, node, inner.values), dtype=np.int64)
        return Weight(inner.name, moved, np.asarray(move(model, node, inner.scale), dtype=np.float64), inner.bit_width)
    quant = read_quant(model, tensor)
    if quant is None:
        what = model.describe(tensor)
        raise InputError(f"weight of node {user} must come from a Quant node, not from {what}; quantize it")
    values = model.constant(quant.source)
    if values is None:
        found = model.describe(quant.source)
        raise InputError(
            f"weight {quant.name} of node {user} must be constant, not computed by {found}; export it again"
        )
    if quant.bit_width not in WEIGHT_BITS or not quant.signed:
        found = f"{'' if quant.signed else 'unsigned '}{quant.bit_width}"
        raise InputError(f"bit width of weight {quant.name} must be 2 or 8, signed, not {found}; change its quantizer")
    if quant.bit_width == 2 and not quant.narrow:
        raise InputError(f"weight {quant.name} of 2 bits must be narrow (-1, 0, 1), not -2..1; set narrow_range")
    scale = np.broadcast_to(quant.scale, values.shape)
    return Weight(quant.name, quant.integers(values), scale, quant.bit_width)


def constant_or_quantized(model: FloatModel, tensor: str) -> Floats | None:
    """The float value of a constant, also of one behind a Quant node; None if the tensor is computed."""
    value = model.constant(tensor)
    if value is not None:
        return value
    quant = read_quant(model, tensor)
    source = model.constant(quant.source) if quant else None
    return None if quant is None or source is None else quant.integers(source) * quant.scale


def _show(values: Floats) -> str:
    flat = values.reshape(-1)
    return f"{flat[0]:g}" if flat.size == 1 else f"{flat.min():g}..{flat.max():g}"
