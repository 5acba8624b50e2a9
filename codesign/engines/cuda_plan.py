# SPDX-License-Identifier: Apache-2.0
"""Nodes of a graph made ready to run on a GPU, once: weights packed and on the device, kernels chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codesign.engines.cpu_build import DTYPES, TENSORS, Step, fuse, requant_of
from codesign.errors import InputError
from codesign.kernels.gpu.ops import Ops
from codesign.kernels.gpu.weights import Weight, pack_dense, pack_experts
from codesign.kernels.layout import MAX_INPUTS
from codesign.reference import functions as f
from codesign.reference.functions import Ints
from codesign.spec import (
    INT32,
    UINT16,
    AddParams,
    AttentionParams,
    Constant,
    ExpertsParams,
    GeluParams,
    Graph,
    IntType,
    Node,
    NormParams,
    OpKind,
    Requant,
    RouteParams,
    TensorSpec,
)

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]
Call = Callable[[Tensors], "torch.Tensor"]
"""Computes one tensor from those before it."""

_SLICES = frozenset((2, 4, 8))
"""Bit planes that are whole levels."""


@dataclass(frozen=True)
class DeviceWeights:
    """A device's operators, and the weights there, each once: plans of several tasks share them."""

    ops: Ops
    packed: dict[tuple[object, ...], Weight] = field(default_factory=dict)

    def weight(self, key: tuple[object, ...], make: Callable[[], Weight]) -> Weight:
        """The weight of that key, made the first time."""
        if key not in self.packed:
            self.packed[key] = make()
        return self.packed[key]


@dataclass
class Builder:
    """What the operators read when they are made ready."""

    weights: DeviceWeights
    constants: Mapping[str, Constant]
    active: dict[str, int]
    """Of each tensor of gates that a router made: experts a token."""

    @property
    def ops(self) -> Ops:
        """The device's operators."""
        return self.weights.ops

    def values(self, name: str, inputs: int | None = None) -> Ints:
        """A constant's values. Raises InputError when it is computed, or has more inputs than a product takes."""
        if name not in self.constants:
            raise InputError(f"{name} must be a constant, not computed, to be packed; check how the graph was made")
        values = self.constants[name].values
        if inputs is not None and not 1 <= values.shape[-1] <= MAX_INPUTS:
            raise InputError(f"inputs of {name} must be in 1..{MAX_INPUTS}, not {values.shape[-1]}; split the layer")
        return values

    def dense(self, weight: str, bias: str, requant: Requant) -> Weight:
        """A linear layer's weights."""
        values, biases, device = self.values(weight, 1), self.values(bias), self.ops.device
        return self.weights.weight(
            (weight, bias, requant), lambda: pack_dense(device, values, np.broadcast_to(biases, len(values)), requant)
        )


def linear(builder: Builder, step: Step) -> Call:
    """LINEAR alone."""
    x, weight, bias = step.node.inputs
    requant, ops = requant_of(step), builder.ops
    layer = builder.dense(weight, bias, requant)
    return lambda t: ops.linear(t[x], layer, requant)


def gelu(builder: Builder, step: Step) -> Call:
    """GELU; with the LINEAR before it where they were joined."""
    assert isinstance(step.node.params, GeluParams)
    requant, ops = step.node.params.requant, builder.ops
    if step.linear is None:
        source = step.node.inputs[0]
        return lambda t: ops.gelu(t[source], requant)
    x, weight, bias = step.linear.inputs
    layer = builder.dense(weight, bias, requant_of(step))
    return lambda t: ops.linear_gelu(t[x], layer, requant)


def add(builder: Builder, step: Step) -> Call:
    """ADD; with the LINEAR before it where they were joined."""
    assert isinstance(step.node.params, AddParams)
    a, b = step.node.inputs
    offset, ops = step.node.params.row_offset, builder.ops
    if step.linear is None:
        return lambda t: ops.add(t[a], t[b], offset)
    x, weight, bias = step.linear.inputs
    layer = builder.dense(weight, bias, requant_of(step))
    return lambda t: ops.linear_add(t[x], layer, t[a], offset)


def norm(builder: Builder, step: Step) -> Call:
    """NORM."""
    assert isinstance(step.node.params, NormParams)
    x, gain, bias = step.node.inputs
    ops, shift = builder.ops, step.node.params.shift
    gains, biases = (ops.device.tensor(builder.values(name).astype(np.int32)) for name in (gain, bias))
    return lambda t: ops.norm(t[x], gains, biases, shift)


def attention(builder: Builder, step: Step) -> Call:
    """ATTENTION."""
    params, ops = step.node.params, builder.ops
    assert isinstance(params, AttentionParams)
    q, k, v = step.node.inputs
    return lambda t: ops.attention(t[q], t[k], t[v], params)


def route(builder: Builder, step: Step) -> Call:
    """ROUTE."""
    params, ops = step.node.params, builder.ops
    assert isinstance(params, RouteParams)
    x, weight, bias = step.node.inputs
    builder.active[step.node.output.name] = params.top_k
    requant, top_k = params.requant, params.top_k
    layer = builder.dense(weight, bias, requant)
    return lambda t: ops.gates(ops.linear(t[x], layer, requant), top_k)


