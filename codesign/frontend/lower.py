# SPDX-License-Identifier: Apache-2.0
"""Lower the structures of a float model to integer nodes, walking back from each task's output along the residual.

The rules, with s_x the scale of x: LINEAR rescales by s_x * s_w / s_y; GELU's argument has scale 2**-10; the logits of
attention and router are base 2 with 8 fraction bits, so log2(e) * 2**8 joins their factor (`codesign.spec.ops`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from codesign.errors import InputError
from codesign.frontend import match
from codesign.frontend.builder import GraphBuilder, Head
from codesign.frontend.facts import ModelFacts
from codesign.frontend.load import label
from codesign.frontend.model import FloatModel, Floats, float_attribute, int_attribute
from codesign.frontend.quant import (
    ACTIVATION_BITS,
    RESIDUAL_BITS,
    Quant,
    Weight,
    constant_or_quantized,
    read_quant,
    require_activation,
    require_weight,
)
from codesign.frontend.scales import accumulate
from codesign.spec import (
    INT8,
    INT16,
    INT32,
    UINT16,
    AddParams,
    AttentionParams,
    ExpertsParams,
    GeluParams,
    Graph,
    ImageSpec,
    IntType,
    LinearParams,
    NormParams,
    OpKind,
    Requant,
    RouteParams,
    TensorSpec,
)
from codesign.spec.ops import GATE_FRACTION_BITS, GELU_FRACTION_BITS, PROBABILITY_FRACTION_BITS
from codesign.spec.scales import LOGIT_FACTOR, norm_integers

GELU_SCALE = 2.0**-GELU_FRACTION_BITS
TERNARY = IntType(2)


@dataclass(frozen=True)
class Stream:
    """The residual stream at one point: its tensor's handle and how many attention layers lie before it."""

    handle: str
    blocks: int

    @property
    def block(self) -> str:
        """Name of the block that an MLP or experts at this point belong to."""
        return f"block{max(self.blocks - 1, 0)}"


