# SPDX-License-Identifier: Apache-2.0
"""Compiles every kernel for a GPU, which need not be there: `python -m tests.kernels.gpu_targets 80 87 90`.

Prints, for each target, the kernels and the products of int8 on matrix units that they contain, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from codesign.kernels.gpu.code import attention, gemm, pairs, rows
from codesign.kernels.gpu.ops import DEVICE_TILES

WARP = 32
BYTES, SHORTS, WORDS, CODES = "*i8", "*i16", "*i32", "*u8"


@dataclass(frozen=True)
class Variant:
    """A kernel with the types of its pointers, in order; everything else is an int32, or a constant."""

    name: str
    kernel: Any
    pointers: tuple[str, ...]
    constants: dict[str, Any]

    def source(self) -> ASTSource:
        types = iter(self.pointers)
        names = self.kernel.arg_names
        signature = {n: "constexpr" if n in self.constants else next(types, "i32") for n in names}
        return ASTSource(self.kernel, signature=signature, constexprs=self.constants)


def products() -> Iterator[Variant]:
    """Dense layers with every end, and experts in every format."""
    levels = {
        "8": (128, 8, 0, 0, 0, 0),
        "4": (8, 4, 0, 0, 0, 0),
        "2": (1, 2, 0, 0, 0, 0),
        "2+2": (128, 2, 2, 0, 6, 4),
        "nested": (128, 2, 2, 4, 6, 4),
        "residual": (0, 2, 1, 1, 0, 0),
    }
    small, middle, large = DEVICE_TILES.rows
    chosen = [
        ("dense 8 int8", "8", gemm.INT8, False, large), ("dense 2 gelu", "2", gemm.GELU, False, middle),
        ("dense 4 add", "4", gemm.ADD, False, large), ("experts 8 int16", "8", gemm.INT16, True, small),
        ("experts ternary gelu", "2", gemm.GELU, True, small), ("experts 2+2 int16", "2+2", gemm.INT16, True, small),
        ("experts nested gated", "nested", gemm.GATED, True, middle),
        ("experts residual gated", "residual", gemm.GATED, True, small),
    ]  # fmt: skip
    for name, packing, finish, grouped, tile in chosen:
        offset, bits0, bits1, bits2, pos0, pos1 = levels[packing]
        out = BYTES if finish in (gemm.INT8, gemm.GELU) else SHORTS
        extra = SHORTS if finish == gemm.ADD else WORDS
        pointers = (BYTES, WORDS, CODES, "*i64", WORDS, WORDS, WORDS, WORDS, extra, WORDS, out)
        yield Variant(f"product, {name}", gemm.product, pointers, {
            "grouped": grouped, "gather": grouped and finish != gemm.GATED, "residual": packing == "residual",
            "finish": finish.value, "offset": offset, "bits0": bits0, "bits1": bits1, "bits2": bits2, "pos0": pos0,
            "pos1": pos1, "tile": tile, "outs": DEVICE_TILES.outputs, "ins": DEVICE_TILES.inputs,
        })  # fmt: skip


def others() -> Iterator[Variant]:
    """Everything else."""
    yield Variant("norm", rows.norm, (SHORTS, WORDS, WORDS, WORDS, BYTES), {"tile": 4, "columns": 256})
    yield Variant("gates", rows.gates, (SHORTS, WORDS, WORDS, WORDS), {"tile": 16, "columns": 64})
    yield Variant("gelu", rows.gelu, (SHORTS, WORDS, BYTES), {"tile": 1024})
    yield Variant("add", rows.add, (SHORTS, SHORTS, SHORTS), {"tile": 1024})
    yield Variant("silu", rows.silu, (SHORTS, WORDS, WORDS, BYTES), {"tile": 16, "columns": 256})
    sizes = {"tile": DEVICE_TILES.queries, "columns": DEVICE_TILES.keys, "dims": 64}
    yield Variant("attention", attention.attention, (BYTES, BYTES, BYTES, WORDS, WORDS, BYTES), sizes)
    group = {"rows_a_block": 16, "tile": 16, "columns": 64}
    yield Variant("group", pairs.group, (WORDS,) * 6, group)
    yield Variant("combine", pairs.combine, (SHORTS, SHORTS, WORDS, SHORTS), {"tile": 4, "columns": 256})


VARIANTS = (*products(), *others())


def compiled(target: int) -> dict[str, int]:
    """Each kernel compiled to the target's machine code, with the number of its integer matrix instructions."""
    found = {}
    for variant in VARIANTS:
        made = triton.compile(variant.source(), target=GPUTarget("cuda", target, WARP))
        assert len(made.asm["cubin"]) > 0, variant.name
        lines = made.asm["ptx"].splitlines()
        found[variant.name] = sum("mma" in line and ".s32.s8.s8" in line for line in lines)
    return found


if __name__ == "__main__":
    json.dump({target: compiled(int(target)) for target in sys.argv[1:]}, sys.stdout)
