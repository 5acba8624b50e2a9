# SPDX-License-Identifier: Apache-2.0
"""Runs a bundle's graph with its experts in a store: dense operators by the cpu engine, mixtures by the runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codesign.engines.cpu_plan import CpuPlan
from codesign.engines.cpu_weights import Packed
from codesign.errors import CheckError, InputError
from codesign.experts.file.codec import stored_experts
from codesign.experts.file.store import Store
from codesign.experts.pack.mixtures import TERNARY_FORMATS, Mixture, expert_of, is_ternary, mixtures
from codesign.experts.run.metrics import Kind, Span, now
from codesign.experts.run.options import RuntimeOptions, choose
from codesign.experts.run.routing import Choices, RoutingTrace, trace_of_gates
from codesign.experts.run.runtime import Runtime
from codesign.experts.run.session import Progress, RunResult, result_of
from codesign.kernels.native import choose_variant
from codesign.reference import OPERATORS
from codesign.reference.functions import Ints
from codesign.reference.moe import moe
from codesign.spec import Graph, Node, OpKind, TensorSpec
from codesign.spec.moe import ExpertFormat
from codesign.spec.patches import Pixels, to_patches


@dataclass(frozen=True)
class GraphRun:
    """What a run gave, beside the numbers: each image's and task's output [images][task], and the routing."""

    result: RunResult
    tasks: tuple[str, ...]
    outputs: tuple[tuple[Ints, ...], ...]
    trace: RoutingTrace


@dataclass(frozen=True)
class _Mixture:
    """A node of experts, and its router alone, for tokens of a layer below."""

    node: Node
    router: CpuPlan


@dataclass(frozen=True)
class _Stage:
    """Dense operators as one plan (None where there are none), then a mixture (None at the end)."""

    plan: CpuPlan | None
    mixture: _Mixture | None


def layers_of(graph: Graph, store: Store) -> dict[str, int]:
    """The store's layer of each node of mixtures. Raises InputError when the store is of another model."""
    numbers: dict[str, int] = {}
    for mixture in mixtures(graph):
        number = store.layer_number(mixture.layer.name)
        if store.layers[number] != mixture.layer or not _same_constants(graph, mixture, store, number):
            raise InputError(
                f"store {store.path} must hold layer {mixture.layer.name} of {graph.name}, not that of another model"
                f" ({store.index.model}); pack that model"
            )
        numbers |= dict.fromkeys(mixture.nodes, number)
    return numbers


def _same_constants(graph: Graph, mixture: Mixture, store: Store, number: int) -> bool:
    """Whether the rescalings for the widest experts are the graph's; they may differ where weights were rounded."""
    if store.kind is ExpertFormat.RESIDUAL or (store.kind in TERNARY_FORMATS and not is_ternary(graph, mixture)):
        return True
    stored = store.constants(number)
    experts = [expert_of(graph, mixture, e) for e in range(mixture.layer.num_experts)]
    return all(
        np.array_equal(found[-1], np.stack([one[0] for one in wanted]))
        for rescaling, own in ((stored.fc1, [e.fc1 for e in experts]), (stored.fc2, [e.fc2 for e in experts]))
        for found, wanted in (
            (rescaling.bias, [one.bias for one in own]),
            (rescaling.multiplier, [one.multiplier for one in own]),
            (rescaling.shift, [one.shift for one in own]),
        )
    )


def run_graph(
    graph: Graph,
    store: Store,
    images: Pixels,
    options: RuntimeOptions,
    hot: RoutingTrace | None = None,
    tasks: Sequence[str] = (),
    check: int = 0,
    progress: Progress = lambda done, total: None,
) -> GraphRun:
    """Every task of a graph on every image. The first `check` images are compared with the reference.

    With foresight, the routers of the next layers are asked what they would choose for this layer's tokens.
    Raises InputError for a store of another model, CheckError when a bit differs.
    """
    numbers = layers_of(graph, store)
    names = tuple(tasks) or graph.tasks
    packed = Packed(choose_variant(options.variant))
    stages = {task: _stages(graph, task, packed, options.threads) for task in names}
    pictures = [images[n : n + 1] for n in range(len(images))]  # patches are 8 times as large: of one image at a time
    outputs: list[tuple[Ints, ...]] = []
    routing: list[list[Choices]] = []
    with Runtime(store, options, hot) as runtime:
        runtime.warm()
        runtime.start()
        for number, picture in enumerate(pictures):
            begin, made = now(), []
            x = to_patches(picture, graph.image)[0]
            runtime.record.spans.append(Span(Kind.DENSE, "patches", begin, now()))
            for task in names:
                values, gates = _pass(runtime, graph, stages[task], numbers, x)
                made.append(values[graph.output_of(task).tensor].astype(np.int64))
                routing.append(_all_layers(store, gates))
            outputs.append(tuple(made))
            progress(number + 1, len(pictures))
        result = result_of(runtime, runtime.stop(), min(check, len(pictures)) * len(names))
    for picture, found in zip(pictures[:check], outputs, strict=False):
        x = to_patches(picture, graph.image)[0]
        for task, tensor in zip(names, found, strict=True):
            _judge(graph, store, task, numbers, x, tensor, options)
    source = f"{graph.name}, {len(pictures)} images, {', '.join(names)}"
    return GraphRun(result, names, tuple(outputs), trace_of_gates(source, routing))


