# SPDX-License-Identifier: Apache-2.0
"""M3ViT in small (Liang et al. 2022), quantization-aware: one trunk, experts on odd blocks, one gate and head a task.

Every forward pass can serve several tasks. They share the computation until the first mixture of experts, after which
each task has its own copy of the tokens along the batch dimension, because its own gates decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codesign.train import onnx_functions
from codesign.train.fused import fake_quant_attention
from codesign.train.quantizers import (
    WEIGHT_QUANTIZERS,
    ActQuant,
    ExpertWeight,
    Linear,
    Mode,
    PatchConv,
    image8,
    learned8,
    learned16,
    probability8,
)
from codesign.train.recipe import HEAD_DIM, ExpertWeights, ModelRecipe, Recipe, Task

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class Output:
    """Head outputs [batch, tokens, outputs], one per task asked for, and the summed balance loss (training only)."""

    heads: tuple[Tensor, ...]
    balance: Tensor


@dataclass(frozen=True)
class Share:
    """The part of a batch that one task computes: the task's index and its number of images."""

    task: int
    images: int


def _split(x: Tensor, shares: Sequence[Share]) -> Sequence[Tensor]:
    """The tasks' parts of a batch that holds them one after the other."""
    if len(shares) == 1:
        return [x]  # an exported graph has no slice for this
    return torch.split(x, [share.images for share in shares])


class Attention(nn.Module):
    """Multi-head attention whose unnormalised, quantized probabilities are divided by their sum after P times V."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (Linear(dim, dim) for _ in range(4))
        self.q_quant, self.k_quant, self.v_quant, self.out_quant = (learned8() for _ in range(4))
        self.prob_quant = probability8()

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, HEAD_DIM).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape out as in."""
        q = self._split(self.q_quant(self.q(x)))
        k = self._split(self.k_quant(self.k(x)))
        v = self._split(self.v_quant(self.v(x)))
        if self.prob_quant.mode is Mode.QUANTIZED and self.training:
            out = fake_quant_attention(q, k, v, self.prob_quant.scale())
        elif self.prob_quant.mode is Mode.QUANTIZED:
            scores = q @ k.transpose(-2, -1) / math.sqrt(HEAD_DIM)
            exps = self.prob_quant(torch.exp(scores - scores.detach().amax(dim=-1, keepdim=True)))
            out = (exps @ v) / exps.sum(dim=-1, keepdim=True)
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        out = self.out_quant(out.transpose(1, 2).reshape(x.shape))
        return self.proj(out)  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Linear, GELU, int8, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = Linear(dim, hidden), Linear(hidden, dim)
        self.hidden_quant = learned8()

    def forward(self, x: Tensor) -> Tensor:
        """The same shape out as in."""
        return self.fc2(self.hidden_quant(F.gelu(self.fc1(x))))  # type: ignore[no-any-return]


def cv_squared(x: Tensor) -> Tensor:
    """Squared coefficient of variation of a vector (Shazeer et al. 2017, equation 7)."""
    return x.var() / (x.mean().square() + 1e-10)


