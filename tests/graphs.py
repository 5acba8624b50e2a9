# SPDX-License-Identifier: Apache-2.0
"""Random valid integer graphs with every operator, for tests of any engine.

In: a NumPy generator and a `GraphShape`. Out: a `Graph` of the form of the real model (patch embedding, class token,
pre-norm blocks with experts on the odd ones, one gate and one head a task). Each rescaling is chosen while the graph is
built, by running the reference on one random image, so that every tensor uses its range and few values saturate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from codesign.reference import OPERATORS
from codesign.reference import functions as f
from codesign.reference.functions import Ints
from codesign.spec import (
    INT8,
    INT16,
    INT32,
    UINT16,
    AddParams,
    AttentionParams,
    Constant,
    ExpertsParams,
    GeluParams,
    Graph,
    ImageSpec,
    IntType,
    LinearParams,
    Node,
    NormParams,
    OpKind,
    OpParams,
    Readout,
    Requant,
    RouteParams,
    TaskOutput,
    TensorSpec,
)

TERNARY = IntType(2)
RESIDUAL_SCALE = 2.0**-10
ACTIVATION_SCALE = 2.0**-5
NORM_SHIFT = 14


@dataclass(frozen=True)
class GraphShape:
    """Sizes of a random graph. `tokens` counts the class token, if any; `depth` >= 2: there is a block of experts."""

    tokens: int = 9
    dim: int = 16
    heads: int = 2
    head_dim: int = 8
    hidden: int = 24
    expert_hidden: int = 16
    experts: int = 4
    top_k: int = 2
    ternary: bool = True
    depth: int = 2
    tasks: tuple[str, ...] = ("semseg", "depth")
    classes: tuple[int, ...] = (3, 1)
    cells: int = 2
    patch: int = 4
    channels: int = 3
    class_token: bool = True


def random_graph(rng: np.random.Generator, shape: GraphShape | None = None) -> Graph:
    """A random graph of the given shape whose tensors are lively on random images."""
    return _Builder(rng, shape or GraphShape()).build()


def random_input(rng: np.random.Generator, graph: Graph) -> Ints:
    """A random image as the graph's input: int8 patches [patches, elements]: a gradient with noise and flat patches."""
    rows, columns = graph.input.shape
    base = rng.integers(-100, 100, (rows, 1)) + np.linspace(-20, 20, columns).astype(np.int64)
    return np.clip(base + rng.integers(-60, 60, (rows, columns)) * (rng.random((rows, 1)) < 0.8), -128, 127)


def _grid(patches: int) -> tuple[int, int]:
    rows = max(r for r in range(1, int(patches**0.5) + 1) if patches % r == 0)
    return rows, patches // rows