def _stages(graph: Graph, task: str, packed: Packed, threads: int) -> tuple[_Stage, ...]:
    nodes = graph.nodes_of(task)
    constants = {c.spec.name: c for c in graph.constants}
    routers = {node.output.name: node for node in nodes if node.kind is OpKind.ROUTE}
    given: dict[str, TensorSpec] = {graph.input.name: graph.input}
    stages: list[_Stage] = []
    dense: list[Node] = []
    for at, node in enumerate((*nodes, None)):
        if node is not None and node.kind is not OpKind.EXPERTS:
            dense.append(node)
            continue
        later = {name for other in nodes[at:] for name in other.inputs} | {graph.output_of(task).tensor}
        outputs = [one.output.name for one in dense if one.output.name in later]
        reads = {name for one in dense for name in one.inputs}
        inputs = [spec for name, spec in given.items() if name in reads]
        plan = CpuPlan(dense, inputs, constants, outputs, packed, threads) if dense else None
        mixture = None
        if node is not None:
            routes = routers[node.inputs[1]]
            tokens = [graph.spec_of(routes.inputs[0])]
            mixture = _Mixture(node, CpuPlan([routes], tokens, constants, [routes.output.name], packed, threads))
        stages.append(_Stage(plan, mixture))
        given |= {one.output.name: one.output for one in (*dense, *((node,) if node else ()))}
        dense = []
    return tuple(stages)


def _pass(
    runtime: Runtime, graph: Graph, stages: tuple[_Stage, ...], numbers: Mapping[str, int], x: Ints
) -> tuple[dict[str, np.ndarray], dict[int, Choices]]:
    values: dict[str, np.ndarray] = {graph.input.name: x}
    order = [numbers[stage.mixture.node.name] for stage in stages if stage.mixture is not None]
    gates: dict[int, Choices] = {}
    runtime.record.tokens += next((s.mixture.node.output.shape[0] for s in stages if s.mixture is not None), 0)
    for place, stage in enumerate(stages):
        if stage.plan is not None:
            begin = now()
            values |= stage.plan.run({name: values[name] for name in stage.plan.inputs})
            runtime.record.spans.append(Span(Kind.DENSE, "dense operators", begin, now()))
        if stage.mixture is None:
            continue
        node, number = stage.mixture.node, numbers[stage.mixture.node.name]
        tensors = [np.ascontiguousarray(values[name]) for name in node.inputs[:3]]
        gates[number] = tensors[1]
        foreseen = _foresee(runtime, stages[place + 1 :], numbers, tensors[0])
        following = order[(place + 1) % len(order)]
        values[node.output.name] = runtime.layer(number, runtime.batch(*tensors), following, foreseen)
    return values, gates


def _foresee(runtime: Runtime, coming: Sequence[_Stage], numbers: Mapping[str, int], x: Ints) -> list[int]:
    """The blocks that the next layers would read if their routers saw these tokens."""
    found: list[int] = []
    begin = now()
    for one in [stage.mixture for stage in coming if stage.mixture is not None][: runtime.options.foresight]:
        (gates,) = one.router.run(dict.fromkeys(one.router.inputs, x)).values()
        found += runtime.placement.named(numbers[one.node.name], np.ascontiguousarray(gates))
    if found:
        runtime.record.spans.append(Span(Kind.DENSE, "routers ahead", begin, now()))
    return found


def _all_layers(store: Store, gates: Mapping[int, Choices]) -> list[Choices]:
    """Gates by layer of the store; none where a task does not pass."""
    tokens = len(next(iter(gates.values())))
    return [
        gates.get(number, np.zeros((tokens, layer.num_experts), dtype=np.uint16))
        for number, layer in enumerate(store.layers)
    ]


def _judge(
    graph: Graph, store: Store, task: str, numbers: Mapping[str, int], x: Ints, found: Ints, options: RuntimeOptions
) -> None:
    values = {c.spec.name: c.values for c in graph.constants} | {graph.input.name: x.astype(np.int64)}
    for node in graph.nodes_of(task):
        inputs = [values[name] for name in node.inputs]
        if node.kind is OpKind.EXPERTS:
            number = numbers[node.name]
            widths = choose(store.kind, inputs[1], options)
            experts = stored_experts(store, number)
            constants = store.constants(number)
            tokens, gates, residual = inputs[:3]
            y = moe(store.layers[number], store.kind, constants, experts, tokens, gates, residual, widths)
        else:
            y = OPERATORS[node.kind](node, inputs)
        values[node.output.name] = y
    wanted = values[graph.output_of(task).tensor]
    if not np.array_equal(wanted, found):
        row, column = np.argwhere(wanted != found)[0]
        raise CheckError(
            f"task {task} must equal the reference, not {found[row, column]} for {wanted[row, column]} at row {row},"
            f" column {column}; report this, with the store and the command"
        )
