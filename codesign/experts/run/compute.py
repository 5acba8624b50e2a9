# SPDX-License-Identifier: Apache-2.0
"""What a mixture layer computes on, and its constants as the native module takes them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.experts.file.store import Store
from codesign.kernels.native import checked_threads, choose_variant, native
from codesign.reference.tables import GELU_DELTA, SILU_DELTA
from codesign.spec.moe import RESIDUAL_MULTIPLIER_MAX, Activation, ExpertFormat, MoeLayer, Rescaling

Int8s = npt.NDArray[np.int8]
Int16s = npt.NDArray[np.int16]
Gates = npt.NDArray[np.uint16]
Widths = npt.NDArray[np.uint8]


class Where(StrEnum):
    """What computes: this processor's kernels, or a GPU's (codesign/experts/gpu/runtime.py)."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class Batch:
    """What a layer computes on: x [T, D], gates [T, E], residual [T, D], widths [T, E] (read where a gate is not 0)."""

    x: Int8s
    gates: Gates
    residual: Int16s
    widths: Widths

    def check(self, layer: MoeLayer) -> None:
        """Raise InputError when shapes or types are not the layer's."""
        tokens = len(self.x)
        wanted = (
            ("x", self.x, np.int8, layer.embed_dim),
            ("gates", self.gates, np.uint16, layer.num_experts),
            ("residual", self.residual, np.int16, layer.embed_dim),
            ("widths", self.widths, np.uint8, layer.num_experts),
        )
        for name, array, kind, columns in wanted:
            if array.dtype != kind or array.shape != (tokens, columns):
                raise InputError(
                    f"{name} of layer {layer.name} must be {np.dtype(kind)} [{tokens}, {columns}], not {array.dtype}"
                    f" {list(array.shape)}; convert it"
                )


class Workers:
    """The threads that compute (the caller is one of them), and the variant of the kernels: a name, or the fastest."""

    def __init__(self, threads: int = 1, variant: str | None = None) -> None:
        self.variant = choose_variant(variant)
        self.native = native().MixturePool(checked_threads(threads))


class LayerKernel:
    """A layer of a store, ready to compute. Its blocks are numbered from `base` on, by level, then by expert."""

    def __init__(self, store: Store, number: int, base: int, workers: Workers) -> None:
        layer, kind = store.layers[number], store.kind
        constants = store.constants(number)
        gated = layer.activation is Activation.SILU_GATED
        levels = []
        for at, level in enumerate(kind.levels):
            first, second = store.parts(number, at)
            places = [(part.cells, part.multipliers, part.zeros) for part in (first, second)]
            levels.append((level.bits, level.position, level.trits, *places, second.end, first.end))
        self.layer, self.kind = layer, kind
        self.native = native().MixtureLayer(
            embed_dim=layer.embed_dim,
            hidden=layer.hidden,
            gated=gated,
            multiplier_limit=RESIDUAL_MULTIPLIER_MAX if kind is ExpertFormat.RESIDUAL else 0,
            offset=kind.offset,
            levels=levels,
            widths=list(kind.widths),
            multiplier=layer.hidden_requant.multiplier[0],
            shift=layer.hidden_requant.shift[0],
            table=list((SILU_DELTA if gated else GELU_DELTA).values),
            fc1=_arrays(constants.fc1),
            fc2=_arrays(constants.fc2),
            base=base,
            variant=workers.variant.native,
            pool=workers.native,
        )


def _arrays(by: Rescaling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return by.bias, by.multiplier, by.shift
