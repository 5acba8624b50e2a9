# SPDX-License-Identifier: Apache-2.0
"""Does every node have the inputs, shapes, types and parameters that its operator asks for? (`codesign.spec.ops`)"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from codesign.errors import InputError
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
    IntType,
    LinearParams,
    Node,
    NormParams,
    OpKind,
    Requant,
    RouteParams,
    TensorSpec,
)
from codesign.spec.types import MAX_SHIFT

TERNARY = IntType(2)
MAX_NORM_DIM = 1023
"""A normalised value is at most sqrt(D) and has 5 integer bits: D < 1024."""

_REMEDY = "check how the graph was made"


def verify(graph: Graph) -> None:
    """Check a whole graph. Raises InputError naming the first node or task that breaks its operator's contract."""
    wanted = (graph.image.num_patches, graph.image.patch_elements)
    _require(graph.input, wanted, (INT8,), "the graph's image")
    if len({node.name for node in graph.nodes}) != len(graph.nodes):
        raise InputError(f"nodes must have distinct names, not share one; {_REMEDY}")
    specs = {graph.input.name: graph.input} | {c.spec.name: c.spec for c in graph.constants}
    for node in graph.nodes:
        CHECKS[node.kind](node, tuple(specs[name] for name in node.inputs))
        specs[node.output.name] = node.output
    for out in graph.outputs:
        spec, columns = specs[out.tensor], out.classes * out.cells**2
        _require(spec, (graph.image.num_patches + out.first_row, columns), (INT16,), f"task {out.task}")


def _require(spec: TensorSpec, shape: tuple[int, ...], kinds: tuple[IntType, ...], where: str) -> None:
    if spec.shape != shape or min(spec.shape, default=0) < 1:
        raise InputError(f"tensor {spec.name} of {where} must have shape {shape}, not {spec.shape}; {_REMEDY}")
    if spec.type not in kinds:
        names = " or ".join(str(k) for k in kinds)
        raise InputError(f"tensor {spec.name} of {where} must be {names}, not {spec.type}; {_REMEDY}")


def _inputs(node: Node, found: tuple[TensorSpec, ...], count: int, rank: int = 2) -> tuple[TensorSpec, ...]:
    if len(found) != count:
        raise InputError(f"node {node.name} must have {count} inputs, not {len(found)}; {_REMEDY}")
    if len(found[0].shape) != rank:
        raise InputError(
            f"tensor {found[0].name} of node {node.name} must be a matrix, not {found[0].shape}; {_REMEDY}"
        )
    return found


def _requant(node: Node, requant: Requant, channels: int, kinds: tuple[IntType, ...]) -> None:
    if len(requant.multiplier) not in (1, channels):
        found = len(requant.multiplier)
        raise InputError(f"node {node.name} must rescale 1 or {channels} channels, not {found}; {_REMEDY}")
    if requant.out_type not in kinds:
        names = " or ".join(str(k) for k in kinds)
        raise InputError(f"node {node.name} must rescale to {names}, not {requant.out_type}; {_REMEDY}")


def _linear(node: Node, specs: tuple[TensorSpec, ...]) -> None:
    x, weight, bias = _inputs(node, specs, 3)
    assert isinstance(node.params, LinearParams)
    rows, inputs = x.shape
    outputs = node.output.shape[-1]
    _require(x, (rows, inputs), (INT8,), f"node {node.name}")
    _require(weight, (outputs, inputs), (INT8,), f"node {node.name}")
    _require(bias, (outputs,), (INT32,), f"node {node.name}")
    _requant(node, node.params.requant, outputs, (INT8, INT16))
    _require(node.output, (rows, outputs), (node.params.requant.out_type,), f"node {node.name}")


def _gelu(node: Node, specs: tuple[TensorSpec, ...]) -> None:
    (u,) = _inputs(node, specs, 1)
    assert isinstance(node.params, GeluParams)
    _require(u, u.shape, (INT16,), f"node {node.name}")
    _requant(node, node.params.requant, 1, (INT8,))
    _require(node.output, u.shape, (INT8,), f"node {node.name}")


def _add(node: Node, specs: tuple[TensorSpec, ...]) -> None:
    a, b = _inputs(node, specs, 2)
    assert isinstance(node.params, AddParams)
    offset, (rows, columns) = node.params.row_offset, a.shape
    if not 0 <= offset < rows:
        raise InputError(f"row_offset of node {node.name} must be in 0..{rows - 1}, not {offset}; {_REMEDY}")
    _require(a, a.shape, (INT16,), f"node {node.name}")
    _require(b, (rows - offset, columns), (INT16,), f"node {node.name}")
    _require(node.output, a.shape, (INT16,), f"node {node.name}")


