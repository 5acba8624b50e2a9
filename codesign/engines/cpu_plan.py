# SPDX-License-Identifier: Apache-2.0
"""Nodes of a graph made ready to run on this processor, once; running them costs no Python per operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.engines.cpu_build import DTYPES, TENSORS, Builder, fuse, operands, place
from codesign.engines.cpu_operators import OPERATORS
from codesign.engines.cpu_weights import Packed, native_tables
from codesign.errors import InputError
from codesign.kernels.native import checked_threads, choose_variant, native
from codesign.reference.functions import Ints
from codesign.spec import INT32, Constant, Graph, Node, TensorSpec

Integers = npt.NDArray[np.integer[Any]]


class CpuPlan:
    """Nodes made ready to run on this processor: `run` costs no Python per operator.

    `inputs` are the tensors that are given, `outputs` the names of those wanted; constants may be among what nodes
    read. Raises InputError for what the kernels cannot do (`Packed`), for no or too many threads.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        inputs: Sequence[TensorSpec],
        constants: Mapping[str, Constant],
        outputs: Sequence[str],
        packed: Packed,
        threads: int = 1,
    ) -> None:
        self.inputs = {spec.name: spec for spec in inputs}
        self.specs = self.inputs | {node.output.name: node.output for node in nodes}
        self.outputs = tuple(outputs)
        steps = fuse(nodes, self.outputs)
        matrices = operands(steps, constants)
        specs = self.specs | {name: constants[name].spec for name in matrices}
        places = place(steps, specs, dict.fromkeys((*self.inputs, *matrices, *self.outputs)))
        self._plan = native().Plan(packed.variant.native, checked_threads(threads), native_tables())
        elements = native().Element
        self._tensors = {
            name: self._plan.tensor(*specs[name].shape, getattr(elements, str(specs[name].type).upper()), slot)
            for name, slot in places.items()
        }
        builder = Builder(self._plan, packed, constants, self._tensors, {})
        for step in steps:
            OPERATORS[step.node.kind](builder, step)
        try:
            self._plan.finish()
        except MemoryError:
            raise InputError("memory must hold the graph's tensors, and it does not; use a smaller model") from None
        for name in matrices:
            self._write(name, constants[name].values, constants[name].spec)

    def run(self, values: Mapping[str, Integers]) -> dict[str, Integers]:
        """The wanted tensors for these inputs. Raises InputError for an input of another shape or out of range."""
        for name, spec in self.inputs.items():
            self._write(name, values[name], spec)
        self._plan.run()
        return {name: self._read(name) for name in self.outputs}

    def compute(self) -> None:
        """Run again on the inputs written last: what a benchmark measures."""
        self._plan.run()

    def _write(self, name: str, values: Integers, spec: TensorSpec) -> None:
        if values.shape != spec.shape or not np.issubdtype(values.dtype, np.integer):
            raise InputError(
                f"input {name} must be integers of shape {spec.shape}, not {values.dtype} {values.shape};"
                " use to_patches"
            )
        dtype = DTYPES[spec.type]
        if values.dtype != dtype and values.size:
            low, high = int(values.min()), int(values.max())
            if low < spec.type.min or high > spec.type.max:
                raise InputError(f"input {name} must fit {spec.type}, not the range {low}..{high}; use to_patches")
        self._plan.write(self._tensors[name], np.ascontiguousarray(values, dtype=dtype))

    def _read(self, name: str) -> Integers:
        spec = self.specs[name]
        rows = np.empty(spec.shape, dtype=DTYPES[spec.type])
        self._plan.read(self._tensors[name], rows)
        return rows


def plan_task(graph: Graph, task: str, packed: Packed, threads: int = 1, traced: bool = False) -> CpuPlan:
    """A task of a graph made ready; `traced` keeps every tensor, so that nothing is fused."""
    nodes = graph.nodes_of(task)
    outputs = tuple(node.output.name for node in nodes) if traced else (graph.output_of(task).tensor,)
    constants = {c.spec.name: c for c in graph.constants}
    return CpuPlan(nodes, (graph.input,), constants, outputs, packed, threads)


def run_node(node: Node, inputs: Sequence[Ints], variant: str | None = None, threads: int = 1) -> Ints:
    """One operator on its inputs by the native kernels, as `codesign.reference.OPERATORS` has it."""
    types = TENSORS[node.kind]
    named = dict(zip(node.inputs, inputs, strict=True))
    specs = [TensorSpec(name, named[name].shape, kind, 1.0) for name, kind in zip(node.inputs, types, strict=False)]
    weights = node.inputs[len(types) :]
    constants = {name: Constant(TensorSpec(name, named[name].shape, INT32, 1.0), named[name]) for name in weights}
    plan = CpuPlan((node,), specs, constants, (node.output.name,), Packed(choose_variant(variant)), threads)
    return plan.run(named)[node.output.name].astype(np.int64)
