# SPDX-License-Identifier: Apache-2.0
"""The operators on tensors of a device. Shapes and types are those of `codesign.spec.ops`, but gates are int32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from codesign.errors import InputError
from codesign.kernels.gpu.device import Device, open_device
from codesign.kernels.gpu.weights import Weight
from codesign.reference.tables import EXP2, GELU_DELTA, RECIPROCAL, RSQRT, SILU_DELTA, Table
from codesign.spec.ops import AttentionParams
from codesign.spec.types import INT8, Requant

if TYPE_CHECKING:
    import torch

MAX_TOKENS = 1 << 17
"""Attention's sums are int32: 127 * 128 * 2**17 < 2**31."""
_FEWEST = 32
"""Products of int8 take at least so many inputs."""


@dataclass(frozen=True)
class Tiles:
    """Sizes of the pieces that programs work on; no size changes a bit."""

    rows: tuple[int, ...]
    """Of products: the smallest that holds the rows, or an expert's mean number of pairs, else the last."""
    outputs: int
    inputs: int
    values: int
    """Of operators row by row: about so many values a program."""
    queries: int
    keys: int


DEVICE_TILES = Tiles((16, 32, 64), 64, 128, 1 << 10, 32, 64)
INTERPRETER_TILES = Tiles((16, 64, 256), 256, 256, 1 << 16, 128, 256)
"""Fewer programs: each costs milliseconds."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of token and expert, sorted by expert: what `code.pairs.group` writes."""

    blocks: torch.Tensor
    tokens: torch.Tensor
    gates: torch.Tensor
    slots: torch.Tensor
    tile: int


