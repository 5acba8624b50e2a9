# SPDX-License-Identifier: Apache-2.0
"""Writes an M3ViT node by node: random weights, then scales from what the calibration images make of them.

One trunk; from the first mixture of experts on each task has its own stream, because its own gates decide, but all
constants except routers and heads are shared (M3ViT, Liang et al. 2022, section 3). Names are those of imported models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from codesign.reference import functions as f
from codesign.reference.functions import Ints
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
    NormParams,
    OpKind,
    Readout,
    Requant,
    RouteParams,
    TaskOutput,
    TensorSpec,
)
from codesign.spec.ops import GATE_FRACTION_BITS, GELU_FRACTION_BITS, NORM_FRACTION_BITS, PROBABILITY_FRACTION_BITS
from codesign.spec.patches import Pixels, to_patches
from codesign.spec.scales import LOGIT_FACTOR, norm_integers
from codesign.synthesis import profile
from codesign.synthesis.calibrate import (
    Dense,
    balance,
    bias_for,
    fit,
    int8_scale,
    int16_scale,
    row_spread,
    without,
)
from codesign.synthesis.recipe import ExpertWeights, Recipe, TaskRecipe
from codesign.synthesis.tape import Tape
from codesign.synthesis.weights import Floats, filters, generator, heavy_tailed, log_normal, quantized

_ATTENTION_TOKENS = 512
"""Attention's own scales are found on about so many tokens."""

IMAGE_SCALE = 1.0 / 128
GELU_SCALE = 2.0**-GELU_FRACTION_BITS
_TERNARY = IntType(2)


@dataclass(frozen=True)
class _Lane:
    """One residual stream: its tensor so far, the tasks that share it, and what its nodes' names start with."""

    prefix: str
    tasks: tuple[TaskRecipe, ...]
    tensor: str


_Lanes = tuple[_Lane, ...]
_Names = tuple[str, ...]