def experts(builder: Builder, step: Step) -> Call:
    """EXPERTS: pairs of token and expert sorted on the device, two products over them, and their sum in order."""
    p, ops = step.node.params, builder.ops
    assert isinstance(p, ExpertsParams)
    x, gates, residual, w1, b1, w2, b2 = step.node.inputs
    count, most = len(p.fc1), builder.active.get(gates, len(p.fc1))
    first = _experts(builder, w1, b1, p.fc1, p.slices)
    second = _experts(builder, w2, b2, p.fc2, p.slices)
    levels = np.array([(2, 4, 8).index(bits) + 1 for bits in p.slices] if len(first.packing.levels) > 1 else [1])
    scaling = ops.device.tensor((np.arange(count) | levels << 24).astype(np.int32))
    activation = p.gelu

    def call(t: Tensors) -> torch.Tensor:
        pairs = ops.pairs(t[gates], most, scaling)
        h = ops.experts(t[x], first, pairs, gather=True, gelu=activation)
        parts = ops.experts(h, second, pairs, gather=False, gated=True)
        return ops.combine(t[residual], parts, pairs.slots)

    return call


def _experts(
    builder: Builder, weight: str, bias: str, requants: tuple[Requant, ...], slices: tuple[int, ...]
) -> Weight:
    values, biases, device = builder.values(weight, 1), builder.values(bias), builder.ops.device

    def make() -> Weight:
        if _SLICES.issuperset(slices):
            return pack_experts(device, values, biases, requants, slices)
        sliced = np.stack([f.slice_planes(values[e], bits) for e, bits in enumerate(slices)])
        return pack_experts(device, sliced, biases, requants, ())

    return builder.weights.weight((weight, bias, requants, slices), make)


OPERATORS: Mapping[OpKind, Callable[[Builder, Step], Call]] = MappingProxyType(
    {
        OpKind.LINEAR: linear,
        OpKind.GELU: gelu,
        OpKind.ADD: add,
        OpKind.NORM: norm,
        OpKind.ATTENTION: attention,
        OpKind.ROUTE: route,
        OpKind.EXPERTS: experts,
    }
)
"""What makes each operator ready."""


class CudaPlan:
    """Nodes made ready. `inputs` are the tensors that are given, `outputs` the names of those wanted.

    Raises InputError for weights that are computed, and for more than 8192 inputs of a layer.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        inputs: Sequence[TensorSpec],
        constants: Mapping[str, Constant],
        outputs: Sequence[str],
        weights: DeviceWeights,
    ) -> None:
        self.inputs = {spec.name: spec for spec in inputs}
        self.outputs = tuple(outputs)
        self._device = weights.ops.device
        builder = Builder(weights, constants, {})
        steps = fuse(nodes, self.outputs)
        self._calls = [(step.node.output.name, OPERATORS[step.node.kind](builder, step)) for step in steps]
        last = {name: i for i, step in enumerate(steps) for name in step.reads}
        self._done: list[list[str]] = [[] for _ in steps]
        for name, i in last.items():
            if name not in self.outputs:
                self._done[i].append(name)
        self._given: Tensors = {}
        for step in steps:
            for node in (step.node, step.linear):
                for name, kind in zip(node.inputs, TENSORS[node.kind], strict=False) if node else ():
                    if name in constants:
                        self._given[name] = self._tensor(constants[name].values, kind)

    def run(self, values: Mapping[str, Ints]) -> dict[str, Ints]:
        """The wanted tensors for these inputs. Raises InputError for an input of another shape or out of range."""
        for name, spec in self.inputs.items():
            _check(name, values[name], spec)
            self._given[name] = self._tensor(values[name], spec.type)
        found = self.compute()
        return {name: found[name].cpu().numpy().astype(np.int64) for name in self.outputs}

    def compute(self) -> Tensors:
        """Run again on the inputs given last: what a benchmark measures. The device may not be done on return."""
        tensors = dict(self._given)
        for (name, call), done in zip(self._calls, self._done, strict=True):
            tensors[name] = call(tensors)
            for unused in done:
                tensors.pop(unused, None)
        return tensors

    def _tensor(self, values: Ints, kind: IntType) -> torch.Tensor:
        dtype: type[np.integer[Any]] = np.int32 if kind == UINT16 else DTYPES[kind]
        return self._device.tensor(values.astype(dtype))


def _check(name: str, values: npt.NDArray[Any], spec: TensorSpec) -> None:
    if values.shape != spec.shape or not np.issubdtype(values.dtype, np.integer):
        raise InputError(
            f"input {name} must be integers of shape {spec.shape}, not {values.dtype} {values.shape}; use to_patches"
        )
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < spec.type.min or high > spec.type.max:
        raise InputError(f"input {name} must fit {spec.type}, not the range {low}..{high}; use to_patches")


def plan_task(graph: Graph, task: str, weights: DeviceWeights, traced: bool = False) -> CudaPlan:
    """A task of a graph made ready; `traced` keeps every tensor, so that nothing is fused."""
    nodes = graph.nodes_of(task)
    outputs = tuple(node.output.name for node in nodes) if traced else (graph.output_of(task).tensor,)
    return CudaPlan(nodes, (graph.input,), {c.spec.name: c for c in graph.constants}, outputs, weights)


def run_node(node: Node, inputs: Sequence[Ints], weights: DeviceWeights) -> Ints:
    """One operator on its inputs, as `codesign.reference.OPERATORS` has it."""
    types = TENSORS[node.kind]
    named = dict(zip(node.inputs, inputs, strict=True))
    specs = [TensorSpec(name, named[name].shape, kind, 1.0) for name, kind in zip(node.inputs, types, strict=False)]
    own = {n: Constant(TensorSpec(n, named[n].shape, INT32, 1.0), named[n]) for n in node.inputs[len(types) :]}
    return CudaPlan((node,), specs, own, (node.output.name,), weights).run(named)[node.output.name]