@dataclass
class _Builder:
    rng: np.random.Generator
    shape: GraphShape
    constants: list[Constant] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Ints] = field(default_factory=dict)
    specs: dict[str, TensorSpec] = field(default_factory=dict)

    def build(self) -> Graph:
        s = self.shape
        rows, columns = _grid(s.tokens - s.class_token)
        image = ImageSpec(rows * s.patch, columns * s.patch, s.channels, s.patch)
        source = TensorSpec("image", (image.num_patches, image.patch_elements), INT8, 1 / 128)
        empty = Graph("empty", image, source, (), (), ())
        self.values["image"] = random_input(self.rng, empty)
        self.specs["image"] = source
        trunk = self._embed(image)
        ends = dict.fromkeys(s.tasks, trunk)
        for block in range(s.depth):
            ends = self._block(block, ends)
        outputs = tuple(self._head(task, ends[task], i) for i, task in enumerate(s.tasks))
        return Graph("random", image, source, tuple(self.constants), tuple(self.nodes), outputs)

    # -- pieces of the network -------------------------------------------------------------------------------------

    def _embed(self, image: ImageSpec) -> str:
        s = self.shape
        position = self._constant("embed.position", (s.tokens, s.dim), INT16, self._normal((s.tokens, s.dim), 700))
        patches = self._linear("embed.patch", "image", "embed.patch", s.dim, INT16, 1800, gauge=np.std)
        params = AddParams(int(s.class_token))
        return self._node("embed.add", OpKind.ADD, (position, patches), params, INT16, RESIDUAL_SCALE)

    def _block(self, index: int, ends: dict[str, str]) -> dict[str, str]:
        """One block for every distinct stream; constants are shared by all streams."""
        moe = index % 2 == 1
        shared: dict[str, str] = {}
        for task, x in ends.items():
            if x in shared and not moe:
                continue
            prefix = f"block{index}" if len(set(ends.values())) == 1 else f"{task}.block{index}"
            if x not in shared:
                shared[x] = self._attention(prefix, f"block{index}", x)
                if not moe:
                    shared[x] = self._mlp(prefix, f"block{index}", shared[x])
        if not moe:
            return {task: shared[x] for task, x in ends.items()}
        return {task: self._experts(task, index, shared[x]) for task, x in ends.items()}

    def _attention(self, prefix: str, owner: str, x: str) -> str:
        s, wide = self.shape, self.shape.heads * self.shape.head_dim
        n = self._norm(f"{prefix}.norm1", x, f"{owner}.norm1")
        q, k, v = (self._linear(f"{prefix}.{c}", n, f"{owner}.{c}", wide, INT8, 100) for c in "qkv")
        scores = [
            np.asarray(self.values[q][:, h : h + s.head_dim] @ self.values[k][:, h : h + s.head_dim].T)
            for h in range(0, wide, s.head_dim)
        ]
        score = Requant.of_scale(400 / max(1.0, float(np.std(scores))), INT16)
        out = Requant.of_scale(0.9 * 2.0**-8, INT8)
        params = AttentionParams(s.heads, s.head_dim, score, out)
        a = self._node(f"{prefix}.attention", OpKind.ATTENTION, (q, k, v), params, INT8, ACTIVATION_SCALE)
        p = self._linear(f"{prefix}.proj", a, f"{owner}.proj", s.dim, INT16, 900, gauge=np.std)
        return self._node(f"{prefix}.add1", OpKind.ADD, (x, p), AddParams(), INT16, RESIDUAL_SCALE)

    def _mlp(self, prefix: str, owner: str, x: str) -> str:
        s = self.shape
        n = self._norm(f"{prefix}.norm2", x, f"{owner}.norm2")
        u = self._linear(f"{prefix}.fc1", n, f"{owner}.fc1", s.hidden, INT16, 1400, gauge=np.std, scale=2.0**-10)
        g = Requant.of_scale(110 / max(1.0, float(f.gelu_fixed(self.values[u]).max())), INT8)
        h = self._node(f"{prefix}.gelu", OpKind.GELU, (u,), GeluParams(g), INT8, ACTIVATION_SCALE)
        y = self._linear(f"{prefix}.fc2", h, f"{owner}.fc2", s.dim, INT16, 900, gauge=np.std)
        return self._node(f"{prefix}.add2", OpKind.ADD, (x, y), AddParams(), INT16, RESIDUAL_SCALE)

    def _experts(self, task: str, index: int, x: str) -> str:
        s, owner, prefix = self.shape, f"block{index}", f"{task}.block{index}"
        same = len({n.name for n in self.nodes if n.name.endswith(f"{owner}.add1")}) == 1
        n = self._norm(f"{owner}.norm2" if same else f"{prefix}.norm2", x, f"{owner}.norm2")
        gates = self._route(prefix, n)
        kind = TERNARY if s.ternary else INT8
        d, h, e = s.dim, s.expert_hidden, s.experts
        w1 = self._constant(f"{owner}.experts.w1", (e, h, d), kind, self._weights((e, h, d), kind))
        b1 = self._constant(f"{owner}.experts.b1", (e, h), INT32, self._normal((e, h), 30 if s.ternary else 2000))
        w2 = self._constant(f"{owner}.experts.w2", (e, d, h), kind, self._weights((e, d, h), kind))
        b2 = self._constant(f"{owner}.experts.b2", (e, d), INT32, self._normal((e, d), 20 if s.ternary else 1000))
        params = self._expert_params(owner, n)
        inputs = (n, gates, x, w1, b1, w2, b2)
        return self._node(f"{prefix}.experts", OpKind.EXPERTS, inputs, params, INT16, RESIDUAL_SCALE)

    def _expert_params(self, owner: str, n: str) -> ExpertsParams:
        for node in self.nodes:  # experts are one set of weights and rescalings for all tasks
            if isinstance(node.params, ExpertsParams) and node.name.endswith(f"{owner}.experts"):
                return node.params
        w1, b1, w2, b2 = (self.values[f"{owner}.experts.{c}"] for c in ("w1", "b1", "w2", "b2"))
        fc1, fc2 = [], []
        acc = [f.matmul(self.values[n], w1[e], b1[e]) for e in range(self.shape.experts)]
        fc1 = [self._requant(a, INT16, 1400, np.std) for a in acc]
        act = [f.gelu_fixed(f.requantize(a, r)) for a, r in zip(acc, fc1, strict=True)]
        gelu = Requant.of_scale(110 / max(1.0, float(np.max(act))), INT8)
        for e in range(self.shape.experts):
            fc2.append(self._requant(f.matmul(f.requantize(act[e], gelu), w2[e], b2[e]), INT16, 1500, np.std))
        return ExpertsParams(tuple(fc1), gelu, tuple(fc2))

    def _route(self, prefix: str, n: str) -> str:
        s = self.shape
        w = self._constant(f"{prefix}.router.weight", (s.experts, s.dim), INT8, self._weights((s.experts, s.dim), INT8))
        b = self._constant(f"{prefix}.router.bias", (s.experts,), INT32, self._normal((s.experts,), 500))
        acc = f.matmul(self.values[n], self.values[w], self.values[b])
        params = RouteParams(s.top_k, self._requant(acc, INT16, 350, np.std))
        return self._node(f"{prefix}.router", OpKind.ROUTE, (n, w, b), params, UINT16, 2.0**-15)

    def _head(self, task: str, x: str, index: int) -> TaskOutput:
        s = self.shape
        n = self._norm(f"{task}.norm", x, "norm")
        outputs = s.classes[index] * s.cells**2
        y = self._linear(f"{task}", n, f"{task}.head", outputs, INT16, 5000, gauge=np.std)
        readout = Readout.CLASS if s.classes[index] > 1 else Readout.LOG
        return TaskOutput(task, y, s.classes[index], s.cells, int(s.class_token), readout)

    # -- operators and constants -----------------------------------------------------------------------------------

    def _linear(
        self, name: str, x: str, owner: str, outputs: int, kind: IntType, target: float, gauge=None, scale=None
    ) -> str:
        inputs = self.values[x].shape[1]
        w = self._constant(f"{owner}.weight", (outputs, inputs), INT8, self._weights((outputs, inputs), INT8))
        b = self._constant(f"{owner}.bias", (outputs,), INT32, self._normal((outputs,), 40 * inputs**0.5))
        acc = f.matmul(self.values[x], self.values[w], self.values[b])
        known = [n.params for n in self.nodes if n.inputs[1:] == (w, b) and isinstance(n.params, LinearParams)]
        params = known[0] if known else LinearParams(self._requant(acc, kind, target, gauge))
        scale = scale or (ACTIVATION_SCALE if kind == INT8 else RESIDUAL_SCALE)
        return self._node(name, OpKind.LINEAR, (x, w, b), params, kind, scale)

    def _norm(self, name: str, x: str, owner: str) -> str:
        if name in self.specs:
            return name
        d = self.shape.dim
        signs = np.where(self.rng.random(d) < 0.9, 1, -1)
        values = np.round(signs * self.rng.uniform(0.6, 1.4, d) * 40 * 2.0 ** (NORM_SHIFT - 10)).astype(np.int64)
        gain = self._constant(f"{owner}.gain", (d,), INT16, values)
        bias = self._constant(f"{owner}.bias", (d,), INT32, self._normal((d,), 12 * 2.0**NORM_SHIFT))
        return self._node(name, OpKind.NORM, (x, gain, bias), NormParams(NORM_SHIFT), INT8, ACTIVATION_SCALE)

    def _node(
        self, name: str, kind: OpKind, inputs: tuple[str, ...], params: OpParams, out: IntType, scale: float
    ) -> str:
        probe = Node(name, kind, inputs, TensorSpec(name, (0,), out, scale), params)
        y = OPERATORS[kind](probe, [self.values[i] for i in inputs])
        self.specs[name] = TensorSpec(name, y.shape, out, scale)
        self.nodes.append(Node(name, kind, inputs, self.specs[name], params))
        self.values[name] = y
        return name

    def _constant(self, name: str, shape: tuple[int, ...], kind: IntType, values: Ints) -> str:
        if name not in self.specs:
            self.specs[name] = TensorSpec(name, shape, kind, 1.0)
            self.values[name] = np.clip(values, kind.min, kind.max)
            self.constants.append(Constant(self.specs[name], self.values[name]))
        return name

    def _weights(self, shape: tuple[int, ...], kind: IntType) -> Ints:
        if kind == TERNARY:
            return self.rng.integers(-1, 2, shape)
        return np.clip(self._normal(shape, 45), -127, 127)

    def _normal(self, shape: tuple[int, ...], sigma: float) -> Ints:
        return np.round(self.rng.normal(0, sigma, shape)).astype(np.int64)

    def _requant(self, acc: Ints, kind: IntType, target: float, gauge=None) -> Requant:
        """One factor per channel, such that the gauge of the accumulator (by default its peak) lands near `target`."""
        peak = max(1.0, float(gauge(acc) if gauge else np.abs(acc).max()))
        factors = target / peak * self.rng.uniform(0.8, 1.25, acc.shape[-1])
        return Requant.of_scale([float(v) for v in factors], kind)