class Network:
    """One graph on its way: calibrated on images uint8 [n, height, width, channels], the same for the same seed."""

    def __init__(self, recipe: Recipe, seed: int, calibration: Pixels) -> None:
        self._recipe = recipe
        self._seed = seed
        spec = recipe.image.spec
        source = TensorSpec("image", (spec.num_patches, spec.patch_elements), INT8, IMAGE_SCALE)
        self._tape = Tape(source, to_patches(calibration, spec))
        dim, rng = recipe.model.embed_dim, self._rng("residual")
        self._outlier = np.zeros(dim, dtype=bool)
        self._outlier[rng.permutation(dim)[: max(1, round(dim * profile.OUTLIERS))]] = True
        self._sizes = log_normal(rng, dim, profile.CHANNEL_SPREAD) * np.where(self._outlier, profile.OUTLIER_SIZE, 1.0)
        self._embed_sizes = self._sizes * np.where(self._outlier, profile.OUTLIER_SIZE**-0.5, 1.0)

    def build(self) -> Graph:
        """The whole graph, named like its recipe."""
        recipe = self._recipe
        lanes: _Lanes = (_Lane("", recipe.tasks, self._embed()),)
        for block in range(recipe.model.depth):
            lanes = self._attention(f"block{block}", lanes)
            layer = self._experts if block in recipe.model.moe_blocks else self._mlp
            lanes = layer(f"block{block}", lanes)
            self._tape.forget_all_but(lane.tensor for lane in lanes)
        return self._tape.finish(recipe.name, recipe.image.spec, self._heads(lanes))

    # -- pieces of the network -------------------------------------------------------------------------------------

    def _embed(self) -> str:
        recipe, dim = self._recipe, self._recipe.model.embed_dim
        rng = self._rng("embed.patch")
        values = filters(rng, dim, recipe.image.channels, recipe.image.patch)
        dense = fit(
            quantized(values, ExpertWeights.INT8), self._tape.rows(("image",)), 0.8 * profile.EMBED_SIGMA,
            self._embed_sizes, np.zeros(dim), even=True,
        )  # fmt: skip
        patches = self._linear("embed.patch", "embed.patch", "image", dense, INT16, profile.RESIDUAL_SCALE)
        table = np.rint(self._positions() / profile.RESIDUAL_SCALE).astype(np.int64)
        position = self._tape.constant("embed.position", table, INT16, profile.RESIDUAL_SCALE)
        return self._add("embed.add", position, patches, int(recipe.model.class_token))

    def _positions(self) -> Floats:
        """[tokens, dim]: waves over the grid and noise; the class token's row comes first."""
        image, dim, rng = self._recipe.image, self._recipe.model.embed_dim, self._rng("embed.position")
        rows, columns = np.divmod(np.arange(image.spec.num_patches), image.width // image.patch)
        place = np.stack([rows, columns], axis=1) / max(image.height, image.width) * image.patch
        waves = np.sin(2 * np.pi * (place @ rng.normal(0.0, 1.5, (2, dim)) + rng.random(dim)))
        table = waves + 0.3 * rng.normal(0.0, 1.0, waves.shape)
        if self._recipe.model.class_token:
            table = np.concatenate([rng.normal(0.0, 1.5, (1, dim)), table])
        scaled: Floats = 0.6 * profile.EMBED_SIGMA * self._embed_sizes * table
        return scaled

    def _attention(self, block: str, lanes: _Lanes) -> _Lanes:
        m, tape = self._recipe.model, self._tape
        normed = self._norms(f"{block}.norm1", lanes)
        x = tape.rows(normed)
        q, k, v = (self._projection(f"{block}.{letter}", x) for letter in "qkv")
        q = q.scaled(np.repeat(self._temperatures(block, q, k, normed), m.head_dim))
        scales = [int8_scale(dense.real(x)) for dense in (q, k, v)]
        score = Requant.of_scale(scales[0] * scales[1] * m.head_dim**-0.5 * LOGIT_FACTOR, INT16)
        mixed = [
            [
                self._linear(f"{lane.prefix}{block}.{letter}", f"{block}.{letter}", name, dense, INT8, scale)
                for letter, dense, scale in zip("qkv", (q, k, v), scales, strict=True)
            ]
            for lane, name in zip(lanes, normed, strict=True)
        ]
        out_scale = self._mixed_scale(mixed, score, scales[2])
        out = Requant.of_scale(scales[2] * 2.0**-PROBABILITY_FRACTION_BITS / out_scale, INT8)
        params = AttentionParams(m.num_heads, m.head_dim, score, out)
        names = tuple(
            tape.node(f"{lane.prefix}{block}.attention", OpKind.ATTENTION, (a, b, c), params, INT8, out_scale)
            for lane, (a, b, c) in zip(lanes, mixed, strict=True)
        )
        return self._branch(f"{block}.proj", f"{block}.add1", lanes, names)

    def _projection(self, owner: str, x: Ints) -> Dense:
        """Q, K or V, with unit deviation."""
        m, rng = self._recipe.model, self._rng(owner)
        width = m.attention_width
        weight = quantized(heavy_tailed(rng, (width, m.embed_dim)), ExpertWeights.INT8)
        return fit(weight, x, 1.0, log_normal(rng, width, profile.OUTPUT_SPREAD), rng.normal(0.0, 0.2, width))

    def _temperatures(self, block: str, q: Dense, k: Dense, normed: _Names) -> Floats:
        """Factor per head at which scores spread over the keys as they should."""
        m = self._recipe.model
        wanted = profile.SCORE_SIGMA * log_normal(self._rng(f"{block}.heads"), m.num_heads, profile.HEAD_SPREAD)
        found = np.zeros(m.num_heads)
        samples = [x for name in normed for x in self._sample(name)]
        for x in samples:
            heads = (np.split(dense.real(x), m.num_heads, axis=1) for dense in (q, k))
            found += [row_spread(a, b) for a, b in zip(*heads, strict=True)]
        factors: Floats = wanted * len(samples) / np.maximum(found, 1e-3)
        return factors

    def _mixed_scale(self, mixed: list[list[str]], score: Requant, v_scale: float) -> float:
        """The int8 scale of attention's weighted means."""
        m = self._recipe.model
        fine = Requant.of_scale(2.0**-PROBABILITY_FRACTION_BITS * 2.0**6, INT16)  # the mean of v with 6 fraction bits
        means = []
        for names in mixed:
            for tensors in zip(*(self._sample(name) for name in names), strict=True):
                heads = zip(*(np.split(x, m.num_heads, axis=1) for x in tensors), strict=True)
                means += [f.attention_head(a, b, c, score, fine) for a, b, c in heads]
        return int8_scale(np.concatenate(means) * (v_scale * 2.0**-6))

    def _sample(self, name: str) -> Ints:
        """A tensor's values for as many images as tell enough about attention, which costs most."""
        count = -(-_ATTENTION_TOKENS // self._recipe.num_tokens)
        return self._tape.images(name)[:count]

    def _mlp(self, block: str, lanes: _Lanes) -> _Lanes:
        m, tape = self._recipe.model, self._tape
        normed = self._norms(f"{block}.norm2", lanes)
        rng = self._rng(f"{block}.fc1")
        weight = quantized(heavy_tailed(rng, (m.mlp_hidden, m.embed_dim)), ExpertWeights.INT8)
        sizes, mean = self._argument(rng, m.mlp_hidden)
        dense = fit(weight, tape.rows(normed), profile.ARGUMENT_SIGMA, sizes, mean)
        arguments = tuple(
            self._linear(f"{lane.prefix}{block}.fc1", f"{block}.fc1", name, dense, INT16, GELU_SCALE)
            for lane, name in zip(lanes, normed, strict=True)
        )
        scale = int8_scale(f.gelu_fixed(tape.rows(arguments)) * GELU_SCALE)
        params = GeluParams(Requant.of_scale(GELU_SCALE / scale, INT8))
        hidden = tuple(
            tape.node(f"{lane.prefix}{block}.gelu", OpKind.GELU, (name,), params, INT8, scale)
            for lane, name in zip(lanes, arguments, strict=True)
        )
        return self._branch(f"{block}.fc2", f"{block}.add2", lanes, hidden)

    def _argument(self, rng: np.random.Generator, hidden: int | tuple[int, int]) -> tuple[Floats, Floats]:
        """(sizes, means) of GELU's arguments."""
        return log_normal(rng, hidden, profile.OUTPUT_SPREAD), rng.normal(
            profile.ARGUMENT_MEAN, profile.ARGUMENT_MEAN_SPREAD, hidden
        )

    def _branch(self, linear: str, add: str, lanes: _Lanes, inputs: _Names) -> _Lanes:
        """A layer whose output is added to the residual stream."""
        rng, x = self._rng(linear), self._tape.rows(inputs)
        weight = quantized(heavy_tailed(rng, (self._recipe.model.embed_dim, x.shape[1])), ExpertWeights.INT8)
        dense = fit(weight, x, self._branch_sigma, self._branch_sizes(rng), self._offsets(rng, self._branch_sigma))
        moved = []
        for lane, name in zip(lanes, inputs, strict=True):
            y = self._linear(f"{lane.prefix}{linear}", linear, name, dense, INT16, profile.RESIDUAL_SCALE)
            moved.append(replace(lane, tensor=self._add(f"{lane.prefix}{add}", lane.tensor, y)))
        return tuple(moved)

    # -- experts ---------------------------------------------------------------------------------------------------

    def _experts(self, block: str, lanes: _Lanes) -> _Lanes:
        """A mixture of experts: each task leaves with a stream of its own."""
        tape, owner = self._tape, f"{block}.experts"
        normed = self._norms(f"{block}.norm2", lanes)
        several = len(self._recipe.tasks) > 1
        routed = [
            (_Lane(f"{task.name}." if several else "", (task,), lane.tensor), name)
            for lane, name in zip(lanes, normed, strict=True)
            for task in lane.tasks
        ]
        gates = [self._route(block, lane, name) for lane, name in routed]
        x, g = tape.rows([name for _, name in routed]), tape.rows(gates)
        first, second, hidden_scale = self._expert_layers(owner, x, g)
        params = ExpertsParams(
            tuple(dense.requant(GELU_SCALE, INT16) for dense in first),
            Requant.of_scale(GELU_SCALE / hidden_scale, INT8),
            tuple(dense.requant(profile.RESIDUAL_SCALE, INT16) for dense in second),
        )
        kind = _TERNARY if self._recipe.model.expert_weights is ExpertWeights.TERNARY else INT8
        constants = []
        for number, layer in ((1, first), (2, second)):
            constants.append(tape.constant(f"{owner}.w{number}", np.stack([dense.weight for dense in layer]), kind))
            constants.append(tape.constant(f"{owner}.b{number}", np.stack([dense.bias for dense in layer]), INT32))
        moved = []
        for (lane, name), gate in zip(routed, gates, strict=True):
            inputs = (name, gate, lane.tensor, *constants)
            y = tape.node(f"{lane.prefix}{owner}", OpKind.EXPERTS, inputs, params, INT16, profile.RESIDUAL_SCALE)
            moved.append(replace(lane, tensor=y))
        return tuple(moved)

    def _route(self, block: str, lane: _Lane, x: str) -> str:
        m, tape, (task,) = self._recipe.model, self._tape, lane.tasks
        rng, rows = self._rng(f"{task.name}.{block}.router"), self._tape.rows((x,))
        values = heavy_tailed(rng, (m.num_experts, m.embed_dim))
        weight = quantized(without(values, tape.images(x).mean(axis=1)), ExpertWeights.INT8)
        shares = np.maximum(log_normal(rng, m.num_experts, profile.LOAD_SPREAD), profile.SMALLEST_LOAD)
        dense = fit(
            weight,
            rows,
            profile.LOGIT_SIGMA,
            log_normal(rng, m.num_experts, profile.LOGIT_SPREAD),
            np.zeros(m.num_experts),
        )
        logits = dense.real(rows)
        wanted = balance(logits, m.top_k, shares / shares.sum())
        mean = f.matmul(rows, weight, np.zeros(1, dtype=np.int64)).mean(axis=0)
        dense = replace(dense, bias=bias_for(wanted, dense.scale, mean))
        own = f"{lane.prefix}{block}.router"
        inputs = (
            x,
            tape.constant(f"{own}.weight", dense.weight, INT8),
            tape.constant(f"{own}.bias", dense.bias, INT32),
        )
        params = RouteParams(m.top_k, dense.requant(1.0 / LOGIT_FACTOR, INT16))
        return tape.node(own, OpKind.ROUTE, inputs, params, UINT16, 2.0**-GATE_FRACTION_BITS)

    def _expert_layers(self, owner: str, x: Ints, gates: Ints) -> tuple[list[Dense], list[Dense], float]:
        """Both layers of every expert, and the scale of the hidden activations; x [rows, D], gates [rows, E]."""
        m, rng = self._recipe.model, self._rng(owner)
        shape = (m.num_experts, m.expert_hidden, m.embed_dim)
        w1 = quantized(heavy_tailed(rng, shape), m.expert_weights)
        w2 = quantized(heavy_tailed(rng, (shape[0], shape[2], shape[1])), m.expert_weights)
        sizes, means = self._argument(rng, shape[:2])
        first = [fit(w1[e], x, profile.ARGUMENT_SIGMA, sizes[e], means[e]) for e in range(m.num_experts)]
        queues = [np.nonzero(gates[:, e])[0] for e in range(m.num_experts)]
        arguments = [
            f.requantize(f.matmul(x[queue], d.weight, d.bias), d.requant(GELU_SCALE, INT16))
            for queue, d in zip(queues, first, strict=True)
        ]
        values = [f.gelu_fixed(u) for u in arguments]
        scale = int8_scale(np.concatenate(values) * GELU_SCALE)
        rescale = Requant.of_scale(GELU_SCALE / scale, INT8)
        hidden = [f.requantize(value, rescale) for value in values]
        return first, self._second_layers(rng, w2, hidden, queues, gates), scale

    def _second_layers(
        self, rng: np.random.Generator, w2: Ints, hidden: list[Ints], queues: list[Ints], gates: Ints
    ) -> list[Dense]:
        """The experts' second layers: together, weighted by the gates, they move the residual as any branch does."""
        sizes = [self._branch_sizes(rng) for _ in queues]
        means = [self._offsets(rng, self._branch_sigma) for _ in queues]
        total = np.zeros((len(gates), w2.shape[1]))
        centres = []
        for e, queue in enumerate(queues):
            acc = f.matmul(hidden[e], w2[e], np.zeros(1, dtype=np.int64))
            centres.append(acc.mean(axis=0) if len(queue) else np.zeros(w2.shape[1]))
            total[queue] += (acc - centres[e]) * sizes[e] * gates[queue, e][:, None] * 2.0**-GATE_FRACTION_BITS
        unit = self._branch_sigma / max(float(np.median(total.std(axis=0) / self._sizes)), 1e-3)
        return [
            Dense(w2[e], bias_for(means[e], unit * sizes[e], centres[e]), unit * sizes[e]) for e in range(len(queues))
        ]

    # -- shared parts ----------------------------------------------------------------------------------------------

    def _heads(self, lanes: _Lanes) -> tuple[TaskOutput, ...]:
        """One linear head a task behind the shared last norm."""
        normed = self._norms("norm", lanes)
        heads = [(task, lane, x) for lane, x in zip(lanes, normed, strict=True) for task in lane.tasks]
        return tuple(self._head(task, lane, x) for task, lane, x in heads)

    def _head(self, task: TaskRecipe, lane: _Lane, x: str) -> TaskOutput:
        prefix = f"{task.name}." if len(self._recipe.tasks) > 1 else ""
        rng, rows = self._rng(f"{task.name}.head"), self._tape.rows((x,))
        weight = quantized(heavy_tailed(rng, (task.outputs, rows.shape[1])), ExpertWeights.INT8)
        sigma = profile.CLASS_SIGMA if task.readout is Readout.CLASS else profile.VALUE_SIGMA
        sizes, mean = log_normal(rng, task.outputs, profile.BRANCH_SPREAD), rng.normal(0.0, sigma / 2, task.outputs)
        dense = fit(weight, rows, sigma, sizes, mean)
        y = self._linear(task.name, f"{prefix}head", x, dense, INT16, int16_scale(dense.real(rows)))
        return TaskOutput(task.name, y, task.classes, task.cells, int(self._recipe.model.class_token), task.readout)

    def _norms(self, name: str, lanes: _Lanes) -> _Names:
        """The same norm of every lane."""
        dim, rng = self._recipe.model.embed_dim, self._rng(name)
        gain = log_normal(rng, dim, profile.CHANNEL_SPREAD) * np.where(self._outlier, profile.OUTLIER_GAIN, 1.0)
        bias = rng.normal(0.0, profile.NORM_BIAS, dim)
        x = f.normalise(self._tape.rows([lane.tensor for lane in lanes])) * 2.0**-NORM_FRACTION_BITS
        scale = int8_scale(x * gain + bias)
        integers = norm_integers(name, gain, bias, scale)
        constants = (
            self._tape.constant(f"{name}.gain", integers.gain, INT16),
            self._tape.constant(f"{name}.bias", integers.bias, INT32),
        )
        return tuple(
            self._tape.node(
                f"{lane.prefix}{name}", OpKind.NORM, (lane.tensor, *constants), NormParams(integers.shift), INT8, scale
            )
            for lane in lanes
        )

    def _linear(self, name: str, owner: str, x: str, dense: Dense, out: IntType, scale: float) -> str:
        weight = self._tape.constant(f"{owner}.weight", dense.weight, INT8)
        bias = self._tape.constant(f"{owner}.bias", dense.bias, INT32)
        params = LinearParams(dense.requant(scale, out))
        return self._tape.node(name, OpKind.LINEAR, (x, weight, bias), params, out, scale)

    def _add(self, name: str, stream: str, y: str, row_offset: int = 0) -> str:
        return self._tape.node(name, OpKind.ADD, (stream, y), AddParams(row_offset), INT16, profile.RESIDUAL_SCALE)

    def _rng(self, name: str) -> np.random.Generator:
        return generator(self._seed, name)

    @property
    def _branch_sigma(self) -> float:
        """What each of the 2 * depth branches adds to a typical channel. A shallow model is the start of a deep one."""
        branches = 2 * max(self._recipe.model.depth, profile.STREAM_DEPTH)
        return float(np.sqrt((profile.STREAM_SIGMA**2 - profile.EMBED_SIGMA**2) / branches))

    def _branch_sizes(self, rng: np.random.Generator) -> Floats:
        return self._sizes * log_normal(rng, len(self._sizes), profile.BRANCH_SPREAD)

    def _offsets(self, rng: np.random.Generator, sigma: float) -> Floats:
        return self._sizes * rng.normal(0.0, profile.OFFSET * sigma, len(self._sizes))
