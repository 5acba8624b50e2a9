# SPDX-License-Identifier: Apache-2.0
"""A graph in the making that knows its values: every node is computed by the reference when it is written down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from codesign.reference import OPERATORS
from codesign.reference.functions import Ints
from codesign.spec import Constant, Graph, ImageSpec, IntType, Node, OpKind, OpParams, TaskOutput, TensorSpec


class Tape:
    """Nodes and constants so far, with the tensors' values for all calibration images."""

    def __init__(self, source: TensorSpec, images: Ints) -> None:
        """`images` [n, patches, elements] are the values of the graph's input `source`."""
        self._source = source
        self._constants: list[Constant] = []
        self._nodes: list[Node] = []
        self._scales = {source.name: source.scale}
        self._values = {source.name: images}
        self._constant_values: dict[str, Ints] = {}

    def constant(self, name: str, values: Ints, kind: IntType, scale: float = 1.0) -> str:
        """Add a constant, unless that name is known already. One whose unit differs by channel has scale 1."""
        if name not in self._constant_values:
            spec = TensorSpec(name, values.shape, kind, scale)
            self._constants.append(Constant(spec, np.ascontiguousarray(values, dtype=np.int64)))
            self._constant_values[name] = self._constants[-1].values
        return name

    def node(
        self, name: str, kind: OpKind, inputs: tuple[str, ...], params: OpParams, out: IntType, scale: float
    ) -> str:
        """Add a node and compute its output for every image; node and output have one name."""
        images = len(self._values[self._source.name])
        probe = Node(name, kind, inputs, TensorSpec(name, (), out, scale), params)
        results = [OPERATORS[kind](probe, [self._of(i, image) for i in inputs]) for image in range(images)]
        self._values[name] = np.stack(results)
        self._scales[name] = scale
        self._nodes.append(Node(name, kind, inputs, TensorSpec(name, results[0].shape, out, scale), params))
        return name

    def _of(self, name: str, image: int) -> Ints:
        known = self._constant_values.get(name)
        return self._values[name][image] if known is None else known

    def scale(self, name: str) -> float:
        """The scale of a tensor."""
        return self._scales[name]

    def images(self, name: str) -> Ints:
        """A tensor's values, [n, rows, columns]."""
        return self._values[name]

    def rows(self, names: Sequence[str]) -> Ints:
        """The rows of several tensors and all images, one under the other."""
        return np.concatenate([self._values[name].reshape(-1, self._values[name].shape[-1]) for name in names])

    def forget_all_but(self, names: Iterable[str]) -> None:
        """Drop the values of computed tensors that nothing will read again."""
        kept = {self._source.name, *names}
        self._values = {name: values for name, values in self._values.items() if name in kept}

    def finish(self, name: str, image: ImageSpec, outputs: tuple[TaskOutput, ...]) -> Graph:
        """The graph."""
        return Graph(name, image, self._source, tuple(self._constants), tuple(self._nodes), outputs)
