# SPDX-License-Identifier: Apache-2.0
"""The integer graph: nodes in execution order, each computing one tensor from earlier tensors and constants (SSA)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.spec.ops import PARAMS_OF, OpKind, OpParams
from codesign.spec.types import TensorSpec


@dataclass(frozen=True)
class Constant:
    """A named constant of the graph; `values` hold integers of `spec.type` (stored in int64, read-only)."""

    spec: TensorSpec
    values: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.values.shape != self.spec.shape:
            raise InputError(
                f"constant {self.spec.name} must have shape {self.spec.shape}, not {self.values.shape}; re-export it"
            )
        low, high = int(self.values.min(initial=0)), int(self.values.max(initial=0))
        if low < self.spec.type.min or high > self.spec.type.max:
            raise InputError(
                f"constant {self.spec.name} must fit {self.spec.type}, not the range {low}..{high};"
                " check its quantization"
            )
        self.values.setflags(write=False)


@dataclass(frozen=True)
class Node:
    """One operator application; `inputs` name tensors or constants in the order of the signature in `ops.py`."""

    name: str
    kind: OpKind
    inputs: tuple[str, ...]
    output: TensorSpec
    params: OpParams

    def __post_init__(self) -> None:
        if (self.kind, type(self.params)) not in PARAMS_OF:
            raise InputError(
                f"node {self.name} must carry the parameters of {self.kind}, not {type(self.params).__name__}"
            )


@dataclass(frozen=True)
class ImageSpec:
    """How an RGB image becomes the graph's input: cut into patches, row major, each flattened (channel, row, column).

    The integer input is `pixel - pixel_offset` as int8, shape [patches, channels * patch * patch].
    """

    height: int
    width: int
    channels: int
    patch: int
    pixel_offset: int = 128

    @property
    def num_patches(self) -> int:
        """Patches in one image."""
        return (self.height // self.patch) * (self.width // self.patch)

    @property
    def patch_elements(self) -> int:
        """Elements in one flattened patch."""
        return self.channels * self.patch * self.patch


class Readout(str, Enum):
    """What the host makes of a cell's values."""

    CLASS = "class"
    """The index of the largest."""
    VALUE = "value"
    """The one value, times its scale."""
    LOG = "log"
    """The exponential of that: the head predicts a logarithm, so that a step is a relative one."""


@dataclass(frozen=True)
class TaskOutput:
    """One task of the model: the tensor it ends in, and how rows become a map.

    Row `first_row + p` of the tensor holds patch p's cells, flattened (cell row, cell column, class).
    """

    task: str
    tensor: str
    classes: int
    cells: int
    first_row: int
    readout: Readout

    def __post_init__(self) -> None:
        if (self.readout is Readout.CLASS) != (self.classes > 1):
            raise InputError(
                f"task {self.task} must have several values a cell to read out a class, and one for anything else,"
                f" not {self.classes} for {self.readout.value!r}; correct the model's metadata"
            )


@dataclass(frozen=True)
class Graph:
    """A whole multi-task model in integers. Tasks share constants and the nodes before their paths part."""

    name: str
    image: ImageSpec
    input: TensorSpec
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[TaskOutput, ...]

    def __post_init__(self) -> None:
        known = {self.input.name} | {c.spec.name for c in self.constants}
        if len(known) != len(self.constants) + 1:
            raise InputError("constants must have distinct names; re-export the model")
        for node in self.nodes:
            for name in node.inputs:
                if name not in known:
                    raise InputError(
                        f"node {node.name} must read tensors computed before it, not {name!r}; reorder the graph"
                    )
            if node.output.name in known:
                raise InputError(f"node {node.name} must write a new tensor, not {node.output.name!r}; rename it")
            known.add(node.output.name)
        for out in self.outputs:
            if out.tensor not in known:
                raise InputError(f"task {out.task} must end in a tensor of the graph, not {out.tensor!r}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names in order."""
        return tuple(o.task for o in self.outputs)

    def output_of(self, task: str) -> TaskOutput:
        """The output of a task. Raises InputError for an unknown task."""
        for out in self.outputs:
            if out.task == task:
                return out
        raise InputError(f"task must be one of {', '.join(self.tasks)}, not {task!r}; choose one of those")

    def nodes_of(self, task: str) -> tuple[Node, ...]:
        """The nodes that a task's output needs, in execution order."""
        needed = {self.output_of(task).tensor}
        kept = []
        for node in reversed(self.nodes):
            if node.output.name in needed:
                kept.append(node)
                needed.update(node.inputs)
        return tuple(reversed(kept))

    def constant(self, name: str) -> Constant:
        """The constant of that name. Raises InputError when there is none."""
        for c in self.constants:
            if c.spec.name == name:
                return c
        raise InputError(f"constant must be one of the graph's, not {name!r}")

    def spec_of(self, name: str) -> TensorSpec:
        """The spec of the input, a constant or a computed tensor. Raises InputError when there is none."""
        if name == self.input.name:
            return self.input
        for node in self.nodes:
            if node.output.name == name:
                return node.output
        return self.constant(name).spec