def _norm(node: Node, specs: tuple[TensorSpec, ...]) -> None:
    x, gain, bias = _inputs(node, specs, 3)
    assert isinstance(node.params, NormParams)
    dim = x.shape[1]
    if dim > MAX_NORM_DIM:
        raise InputError(f"columns of node {node.name} must be at most {MAX_NORM_DIM}, not {dim}; use a narrower model")
    if not 1 <= node.params.shift <= MAX_SHIFT:
        raise InputError(f"shift of node {node.name} must be in 1..{MAX_SHIFT}, not {node.params.shift}; {_REMEDY}")
    _require(x, x.shape, (INT16,), f"node {node.name}")
    _require(gain, (dim,), (INT16,), f"node {node.name}")
    _require(bias, (dim,), (INT32,), f"node {node.name}")
    _require(node.output, x.shape, (INT8,), f"node {node.name}")


def _attention(node: Node, specs: tuple[TensorSpec, ...]) -> None:
    q, k, v = _inputs(node, specs, 3)
    p = node.params
    assert isinstance(p, AttentionParams)
    width = p.num_heads * p.head_dim
    for spec in (q, k, v, node.output):
        _require(spec, (q.shape[0], width), (INT8,), f"node {node.name}")
    _requant(node, p.score, 1, (INT16,))
    _requant(node, p.out, 1, (INT8,))


def _route(node: Node, specs: tuple[TensorSpec, ...]) -> None:
    x, weight, bias = _inputs(node, specs, 3)
    assert isinstance(node.params, RouteParams)
    rows, inputs = x.shape
    experts = node.output.shape[-1]
    if not 1 <= node.params.top_k <= experts:
        raise InputError(f"top_k of node {node.name} must be in 1..{experts}, not {node.params.top_k}; {_REMEDY}")
    _require(x, (rows, inputs), (INT8,), f"node {node.name}")
    _require(weight, (experts, inputs), (INT8,), f"node {node.name}")
    _require(bias, (experts,), (INT32,), f"node {node.name}")
    _requant(node, node.params.requant, experts, (INT16,))
    _require(node.output, (rows, experts), (UINT16,), f"node {node.name}")


def _experts(node: Node, specs: tuple[TensorSpec, ...]) -> None:
    x, gates, residual, w1, b1, w2, b2 = _inputs(node, specs, 7)
    p, where = node.params, f"node {node.name}"
    assert isinstance(p, ExpertsParams)
    (rows, dim), experts, hidden = x.shape, gates.shape[-1], b1.shape[-1]
    weights = (TERNARY,) if w1.type == TERNARY else (INT8,)
    _require(x, (rows, dim), (INT8,), where)
    _require(gates, (rows, experts), (UINT16,), where)
    _require(residual, (rows, dim), (INT16,), where)
    _require(w1, (experts, hidden, dim), weights, where)
    _require(b1, (experts, hidden), (INT32,), where)
    _require(w2, (experts, dim, hidden), weights, where)
    _require(b2, (experts, dim), (INT32,), where)
    for requants, channels in ((p.fc1, hidden), (p.fc2, dim)):
        if len(requants) != experts:
            raise InputError(f"{where} must have {experts} rescalings a layer, not {len(requants)}; {_REMEDY}")
        for requant in requants:
            _requant(node, requant, channels, (INT16,))
    _requant(node, p.gelu, 1, (INT8,))
    _slices(p, experts, w1.type, where)
    _require(node.output, (rows, dim), (INT16,), where)


def _slices(p: ExpertsParams, experts: int, weights: IntType, where: str) -> None:
    if p.slices and (len(p.slices) != experts or weights != INT8 or not set(p.slices) <= {2, 4, 8}):
        raise InputError(
            f"{where} must slice each of {experts} int8 experts to 2, 4 or 8 bits, not {weights} experts to"
            f" {list(p.slices)}; {_REMEDY}"
        )


CHECKS: Mapping[OpKind, Callable[[Node, tuple[TensorSpec, ...]], None]] = MappingProxyType(
    {
        OpKind.LINEAR: _linear,
        OpKind.GELU: _gelu,
        OpKind.ADD: _add,
        OpKind.NORM: _norm,
        OpKind.ATTENTION: _attention,
        OpKind.ROUTE: _route,
        OpKind.EXPERTS: _experts,
    }
)
