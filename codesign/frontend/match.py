# SPDX-License-Identifier: Apache-2.0
"""Recognise structures of the float model: dense layers, GELU, attention, the embedding. No integer is decided here.

A matcher returns None where the structure is another one, and raises InputError where it is this one with a property
that the machine lacks. Structure is followed from tensor to tensor; no name of a node or tensor matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from codesign.errors import InputError
from codesign.frontend.load import label
from codesign.frontend.model import FloatModel, Floats, Ints, attribute, float_attribute, int_attribute, ints_attribute
from codesign.frontend.quant import Weight, constant_or_quantized, read_quant, require_weight

TOLERANCE = 1e-5
"""Relative tolerance of constants that exporters store in float32 (1/127, 1/sqrt(2), ...)."""

MAX_NORM_EPSILON = 1e-4


@dataclass(frozen=True)
class Dense:
    """y [T, N] = x [T, K] . weight [N, K] + bias [N]; `x` is a quantized tensor."""

    name: str
    x: str
    weight: Weight
    bias: Floats


@dataclass(frozen=True)
class PatchConv:
    """A convolution whose stride is its kernel, as a dense layer over flattened (channel, row, column) patches."""

    dense: Dense
    patch: int


@dataclass(frozen=True)
class Embedding:
    """Patches [P, D] plus a table [P + class_rows, D], whose first `class_rows` rows are whole tokens."""

    conv: PatchConv
    table: Floats
    class_rows: int


@dataclass(frozen=True)
class LayerNorm:
    """LayerNormalization over the last axis of `x`."""

    name: str
    x: str
    gain: Floats
    bias: Floats


@dataclass(frozen=True)
class Attention:
    """`q`, `k`, `v` are quantized tensors [1, T, heads * head_dim]; `factor` multiplies their dot products."""

    name: str
    q: str
    k: str
    v: str
    num_heads: int
    head_dim: int
    factor: float


def match_dense(model: FloatModel, tensor: str) -> Dense | None:
    """MatMul of a computed tensor with a constant, with or without the Add of a bias."""
    node, bias_name = model.producer(tensor), None
    product = tensor
    if node is not None and node.op_type == "Add":
        constants = [constant_or_quantized(model, i) is not None for i in node.input]
        if constants.count(True) != 1:
            return None
        bias_name, product = node.input[constants.index(True)], node.input[constants.index(False)]
    node = model.producer(product, "MatMul")
    if node is None or not _is_parameter(model, node.input[1]):
        return None
    weight = require_weight(model, node.input[1], label(node))
    if weight.values.ndim != 2:
        raise InputError(
            f"weight {weight.name} must have 2 dimensions, not {weight.values.ndim}; use one matrix per layer"
        )
    weight = weight.transposed((1, 0))
    return Dense(label(node), node.input[0], weight, _bias(model, bias_name, weight.values.shape[0]))


def match_conv(model: FloatModel, tensor: str) -> PatchConv | None:
    """A convolution that cuts the image into patches. Raises InputError for any other convolution."""
    node = model.producer(tensor, "Conv")
    if node is None:
        return None
    weight = require_weight(model, node.input[1], label(node))
    shape = weight.values.shape
    kernel = ints_attribute(node, "kernel_shape", shape[2:])
    plain = (
        len(kernel) == 2
        and kernel[0] == kernel[1]
        and ints_attribute(node, "strides", (1, 1)) == kernel
        and not any(ints_attribute(node, "pads", (0, 0, 0, 0)))
        and ints_attribute(node, "dilations", (1, 1)) == (1, 1)
        and int_attribute(node, "group", 1) == 1
        and attribute(node, "auto_pad") in (None, b"NOTSET", b"VALID")
    )
    if not plain or any(size % kernel[0] for size in model.shape(node.input[0])[2:]):
        raise InputError(
            f"node {label(node)} (Conv) must cut the image into whole square patches (kernel = stride, no padding, one"
            f" group), not kernel {kernel} strides {ints_attribute(node, 'strides', (1, 1))}; use a patch embedding"
        )
    flat = weight.reshaped((shape[0], int(np.prod(shape[1:]))))
    bias = _bias(model, node.input[2] if len(node.input) > 2 else None, shape[0])
    return PatchConv(Dense(label(node), node.input[0], flat, bias), kernel[0])


def match_embedding(model: FloatModel, tensor: str) -> Embedding | None:
    """Add(table, patches) or Add(table, Concat(class token, patches)), patches as tokens of a convolution."""
    node = model.producer(tensor, "Add")
    if node is None:
        return None
    tables = [constant_or_quantized(model, i) for i in node.input]
    constants = [i for i, table in enumerate(tables) if table is not None]
    if len(constants) != 1:
        return None
    table, tokens = tables[constants[0]], node.input[1 - constants[0]]
    assert table is not None
    joined = model.producer(tokens, "Concat")
    head = None
    if joined is not None:
        head = constant_or_quantized(model, joined.input[0])
        if head is None or len(joined.input) != 2 or int_attribute(joined, "axis", 0) not in (1, -2):
            raise InputError(
                f"node {label(joined)} (Concat) must put a constant class token before the patches; reorder it"
            )
        tokens = joined.input[1]
    base, index = model.movement(tokens)
    conv = match_conv(model, base)
    if conv is None:
        return None
    dim = conv.dense.weight.values.shape[0]
    _require_layout(model, tokens, index, np.arange(index.size).reshape(dim, -1).T[None])
    rows = 0 if head is None else head.size // dim
    table = np.array(np.broadcast_to(table, model.shape(node.output[0])), dtype=np.float64).reshape(-1, dim)
    if head is not None:
        table[:rows] += head.reshape(rows, dim)
    return Embedding(conv, table, rows)


def match_norm(model: FloatModel, tensor: str) -> LayerNorm | None:
    """LayerNormalization over the last axis with constant gain and bias."""
    node = model.producer(tensor, "LayerNormalization")
    if node is None:
        return None
    size = model.shape(node.input[0])[-1]
    epsilon = float_attribute(node, "epsilon", 1e-5)
    if int_attribute(node, "axis", -1) not in (-1, len(model.shape(node.input[0])) - 1) or epsilon > MAX_NORM_EPSILON:
        raise InputError(
            f"node {label(node)} (LayerNormalization) must normalise the last axis with epsilon <="
            f" {MAX_NORM_EPSILON:g}, not axis {int_attribute(node, 'axis', -1)} with {epsilon:g}; change the layer"
        )
    gain = constant_or_quantized(model, node.input[1])
    if gain is None or gain.size != size:
        raise InputError(f"gain of node {label(node)} must be a constant of {size} values; export a static model")
    return LayerNorm(label(node), node.input[0], gain.reshape(-1), _bias(model, (*node.input, "")[2] or None, size))


def match_gelu(model: FloatModel, tensor: str) -> str | None:
    """The argument of a GELU (Gelu node, or x/2 * (1 + erf(x / sqrt 2)) in any order of factors), else None."""
    node = model.producer(tensor, "Gelu")
    if node is not None:
        if attribute(node, "approximate") not in (None, b"none"):
            raise InputError(f"node {label(node)} (Gelu) must have approximate='none', not 'tanh'; export exact GELU")
        return str(node.input[0])
    factor, factors = _product(model, tensor)
    if len(factors) != 2:
        return None
    for argument, other in (factors, factors[::-1]):
        plus_one = model.producer(other, "Add")
        if plus_one is None:
            continue
        erf = [model.producer(i, "Erf") for i in plus_one.input]
        ones = [model.scalar(i) for i in plus_one.input]
        inner = next((e for e in erf if e is not None), None)
        if inner is None or 1.0 not in ones:
            continue
        scale, inside = _product(model, inner.input[0])
        if inside == (argument,) and _close(scale, math.sqrt(0.5)) and _close(factor, 0.5):
            return argument
    return None


def match_attention(model: FloatModel, tensor: str) -> Attention | None:
    """softmax(q . k^T * factor) . v with unnormalised 8-bit probabilities, divided by their sum at the end."""
    merged, index = model.movement(tensor)
    divide = model.producer(merged, "Div")
    if divide is None:
        return None
    mix, total = model.producer(divide.input[0], "MatMul"), model.producer(divide.input[1], "ReduceSum")
    if mix is None or total is None or total.input[0] != mix.input[0]:
        return None
    _require_last_axis(model, total)
    probabilities = _require_probabilities(model, mix.input[0])
    scores = _require_softmax(model, probabilities)
    factor, factors = _product(model, scores)
    product = model.producer(factors[0], "MatMul") if len(factors) == 1 else None
    if product is None:
        raise InputError(f"{model.describe(scores)} must be q times k transposed, scaled; use standard attention")
    heads, tokens, head_dim = _heads(model, mix.input[1])
    q, q_factor = _operand(model, product.input[0], heads, (1, 0, 2))
    k, k_factor = _operand(model, product.input[1], heads, (1, 2, 0))
    v, v_factor = _operand(model, mix.input[1], heads, (1, 0, 2))
    if not _close(v_factor, 1.0):
        raise InputError(f"{model.describe(mix.input[1])} must not scale v; fold the factor into its layer")
    expected = np.arange(index.size).reshape(heads, tokens, head_dim).transpose(1, 0, 2).reshape(1, tokens, -1)
    _require_layout(model, tensor, index, expected)
    return Attention(label(divide), q, k, v, heads, head_dim, factor * q_factor * k_factor)


# -- parts -----------------------------------------------------------------------------------------------------------


def _is_parameter(model: FloatModel, tensor: str) -> bool:
    base, _ = model.movement(tensor)
    return constant_or_quantized(model, base) is not None or tensor in model.constants


def _bias(model: FloatModel, tensor: str | None, size: int) -> Floats:
    if tensor is None:
        return np.zeros(size)
    value = constant_or_quantized(model, tensor)
    if value is None or value.size not in (1, size):
        raise InputError(
            f"bias {tensor} must be a constant of {size} values, not {model.describe(tensor)}; export again"
        )
    return np.array(np.broadcast_to(value.reshape(-1), (size,)), dtype=np.float64)


def _close(found: float, wanted: float) -> bool:
    return abs(found - wanted) <= TOLERANCE * abs(wanted)


def _product(model: FloatModel, tensor: str) -> tuple[float, tuple[str, ...]]:
    """Write a tensor as a constant factor times tensors: through Mul, and Div by a constant."""
    node = model.producer(tensor)
    value = model.scalar(tensor)
    if value is not None:
        return value, ()
    if node is None or node.op_type not in ("Mul", "Div"):
        return 1.0, (tensor,)
    left, right = (_product(model, i) for i in node.input)
    if node.op_type == "Mul":
        return left[0] * right[0], (*left[1], *right[1])
    if right[1] or right[0] == 0.0:
        return 1.0, (tensor,)
    return left[0] / right[0], left[1]


def _require_last_axis(model: FloatModel, node: NodeProto) -> None:
    """A reduction over the last axis that keeps it."""
    axes = ints_attribute(node, "axes", ())
    if len(node.input) > 1:
        value = model.constant(node.input[1])
        axes = () if value is None else tuple(int(v) for v in value.reshape(-1))
    last = len(model.shape(node.input[0])) - 1
    if axes not in ((-1,), (last,)) or int_attribute(node, "keepdims", 1) != 1:
        raise InputError(
            f"node {label(node)} ({node.op_type}) must reduce the last axis and keep it, not {axes}; change it"
        )


def _require_probabilities(model: FloatModel, tensor: str) -> str:
    quant = read_quant(model, tensor)
    if quant is None:
        raise InputError(
            f"{model.describe(tensor)} must be followed by an 8-bit Quant of scale 1/127; quantize exp(...)"
        )
    if not _close(quant.step, 1 / 127) or quant.high < 127 or quant.bit_width > 8:
        raise InputError(
            f"Quant {quant.name} of the attention probabilities must have 8 bits and scale 1/127, not {quant.bit_width}"
            f" and {quant.step:g}; set it so"
        )
    return quant.source


def _require_softmax(model: FloatModel, tensor: str) -> str:
    """exp(s - rowmax(s)): returns s."""
    exp = model.producer(tensor, "Exp")
    shifted = model.producer(exp.input[0], "Sub") if exp is not None else None
    peak = model.producer(shifted.input[1], "ReduceMax") if shifted is not None else None
    if exp is None or shifted is None or peak is None or peak.input[0] != shifted.input[0]:
        raise InputError(f"{model.describe(tensor)} must be exp(scores - row maximum); use the stable softmax")
    _require_last_axis(model, peak)
    return str(shifted.input[0])


def _heads(model: FloatModel, value: str) -> tuple[int, int, int]:
    shape = model.shape(value)
    if len(shape) != 4 or shape[0] != 1:
        raise InputError(
            f"tensor {value} must have shape [1, heads, tokens, head_dim], not {list(shape)}; export batch 1"
        )
    return shape[1], shape[2], shape[3]


def _operand(model: FloatModel, tensor: str, heads: int, axes: tuple[int, int, int]) -> tuple[str, float]:
    """The quantized tensor [1, T, D] that is split into heads, and the factor on the way.

    `axes` says how [tokens, heads, head_dim] is transposed to become `tensor` without its batch axis.
    """
    factor, (source,) = _product_one(model, tensor)
    base, index = model.movement(source)
    more, (inner,) = _product_one(model, base)
    if inner != base:
        base, again = model.movement(inner)
        index = again.reshape(-1)[index]
    shape = model.shape(base)
    if len(shape) != 3 or shape[0] != 1 or shape[2] % heads:
        raise InputError(
            f"tensor {base} must have shape [1, tokens, heads * head_dim], not {list(shape)}; export batch 1"
        )
    expected = np.arange(index.size).reshape(shape[1], heads, -1).transpose(axes)[None]
    _require_layout(model, source, index, expected)
    return base, factor * more


def _product_one(model: FloatModel, tensor: str) -> tuple[float, tuple[str]]:
    factor, factors = _product(model, tensor)
    if len(factors) != 1:
        raise InputError(f"{model.describe(tensor)} must be one tensor times a constant; use standard attention")
    return factor, (factors[0],)


def _require_layout(model: FloatModel, tensor: str, index: Ints, expected: Ints) -> None:
    if index.shape != expected.shape or not np.array_equal(index, expected):
        raise InputError(
            f"{model.describe(tensor)} must move values as a vision transformer does (tokens x heads x head_dim), not"
            " otherwise; use the standard reshapes and transposes"
        )