class MixtureOfExperts(nn.Module):
    """One router per task over shared experts: softmax over all experts, then the top k, not renormalised."""

    def __init__(self, shape: ModelRecipe, num_tasks: int, weights: ExpertWeights) -> None:
        super().__init__()
        experts, dim, hidden = shape.num_experts, shape.embed_dim, shape.expert_hidden
        self.experts, self.top_k = experts, shape.top_k
        self.routers = nn.ModuleList(Linear(dim, experts) for _ in range(num_tasks))
        self.w1 = ExpertWeight(experts, hidden, dim, weights)
        self.b1 = nn.Parameter(torch.zeros(experts, hidden))
        self.w2 = ExpertWeight(experts, dim, hidden, weights)
        self.b2 = nn.Parameter(torch.zeros(experts, dim))
        self.hidden_quant = learned8()

    def forward(self, x: Tensor, shares: Sequence[Share]) -> tuple[Tensor, Tensor]:
        """Tokens [sum of the shares, tokens, dim], task by task; returns y of that shape and the loss."""
        if torch.onnx.is_in_onnx_export():
            return self._exported(x, shares), x.new_zeros(())
        picks, values, balance = [], [], x.new_zeros(())
        for part, share in zip(_split(x, shares), shares, strict=True):
            pick, value, loss = self._route(part.flatten(0, 1), share.task)
            picks.append(pick)
            values.append(value)
            balance = balance + loss
        y = self._dispatch(x.flatten(0, 1), torch.cat(picks), torch.cat(values))
        return y.view(x.shape), balance

    def _route(self, x: Tensor, task: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [n, dim]: the chosen experts [n, k], their gates [n, k] and the balance loss."""
        clean: Tensor = self.routers[task](x)
        if not self.training:
            values, picks = clean.softmax(dim=-1).topk(self.top_k, dim=-1)
            return picks, values, clean.new_zeros(())
        # Noise only makes the choice explore, and its distribution makes the load differentiable (Shazeer et al.
        # 2017, appendix A); M3ViT fixes its size to 1 / experts.
        std = 1.0 / self.experts
        noisy = clean + torch.randn_like(clean) * std
        gates = noisy.softmax(dim=-1)
        top, order = noisy.topk(min(self.top_k + 1, self.experts), dim=-1)
        picks = order[:, : self.top_k]
        values = gates.gather(1, picks)
        importance = torch.zeros_like(gates).scatter(1, picks, values).sum(0)
        balance = cv_squared(importance)
        if self.top_k < self.experts:
            balance = balance + cv_squared(self._load(clean, noisy, top, std))
        return picks, values, balance

    def _load(self, clean: Tensor, noisy: Tensor, top: Tensor, std: float) -> Tensor:
        """Expected tokens per expert [experts]: the probability that fresh noise keeps it among the top k."""
        inside = noisy > top[:, self.top_k :]
        threshold = torch.where(inside, top[:, self.top_k :], top[:, self.top_k - 1 : self.top_k])
        load: Tensor = torch.special.ndtr((clean - threshold) / std).sum(0)
        return load

    def _dispatch(self, x: Tensor, picks: Tensor, values: Tensor) -> Tensor:
        """Tokens [n, dim] through their k experts, weighted and summed; tokens are grouped expert by expert."""
        flat = picks.flatten()
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=self.experts).tolist()
        grouped = x.index_select(0, order // self.top_k)
        hidden = self.hidden_quant(F.gelu(_grouped_linear(grouped, self.w1(), self.b1, counts)))
        out = _grouped_linear(hidden, self.w2(), self.b2, counts)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return (out.index_select(0, back).view(len(x), self.top_k, -1) * values.unsqueeze(-1)).sum(1)

    def _exported(self, x: Tensor, shares: Sequence[Share]) -> Tensor:
        (share,) = shares
        router = self.routers[share.task]
        assert isinstance(router, Linear)
        gates = onnx_functions.router(x, router.quantized(), router.bias, self.top_k)
        quant = onnx_functions.HiddenQuant(
            scale=float(self.hidden_quant.scale()),
            bit_width=self.hidden_quant.bit_width,
            narrow=self.hidden_quant.narrow,
        )
        return onnx_functions.experts(x, gates, self.w1(), self.b1, self.w2(), self.b2, quant)


def _grouped_linear(x: Tensor, weight: Tensor, bias: Tensor, counts: list[int]) -> Tensor:
    parts = torch.split(x, counts)
    return torch.cat([F.linear(part, weight[e], bias[e]) for e, part in enumerate(parts)])


class Block(nn.Module):
    """Pre-norm transformer block; `residual_quant` is the one quantizer of the whole residual stream."""

    def __init__(self, recipe: Recipe, index: int) -> None:
        super().__init__()
        shape = recipe.model
        self.copies = shape.is_moe(index) and not any(shape.is_moe(i) for i in range(index))
        self.norm1, self.norm2 = (nn.LayerNorm(shape.embed_dim, eps=LAYER_NORM_EPS) for _ in range(2))
        self.norm1_quant, self.norm2_quant = learned8(), learned8()
        self.attn = Attention(shape.embed_dim, shape.num_heads)
        self.mlp: Mlp | None = None
        self.moe: MixtureOfExperts | None = None
        if shape.is_moe(index):
            self.moe = MixtureOfExperts(shape, len(recipe.tasks), recipe.quant.expert_weights)
        else:
            self.mlp = Mlp(shape.embed_dim, shape.mlp_hidden)

    def forward(self, x: Tensor, shares: Sequence[Share], residual_quant: ActQuant) -> tuple[Tensor, Tensor]:
        """Tokens in, tokens and balance loss out; the first mixture of experts copies its tokens for every task."""
        x = residual_quant(x + self.attn(self.norm1_quant(self.norm1(x))))
        if self.copies and len(shares) > 1:
            x = torch.cat([x[: share.images] for share in shares])
        y = self.norm2_quant(self.norm2(x))
        if self.moe is not None:
            y, balance = self.moe(y, shares)
        else:
            assert self.mlp is not None
            y, balance = self.mlp(y), y.new_zeros(())
        return residual_quant(x + y), balance


def _waves(shape: ModelRecipe) -> Tensor:
    """Initial positions [1, tokens, dim]: sines and cosines of row and column; row 0, the class token, starts at 0."""
    quarter = shape.embed_dim // 4
    rates = 100.0 ** (-torch.arange(quarter) / quarter)
    rows = torch.arange(shape.grid_height)[:, None] * rates
    cols = torch.arange(shape.grid_width)[:, None] * rates
    rows = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None].expand(-1, shape.grid_width, -1)
    cols = torch.cat([cols.sin(), cols.cos()], dim=1)[None].expand(shape.grid_height, -1, -1)
    patches = torch.cat([rows, cols], dim=2).reshape(1, shape.num_tokens - 1, shape.embed_dim)
    return 0.5 * F.pad(patches, (0, 0, 1, 0))


class MultiTaskViT(nn.Module):
    """Image float [batch, 3, height, width] with values (u8 - 128) / 128 to head outputs [batch, tokens, outputs].

    Row 0 of an output belongs to the class token and means nothing; row 1 + r * grid_width + c belongs to the patch in
    row r and column c, and holds cells x cells x channels values, channel last.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        shape = recipe.model
        self.image_quant = image8()
        self.patch_embed = PatchConv(shape.embed_dim, shape.patch)
        self.pos_embed = nn.Parameter(_waves(shape))
        self.residual_quant = learned16()
        self.blocks = nn.ModuleList(Block(recipe, i) for i in range(shape.depth))
        self.norm = nn.LayerNorm(shape.embed_dim, eps=LAYER_NORM_EPS)
        self.norm_quant = learned8()
        self.heads = nn.ModuleList(Linear(shape.embed_dim, shape.head_outputs(task)) for task in recipe.tasks)
        self.head_quants = nn.ModuleList(learned16() for _ in recipe.tasks)
        # Sixteen bits leave room to spare: these ranges are calibrated with headroom and stay constant.
        for quant in self.constant_quants():
            quant.parameter.requires_grad_(False)

    def embed(self, images: Tensor) -> Tensor:
        """Tokens [batch, num_tokens, embed_dim] with position."""
        shape = self.recipe.model
        grid = self.patch_embed(self.image_quant(images))
        patches = grid.reshape(-1, shape.embed_dim, shape.num_tokens - 1).transpose(1, 2)
        no_patch = torch.zeros(images.shape[0], 1, shape.embed_dim)
        tokens = torch.cat([no_patch, patches], dim=1) + self.residual_quant(self.pos_embed)
        return self.residual_quant(tokens)  # type: ignore[no-any-return]

    def forward(self, images: Tensor, tasks: Sequence[Task], counts: Sequence[int] | None = None) -> Output:
        """Head outputs of the tasks, in their order, each of its first `counts` images (default: of all)."""
        counts = counts or [len(images)] * len(tasks)
        shares = [Share(self.recipe.tasks.index(t), n) for t, n in zip(tasks, counts, strict=True)]
        x = self.embed(images)
        balance = x.new_zeros(())
        for block in self.blocks:
            x, loss = block(x, shares, self.residual_quant)
            balance = balance + loss
        x = self.norm_quant(self.norm(x))
        copied = any(self.recipe.model.is_moe(i) for i in range(len(self.blocks)))
        parts = _split(x, shares) if copied else [x[: share.images] for share in shares]
        heads = [self.head_quants[s.task](self.heads[s.task](part)) for s, part in zip(shares, parts, strict=True)]
        return Output(tuple(heads), balance)

    def set_mode(self, weights: Mode, activations: Mode) -> None:
        """Switch the quantizers of the weights and of the activations."""
        for module in self.modules():
            if isinstance(module, WEIGHT_QUANTIZERS):
                module.mode = weights
            elif isinstance(module, ActQuant):
                module.mode = activations

    def act_quants(self) -> Iterator[ActQuant]:
        """The activation quantizers with a range to calibrate."""
        for module in self.modules():
            if isinstance(module, ActQuant) and module.learned:
                yield module

    def constant_quants(self) -> tuple[ActQuant, ...]:
        """The 16-bit quantizers, whose ranges are never trained."""
        return tuple(q for q in self.act_quants() if q.bit_width == 16)


def macs_per_image(recipe: Recipe, task: Task) -> int:
    """Multiply-accumulates of one task on one image, attention products included."""
    m = recipe.model
    tokens, dim = m.num_tokens, m.embed_dim
    total = (tokens - 1) * 3 * m.patch * m.patch * dim + tokens * dim * m.head_outputs(task)
    for block in range(m.depth):
        total += 4 * tokens * dim * dim + 2 * tokens * tokens * dim
        if m.is_moe(block):
            total += tokens * dim * m.num_experts + 2 * m.top_k * tokens * dim * m.expert_hidden
        else:
            total += 2 * tokens * dim * m.mlp_hidden
    return total