class Lowering:
    """One model on its way to integers."""

    def __init__(self, model: FloatModel, facts: ModelFacts) -> None:
        self._model = model
        self._facts = facts
        self._image = ImageSpec(facts.height, facts.width, facts.channels, facts.patch, facts.mean)
        shape = (self._image.num_patches, self._image.patch_elements)
        self._builder = GraphBuilder(TensorSpec(model.input, shape, INT8, facts.scale))
        self._streams: dict[str, Stream] = {}  # residual tensor of the model -> where it is
        self._residual: Quant | None = None
        self._class_rows = 0

    def run(self, name: str) -> Graph:
        """The whole graph. Raises InputError naming the node or tensor that cannot be lowered."""
        heads = tuple(self._head(task) for task in self._model.outputs)
        return self._builder.finish(name, self._image, heads)

    # -- residual stream -------------------------------------------------------------------------------------------

    def _stream(self, tensor: str) -> Stream:
        """Lower a residual tensor (the output of a 16-bit Quant)."""
        if tensor not in self._streams:
            quant = require_activation(self._model, tensor, RESIDUAL_BITS)
            self._same_residual(quant)
            self._streams[tensor] = self._sum(quant)
        return self._streams[tensor]

    def _same_residual(self, quant: Quant) -> None:
        first = self._residual or quant
        if quant.step != first.step:
            raise InputError(
                f"scale of residual Quant {quant.name} must equal that of {first.name}, {first.step:g}, not"
                f" {quant.step:g}; use one scale for the whole residual stream"
            )
        self._residual = first

    @property
    def _residual_scale(self) -> float:
        assert self._residual is not None
        return self._residual.step

    def _sum(self, quant: Quant) -> Stream:
        """What a residual Quant quantizes: the embedding, or the stream plus a branch."""
        embedding = match.match_embedding(self._model, quant.source)
        if embedding is not None:
            return self._embed(embedding)
        node = self._model.producer(quant.source, "Add")
        if node is None:
            raise self._unsupported(quant.source, "the residual stream plus attention, MLP or experts")
        for old, branch in (node.input, reversed(node.input)):
            previous = read_quant(self._model, old)
            if previous is not None and previous.bit_width == RESIDUAL_BITS:
                return self._branch(self._stream(old), branch)
        if any(read_quant(self._model, i) is not None for i in node.input):
            other = next(i for i in node.input if read_quant(self._model, i) is not None)
            require_activation(self._model, other, RESIDUAL_BITS)
        raise self._unsupported(quant.source, "the residual stream (after its 16-bit Quant) plus a branch")

    def _branch(self, stream: Stream, tensor: str) -> Stream:
        experts = self._model.producer(tensor, "Experts")
        if experts is not None:
            return Stream(self._experts(stream, experts), stream.blocks)
        dense = match.match_dense(self._model, tensor)
        if dense is None:
            raise self._unsupported(tensor, "a linear layer or Experts")
        inner = require_activation(self._model, dense.x, ACTIVATION_BITS)
        attention = match.match_attention(self._model, inner.source)
        if attention is not None:
            return self._attention(stream, attention, inner, dense)
        argument = match.match_gelu(self._model, inner.source)
        if argument is None:
            raise self._unsupported(inner.source, "GELU or attention")
        return self._mlp(stream, argument, inner, dense)

    def _embed(self, embedding: match.Embedding) -> Stream:
        facts, dense = self._facts, embedding.conv.dense
        quant = require_activation(self._model, dense.x, ACTIVATION_BITS)
        shape = self._model.shape(self._model.input)
        if quant.source != self._model.input:
            raise self._unsupported(quant.source, "the image itself")
        if shape != (1, facts.channels, facts.height, facts.width) or embedding.conv.patch != facts.patch:
            found = f"{list(shape)} with patch {embedding.conv.patch}"
            wanted = f"[1, {facts.channels}, {facts.height}, {facts.width}] with patch {facts.patch}"
            raise InputError(f"image must have the shape of the metadata, {wanted}, not {found}; export it again")
        if quant.step != facts.scale or facts.mean != -INT8.min:
            raise InputError(
                f"image must be quantized as pixel - {-INT8.min} with scale {facts.scale:g} of the metadata, not with"
                f" scale {quant.step:g} and mean {facts.mean}; export it again"
            )
        self._class_rows = embedding.class_rows
        patches = self._dense("embed.patch", "embed.patch", dense, self._builder.input, INT16, self._residual_scale)
        table = np.rint(embedding.table / self._residual_scale)
        if np.abs(table).max() > INT16.max:
            raise InputError(
                f"position table before node {dense.name} must fit the residual's 16 bits, not reach"
                f" {np.abs(embedding.table).max():g} at scale {self._residual_scale:g}; enlarge the residual scale"
            )
        position = self._builder.constant("embed.position", table.astype(np.int64), INT16, self._residual_scale)
        params = AddParams(embedding.class_rows)
        return Stream(self._add("embed.add", position, patches, params), 0)

    def _attention(self, stream: Stream, attention: match.Attention, out: Quant, proj: match.Dense) -> Stream:
        block = f"block{stream.blocks}"
        handles, scales = [], []
        for letter, tensor in zip("qkv", (attention.q, attention.k, attention.v), strict=True):
            quant = require_activation(self._model, tensor, ACTIVATION_BITS)
            dense = match.match_dense(self._model, quant.source)
            if dense is None:
                raise self._unsupported(quant.source, f"a linear layer ({letter} of attention)")
            x = self._norm(f"{block}.norm1", dense.x, stream)
            handles.append(self._dense(f"{block}.{letter}", f"{block}.{letter}", dense, x, INT8, quant.step))
            scales.append(quant.step)
        score = Requant.of_scale(scales[0] * scales[1] * attention.factor * LOGIT_FACTOR, INT16)
        rescale = Requant.of_scale(scales[2] * 2.0**-PROBABILITY_FRACTION_BITS / out.step, INT8)
        params = AttentionParams(attention.num_heads, attention.head_dim, score, rescale)
        shape = self._builder.spec(handles[0]).shape
        inputs = (handles[0], handles[1], handles[2])
        mixed = self._builder.node(f"{block}.attention", OpKind.ATTENTION, inputs, params, shape, INT8, out.step)
        value = self._dense(f"{block}.proj", f"{block}.proj", proj, mixed, INT16, self._residual_scale)
        return Stream(self._add(f"{block}.add1", stream.handle, value), stream.blocks + 1)

    def _mlp(self, stream: Stream, argument: str, hidden: Quant, fc2: match.Dense) -> Stream:
        fc1 = match.match_dense(self._model, argument)
        if fc1 is None:
            raise self._unsupported(argument, "a linear layer before GELU")
        block = stream.block
        x = self._norm(f"{block}.norm2", fc1.x, stream)
        u = self._dense(f"{block}.fc1", f"{block}.fc1", fc1, x, INT16, GELU_SCALE)
        params = GeluParams(Requant.of_scale(GELU_SCALE / hidden.step, INT8))
        shape = self._builder.spec(u).shape
        h = self._builder.node(f"{block}.gelu", OpKind.GELU, (u,), params, shape, INT8, hidden.step)
        y = self._dense(f"{block}.fc2", f"{block}.fc2", fc2, h, INT16, self._residual_scale)
        return Stream(self._add(f"{block}.add2", stream.handle, y), stream.blocks)

    # -- experts ---------------------------------------------------------------------------------------------------

    def _experts(self, stream: Stream, node: NodeProto) -> str:
        name, block = label(node), stream.block
        x = self._norm(f"{block}.norm2", node.input[0], stream)
        router = self._model.producer(node.input[1], "Router")
        if router is None:
            raise self._unsupported(node.input[1], "a Router (gates of experts)")
        if router.input[0] != node.input[0]:
            raise InputError(f"node {name} must read what its Router {label(router)} reads; route the same tokens")
        gates = self._route(block, router, x)
        first, second = (require_weight(self._model, node.input[i], name) for i in (2, 4))
        biases = [self._parameter(node.input[i], w.values.shape[:2], name) for i, w in ((3, first), (5, second))]
        hidden = self._hidden_scale(node)
        fc1 = accumulate(self._builder.spec(x).scale, first, biases[0])
        fc2 = accumulate(hidden, second, biases[1])
        experts = range(first.values.shape[0])
        params = ExpertsParams(
            tuple(Requant.of_scale([float(s) for s in fc1.scale[e] / GELU_SCALE], INT16) for e in experts),
            Requant.of_scale(GELU_SCALE / hidden, INT8),
            tuple(Requant.of_scale([float(s) for s in fc2.scale[e] / self._residual_scale], INT16) for e in experts),
        )
        own = f"{block}.experts"
        inputs = (
            x,
            gates,
            stream.handle,
            self._expert_weight(f"{own}.w1", first),
            self._builder.constant(f"{own}.b1", fc1.bias, INT32),
            self._expert_weight(f"{own}.w2", second),
            self._builder.constant(f"{own}.b2", fc2.bias, INT32),
        )
        shape = self._builder.spec(stream.handle).shape
        return self._builder.node(own, OpKind.EXPERTS, inputs, params, shape, INT16, self._residual_scale)

    def _hidden_scale(self, node: NodeProto) -> float:
        bits, signed = int_attribute(node, "hidden_bit_width", 8), int_attribute(node, "hidden_signed", 1)
        if bits != ACTIVATION_BITS or not signed or int_attribute(node, "hidden_narrow", 0):
            found = f"{bits} bits, signed={signed}, narrow={int_attribute(node, 'hidden_narrow', 0)}"
            raise InputError(
                f"hidden activation of node {label(node)} must be signed full-range int8, not {found}; retrain"
            )
        scale = float_attribute(node, "hidden_scale", 0.0)
        if scale <= 0.0:
            raise InputError(
                f"hidden_scale of node {label(node)} must be positive, not {scale:g}; train the model again"
            )
        return scale

    def _expert_weight(self, name: str, weight: Weight) -> str:
        if weight.values.ndim != 3:
            found = weight.values.ndim
            raise InputError(f"weight {weight.name} of experts must have 3 dimensions, not {found}; export it again")
        kind = TERNARY if weight.bit_width == TERNARY.bit_width else INT8
        return self._builder.constant(name, weight.values, kind)

    def _route(self, block: str, node: NodeProto, x: str) -> str:
        weight = require_weight(self._model, node.input[1], label(node))
        experts = weight.values.shape[0]
        bias = self._parameter(node.input[2], (experts,), label(node))
        top_k = int_attribute(node, "top_k", 0)
        if not 1 <= top_k <= experts:
            raise InputError(f"top_k of node {label(node)} must be in 1..{experts}, not {top_k}; change the recipe")
        acc = accumulate(self._builder.spec(x).scale, weight, bias)
        requant = Requant.of_scale([float(s) for s in acc.scale * LOGIT_FACTOR], INT16)
        inputs = (
            x,
            self._builder.constant(f"{block}.router.weight", weight.values, INT8),
            self._builder.constant(f"{block}.router.bias", acc.bias, INT32),
        )
        shape = (self._builder.spec(x).shape[0], experts)
        scale = 2.0**-GATE_FRACTION_BITS
        return self._builder.node(
            f"{block}.router", OpKind.ROUTE, inputs, RouteParams(top_k, requant), shape, UINT16, scale
        )

    # -- shared parts ----------------------------------------------------------------------------------------------

    def _head(self, output: str) -> Head:
        task = self._facts.task(output)
        quant = require_activation(self._model, output, RESIDUAL_BITS)
        dense = match.match_dense(self._model, quant.source)
        if dense is None:
            raise self._unsupported(quant.source, "a linear layer (head)")
        outputs = dense.weight.values.shape[0]
        if outputs != task.classes * self._facts.cells**2:
            raise InputError(
                f"output {output} must have cells x cells x channels = {task.classes * self._facts.cells**2} columns,"
                f" as the metadata says, not {outputs}; export it again"
            )
        x = self._norm("norm", dense.x, None)
        handle = self._dense("head", "head", dense, x, INT16, quant.step)
        return Head(output, handle, task.classes, self._facts.cells, self._class_rows, task.readout)

    def _norm(self, name: str, tensor: str, stream: Stream | None) -> str:
        """Lower a normalised int8 tensor; `stream` is what it must normalise, if that is known already."""
        quant = require_activation(self._model, tensor, ACTIVATION_BITS)
        norm = match.match_norm(self._model, quant.source)
        if norm is None:
            raise self._unsupported(quant.source, "LayerNormalization")
        source = self._stream(norm.x)
        if stream is not None and source.handle != stream.handle:
            raise InputError(
                f"node {norm.name} must normalise the stream that its branch is added to; use pre-norm blocks"
            )
        integers = norm_integers(norm.name, norm.gain, norm.bias, quant.step)
        inputs = (
            source.handle,
            self._builder.constant(f"{name}.gain", integers.gain, INT16),
            self._builder.constant(f"{name}.bias", integers.bias, INT32),
        )
        shape = self._builder.spec(source.handle).shape
        return self._builder.node(name, OpKind.NORM, inputs, NormParams(integers.shift), shape, INT8, quant.step)

    def _dense(self, name: str, owner: str, dense: match.Dense, x: str, out: IntType, out_scale: float) -> str:
        spec = self._builder.spec(x)
        outputs, inputs = dense.weight.values.shape
        if spec.shape[1] != inputs:
            raise InputError(
                f"weight of node {dense.name} must have {spec.shape[1]} inputs, not {inputs}; export it again"
            )
        acc = accumulate(spec.scale, dense.weight, dense.bias)
        operands = (
            x,
            self._builder.constant(f"{owner}.weight", dense.weight.values, INT8),
            self._builder.constant(f"{owner}.bias", acc.bias, INT32),
        )
        params = LinearParams(acc.requant(out_scale, out))
        return self._builder.node(name, OpKind.LINEAR, operands, params, (spec.shape[0], outputs), out, out_scale)

    def _add(self, name: str, a: str, b: str, params: AddParams | None = None) -> str:
        shape = self._builder.spec(a).shape
        return self._builder.node(name, OpKind.ADD, (a, b), params or AddParams(), shape, INT16, self._residual_scale)

    def _parameter(self, tensor: str, shape: tuple[int, ...], user: str) -> Floats:
        value = constant_or_quantized(self._model, tensor)
        if value is None or value.shape != shape:
            found = self._model.describe(tensor) if value is None else list(value.shape)
            raise InputError(
                f"bias {tensor} of node {user} must be a constant of shape {list(shape)}, not {found}; export again"
            )
        return value

    def _unsupported(self, tensor: str, wanted: str) -> InputError:
        found = self._model.describe(tensor)
        return InputError(f"{found} must not stand here: the machine supports {wanted} at this place; change the model")