class Ops:
    """The operators on a device. Inputs are contiguous tensors there; every call gives a new tensor."""

    def __init__(self, device: Device | None = None, tiles: Tiles | None = None) -> None:
        self.device = device or open_device()
        self.tiles = tiles or (INTERPRETER_TILES if self.device.interpreted else DEVICE_TILES)
        from codesign.kernels.gpu.code import attention, gemm, pairs, rows

        self._attention, self._gemm, self._pairs, self._rows = attention, gemm, pairs, rows
        library = self.device.library
        self._int8, self._int16, self._int32 = library.int8, library.int16, library.int32
        self._exp2, self._reciprocal, self._rsqrt, self._gelu, self._silu = (
            self._table(table) for table in (EXP2, RECIPROCAL, RSQRT, GELU_DELTA, SILU_DELTA)
        )
        self._none = self.device.full((1,), 0, library.int32)

    def _table(self, table: Table) -> torch.Tensor:
        return self.device.tensor(np.array(table.values, dtype=np.int32))

    def _rows_a_program(self, columns: int) -> int:
        return max(1, self.tiles.values // columns)

    def row_tile(self, rows: int) -> int:
        """Rows of a product's tile, for a layer's rows or an expert's mean number of pairs."""
        return next((size for size in self.tiles.rows if size >= rows), self.tiles.rows[-1])

    # -- products -----------------------------------------------------------------------------------------------------

    def linear(self, x: torch.Tensor, weight: Weight, out: Requant) -> torch.Tensor:
        """LINEAR [T, K] -> [T, N] of the type of `out`."""
        finish = self._gemm.INT8 if out.out_type == INT8 else self._gemm.INT16
        return self._dense(x, weight, finish, self._int8 if out.out_type == INT8 else self._int16)

    def linear_gelu(self, x: torch.Tensor, weight: Weight, gelu: Requant) -> torch.Tensor:
        """LINEAR to int16, then GELU to int8."""
        return self._dense(x, weight, self._gemm.GELU, self._int8, rescale=gelu)

    def linear_add(self, x: torch.Tensor, weight: Weight, residual: torch.Tensor, row_offset: int) -> torch.Tensor:
        """LINEAR to int16 [T, N], added to the rows of `residual` int16 from `row_offset` on."""
        y = residual.clone()
        added = y[row_offset:]
        self._launch(x, weight, self._gemm.ADD, added, extra=residual[row_offset:])
        return y

    def _dense(
        self, x: torch.Tensor, weight: Weight, finish: Any, dtype: torch.dtype, rescale: Requant | None = None
    ) -> torch.Tensor:
        y = self.device.empty((len(x), weight.packing.outputs), dtype)
        self._launch(x, weight, finish, y, rescale=rescale)
        return y

    def experts(
        self, x: torch.Tensor, weight: Weight, pairs: Pairs, gather: bool, gelu: Requant | None = None,
        gated: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """[pairs, N] of x [T, K] (`gather`) or [pairs, K]: int16, through GELU to int8, or `gated` times the gate."""
        shape = len(pairs.tokens), weight.packing.outputs
        y = self.device.empty(shape, self._int16 if gelu is None else self._int8)
        self.experts_into(y, x, weight, pairs, gather, gelu, gated)
        return y

    def experts_into(
        self, y: torch.Tensor, x: torch.Tensor, weight: Weight, pairs: Pairs, gather: bool, gelu: Requant | None = None,
        gated: bool = False,
    ) -> None:  # fmt: skip
        """As `experts`, for the pairs of the blocks only, into y."""
        finish = self._gemm.GATED if gated else (self._gemm.INT16 if gelu is None else self._gemm.GELU)
        self._launch(x, weight, finish, y, pairs, gather, pairs.gates if gated else None, gelu)

    def _launch(
        self, x: torch.Tensor, weight: Weight, finish: Any, y: torch.Tensor, pairs: Pairs | None = None,
        gather: bool = False, extra: torch.Tensor | None = None, rescale: Requant | None = None,
    ) -> None:  # fmt: skip
        packing, scaling = weight.packing, weight.scaling
        tile = self.row_tile(len(x)) if pairs is None else pairs.tile
        programs = _parts(len(y), tile) if pairs is None else len(pairs.blocks)
        if programs == 0:
            return
        outs = min(self.tiles.outputs, _power(packing.outputs, 16))
        ins = min(self.tiles.inputs, _power(packing.inputs, _FEWEST))
        levels = (*packing.levels, (0, 0), (0, 0))[:3]
        none = self._none
        self._gemm.product[programs, _parts(packing.outputs, outs)](
            x,
            none if pairs is None else pairs.tokens,
            weight.cells,
            weight.places,
            none if pairs is None else pairs.blocks,
            scaling.bias,
            scaling.multiplier,
            scaling.shift,
            none if extra is None else extra,
            self._gelu,
            y,
            len(y),
            packing.inputs,
            packing.outputs,
            *_factors(rescale),
            grouped=pairs is not None,
            gather=gather,
            residual=packing.residual,
            finish=finish,
            offset=packing.offset,
            bits0=levels[0][0],
            bits1=levels[1][0],
            bits2=levels[2][0],
            pos0=levels[0][1],
            pos1=levels[1][1],
            tile=tile,
            outs=outs,
            ins=ins,
        )

    # -- pairs of token and expert ------------------------------------------------------------------------------------

    def pairs(self, gates: torch.Tensor, most: int, scaling: torch.Tensor) -> Pairs:
        """Sort the pairs of gates int32 [T, E], at most `most` of a token. `scaling` int32 [E]: see `code.gemm`.

        Computed on the device: the processor does not wait for the gates.
        """
        tokens, experts = gates.shape
        limit = tokens * most
        tile = self.row_tile(-(-limit // experts))
        blocks = min(limit, limit // tile + min(experts, limit))
        made = Pairs(
            self.device.full((blocks, 4), 0, self._int32),
            self.device.full((limit,), 0, self._int32),
            self.device.empty((limit,), self._int32),
            self.device.full((tokens, most), -1, self._int32),
            tile,
        )
        columns = _power(experts)
        rows = min(_power(tokens), _power(self._rows_a_program(columns)))
        self._pairs.group[(experts,)](
            gates, scaling, made.blocks, made.tokens, made.gates, made.slots, tokens, experts, most,
            rows_a_block=tile, tile=rows, columns=columns,
        )  # fmt: skip
        return made

    def combine(self, residual: torch.Tensor, parts: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """residual int16 [T, D] plus each token's parts int16 [pairs, D] in the order of its slots, saturating."""
        y = self.device.empty(tuple(residual.shape), self._int16)
        rows, width = residual.shape
        columns = min(_power(width), 256)
        tile = _power(self._rows_a_program(columns))
        grid = _parts(rows, tile), _parts(width, columns)
        self._pairs.combine[grid](
            residual, parts, slots, y, rows, width, slots.shape[1], tile=tile, columns=columns
        )  # fmt: skip
        return y

    def silu_into(self, y: torch.Tensor, u: torch.Tensor, pairs: Pairs, requant: Requant) -> None:
        """SILU_GATED for the pairs of the blocks: u int16 [pairs, 2 H] into y int8 [pairs, H]."""
        hidden = y.shape[1]
        columns = min(_power(hidden), max(16, self.tiles.values * 4 // pairs.tile))
        self._rows.silu[len(pairs.blocks), _parts(hidden, columns)](
            u, pairs.blocks, self._silu, y, hidden, *_factors(requant), tile=pairs.tile, columns=columns
        )  # fmt: skip

    # -- row by row ---------------------------------------------------------------------------------------------------

    def norm(self, x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor, shift: int) -> torch.Tensor:
        """NORM: x int16 [T, D], gain int32 [D], bias int32 [D] -> int8."""
        rows, width = x.shape
        columns = _power(width)
        tile = _power(self._rows_a_program(columns))
        y = self.device.empty((rows, width), self._int8)
        self._rows.norm[(_parts(rows, tile),)](
            x, gain, bias, self._rsqrt, y, rows, width, shift, tile=tile, columns=columns
        )  # fmt: skip
        return y

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, params: AttentionParams) -> torch.Tensor:
        """ATTENTION [T, heads * head_dim]. Raises InputError for more than 2**17 tokens."""
        tokens, width = q.shape
        if tokens > MAX_TOKENS:
            raise InputError(
                f"attention must have at most {MAX_TOKENS} tokens on a GPU, not {tokens}; divide the image"
            )
        y = self.device.empty((tokens, width), self._int8)
        tile = min(self.tiles.queries, _power(tokens, 16))
        self._attention.attention[_parts(tokens, tile), params.num_heads](
            q, k, v, self._exp2, self._reciprocal, y, tokens, width, params.head_dim,
            *_factors(params.score), *_factors(params.out),
            tile=tile, columns=min(self.tiles.keys, _power(tokens, _FEWEST)), dims=_power(params.head_dim, _FEWEST),
        )  # fmt: skip
        return y

    def gates(self, logits: torch.Tensor, top_k: int) -> torch.Tensor:
        """Logits int16 [T, E] -> gates int32 [T, E]."""
        rows, experts = logits.shape
        columns = _power(experts)
        tile = _power(self._rows_a_program(columns))
        y = self.device.empty((rows, experts), self._int32)
        self._rows.gates[(_parts(rows, tile),)](
            logits, self._exp2, self._reciprocal, y, rows, experts, top_k, tile=tile, columns=columns
        )  # fmt: skip
        return y

    def gelu(self, u: torch.Tensor, requant: Requant) -> torch.Tensor:
        """GELU int16 -> int8."""
        y = self.device.empty(tuple(u.shape), self._int8)
        self._flat(self._rows.gelu, u.numel(), u, self._gelu, y, u.numel(), *_factors(requant))
        return y

    def add(self, a: torch.Tensor, b: torch.Tensor, row_offset: int) -> torch.Tensor:
        """ADD int16."""
        y = a.clone()
        self._flat(self._rows.add, b.numel(), a[row_offset:], b, y[row_offset:], b.numel())
        return y

    def _flat(self, kernel: Any, count: int, *args: Any) -> None:
        tile = self.tiles.values
        if count:
            kernel[(_parts(count, tile),)](*args, tile=tile)


def _parts(count: int, size: int) -> int:
    return -(-count // size)


def _power(count: int, least: int = 1) -> int:
    """The smallest power of two that is not below."""
    return max(least, 1 << (count - 1).bit_length())


def _factors(requant: Requant | None) -> tuple[int, int]:
    return (0, 1) if requant is None else (requant.multiplier[0], requant.shift[0])
