# SPDX-License-Identifier: Apache-2.0
"""Routing traces: which experts the tokens of a run chose, with their gates; recorded, or drawn with a seed.

File: magic `CDGTRACE`, bytes of the header (uint32), CRC-32 of header and data (uint32), header (JSON), then per token
and layer `slots` experts (uint16) and then `slots` gates (uint16, 15 fraction bits; 0: slot not used).
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.experts.file.whole import write_whole
from codesign.spec.ops import GATE_FRACTION_BITS

_MAGIC = b"CDGTRACE"
_HEAD = struct.Struct("<8sII")
_MAX = 1 << 31

Choices = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class RoutingTrace:
    """Experts and gates [tokens, layers, slots] of batches of `batches[i]` tokens, one after the other."""

    source: str
    num_experts: int
    batches: tuple[int, ...]
    experts: Choices
    gates: Choices

    def __post_init__(self) -> None:
        if self.experts.shape != self.gates.shape or self.experts.ndim != 3 or not self.experts.size:
            raise InputError(
                f"a trace must have experts and gates [T, L, k], each 1 at least, not {list(self.experts.shape)} and"
                f" {list(self.gates.shape)}; record it again"
            )
        if sum(self.batches) != len(self.experts) or min(self.batches) < 1:
            raise InputError(
                f"a trace's batches must add up to its {len(self.experts)} tokens, not {sum(self.batches)};"
                " record it again"
            )
        if int(self.experts.max()) >= self.num_experts:
            raise InputError(
                f"a trace's experts must be below {self.num_experts}, not {self.experts.max()}; record it again"
            )
        if int(self.gates.max()) > 1 << GATE_FRACTION_BITS:
            raise InputError(f"a trace's gates must be at most 32768, not {self.gates.max()}; record it again")

    @property
    def layers(self) -> int:
        """Mixture layers."""
        return int(self.experts.shape[1])

    def rows(self, batch: int) -> slice:
        """The tokens of a batch."""
        return slice(self._ends[batch] - self.batches[batch], self._ends[batch])

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(self.batches))

    def dense_gates(self, batch: int, layer: int) -> Choices:
        """Gates [T, E] of a batch in a layer."""
        rows = self.rows(batch)
        made: Choices = np.zeros((self.batches[batch], self.num_experts), dtype=np.uint16)
        index = np.arange(self.batches[batch])[:, None]
        np.maximum.at(made, (index, self.experts[rows, layer]), self.gates[rows, layer])
        return made

    def save(self, path: Path) -> None:
        """Write the trace, all of it or nothing. Raises InputError when it cannot be written."""
        facts = {
            "format": "codesign-routing-trace",
            "version": 1,
            "source": self.source,
            "num_experts": self.num_experts,
            "shape": list(self.experts.shape),
            "batches": list(self.batches),
        }
        header = json.dumps(facts).encode()
        data = np.stack([self.experts, self.gates], axis=2).astype("<u2").tobytes()
        head = _HEAD.pack(_MAGIC, len(header), zlib.crc32(data, zlib.crc32(header)))
        write_whole(path, head + header + data, "trace")

    @staticmethod
    def load(path: Path) -> RoutingTrace:
        """Read a trace. Raises InputError for a file that is missing, foreign, truncated or damaged."""
        try:
            if path.exists() and not path.is_file():
                raise InputError(f"trace {path} must be a file, not a folder or a device; record one with --record")
            with path.open("rb") as file:
                head = file.read(_HEAD.size)
                if len(head) < _HEAD.size or head[:8] != _MAGIC:
                    raise InputError(
                        f"trace {path} must begin with {_MAGIC.decode()}, and it does not; record one with --record"
                    )
                content = file.read()
        except OSError as error:
            raise InputError(f"trace {path} must be readable: {error.strerror}; record one with --record") from None
        _, length, crc = _HEAD.unpack(head)
        header, data = content[:length], content[length:]
        if len(header) < length or zlib.crc32(data, zlib.crc32(header)) != crc:
            raise InputError(f"trace {path} must be as it was written, and it is damaged; record it again")
        try:
            return _parse(header, data)
        except InputError as error:
            raise InputError(f"trace {path} must be sound: {error}") from None
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            found = " ".join(str(error).split())
            raise InputError(
                f"trace {path} must have the header of a trace, and it has not: {found}; record it again"
            ) from None


def _parse(header: bytes, data: bytes) -> RoutingTrace:
    facts = json.loads(header)
    if facts["format"] != "codesign-routing-trace" or facts["version"] != 1:
        raise ValueError(f"format {facts['format']} version {facts['version']}")
    tokens, layers, slots = (_integer(n) for n in facts["shape"])
    if len(data) != tokens * layers * 2 * slots * 2:
        raise ValueError(f"{len(data)} bytes of data for shape {facts['shape']}")
    both = np.frombuffer(data, dtype="<u2").astype(np.uint16).reshape(tokens, layers, 2, slots)
    batches = tuple(_integer(n) for n in facts["batches"])
    return RoutingTrace(str(facts["source"]), _integer(facts["num_experts"]), batches, both[:, :, 0], both[:, :, 1])


def _integer(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MAX:
        raise ValueError(f"{value!r} is no count")
    return value


def trace_of_gates(source: str, gates: list[list[Choices]]) -> RoutingTrace:
    """A trace of recorded gates: per batch, per layer [T, E]."""
    num_experts = gates[0][0].shape[1]
    slots = max(int((layer > 0).sum(axis=1).max(initial=1)) for batch in gates for layer in batch)
    experts, values = [], []
    for batch in gates:
        order = [np.argsort(-layer.astype(np.int64), axis=1, kind="stable")[:, :slots] for layer in batch]
        experts.append(np.stack(order, axis=1).astype(np.uint16))
        taken = [np.take_along_axis(layer, at, axis=1) for layer, at in zip(batch, order, strict=True)]
        values.append(np.stack(taken, axis=1).astype(np.uint16))
    batches = tuple(len(batch[0]) for batch in gates)
    return RoutingTrace(source, num_experts, batches, np.concatenate(experts), np.concatenate(values))


@dataclass(frozen=True)
class Skew:
    """How a drawn trace is skewed. Logits are `popularity + drift + noise`, the top_k largest are chosen.

    Popularity falls as a Zipf law (`-zipf * ln(rank)`, ranks permuted per layer); drift is an autoregressive process
    over the tokens of each expert (correlation `memory` from token to token, standard deviation `drift`), which makes
    neighbouring tokens choose alike; noise is Gumbel with scale `noise`. The defaults come as near as they can to
    figures measured on OLMoE-1B-7B (64 experts, top-8; docs/edge.md, section 6).
    """

    zipf: float = 0.3
    memory: float = 0.9
    drift: float = 0.7
    noise: float = 0.45


def drawn_trace(
    layers: int, num_experts: int, top_k: int, batches: tuple[int, ...], seed: int, skew: Skew | None = None
) -> RoutingTrace:
    """A skewed trace with temporal locality. The ranks are those of `seed // 1000`: seeds of one thousand share them.

    Gates are the softmax over all experts of the logits, not renormalised (as OLMoE and M3ViT have it).
    """
    skew = skew or Skew()
    ranks = np.random.default_rng(seed // 1000)
    draws = np.random.default_rng(seed)
    tokens = sum(batches)
    zipf = -skew.zipf * np.log(np.arange(1, num_experts + 1))
    popularity = np.stack([ranks.permutation(zipf) for _ in range(layers)])
    drift = np.empty((tokens, layers, num_experts))
    state = draws.normal(size=(layers, num_experts))
    for t in range(tokens):
        drift[t] = state
        state = skew.memory * state + np.sqrt(1 - skew.memory**2) * draws.normal(size=state.shape)
    logits = popularity + skew.drift * drift + skew.noise * draws.gumbel(size=drift.shape)
    order = np.argsort(-logits, axis=2, kind="stable")[:, :, :top_k]
    odds = np.exp(logits - logits.max(axis=2, keepdims=True))
    share = np.take_along_axis(odds / odds.sum(axis=2, keepdims=True), order, axis=2)
    gates = np.maximum(1, np.floor(share * (1 << GATE_FRACTION_BITS) + 0.5)).astype(np.uint16)
    name = f"drawn: zipf {skew.zipf:g}, memory {skew.memory:g}, drift {skew.drift:g}, noise {skew.noise:g}, seed {seed}"
    return RoutingTrace(name, num_experts, batches, order.astype(np.uint16), gates)
