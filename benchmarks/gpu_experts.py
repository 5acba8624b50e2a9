# SPDX-License-Identifier: Apache-2.0
"""The GPU's kernels: experts in packed integers against bf16, M3ViT-tiny, and experts streamed from host memory.

`python benchmarks/gpu_experts.py` times on a CUDA device one OLMoE-shaped mixture layer (2048/1024, 64 experts, top-8,
gated) at 1, 8 and 64 tokens in int8, ternary and nested experts at 2, 4 and 8 bits, against torch bf16 (one product an
expert; torch.bmm over all) and a grouped bf16 Triton kernel in the manner of vLLM's fused_moe; M3ViT-tiny on the cuda
engine; and the streaming of two such layers at budgets of 25, 50 and 100 %. Writes benchmarks/results/gpu_experts.json
with the device's name. Without a CUDA device it ends with status 2. `--check` runs everything once in small, where
TRITON_INTERPRET=1 does as well, prints no time and stores nothing. Times hold the launches from Python, unless
they are said to be of a CUDA graph.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
from common import store as store_results

from codesign.engines.cuda_plan import DeviceWeights, plan_task
from codesign.errors import InputError
from codesign.experts.file.store import Store
from codesign.experts.gpu.blocks import HostBlocks
from codesign.experts.gpu.session import run_gpu_trace
from codesign.experts.pack.fit import FormatChoice
from codesign.experts.pack.sources import pack_layers
from codesign.experts.run.metrics import Metrics
from codesign.experts.run.options import RuntimeOptions
from codesign.experts.run.routing import drawn_trace
from codesign.experts.run.schedule import Order, Schedule
from codesign.experts.run.session import Replay
from codesign.kernels.gpu.device import open_device
from codesign.kernels.gpu.ops import Ops, Pairs
from codesign.kernels.gpu.weights import Packing, Scaling, Weight
from codesign.kernels.layout import padded
from codesign.reference import run_task
from codesign.spec import INT8, Requant
from codesign.spec.moe import ExpertFormat
from codesign.spec.patches import to_patches
from codesign.synthesis import synthesise
from codesign.synthesis.layers import read_layers

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "models" / "olmoe_layers.toml"
FOLDER = ROOT / "build" / "benchmarks" / "streaming"
FORMATS = (
    ("int8", ExpertFormat.INT8, 1), ("ternary", ExpertFormat.TERNARY, 1), ("nested, 2 bits", ExpertFormat.NESTED, 1),
    ("nested, 4 bits", ExpertFormat.NESTED, 2), ("nested, 8 bits", ExpertFormat.NESTED, 3),
)  # fmt: skip
SCHEDULES = (
    Schedule(Order.ON_DEMAND), Schedule(Order.SEQUENTIAL), Schedule(Order.HOTTEST_BIT_FIRST, hits_first=True)
)  # fmt: skip
BUDGETS = (0.25, 0.5, 1.0)
Call = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """Of a mixture layer and the batches it is timed at."""

    embed_dim: int
    hidden: int
    experts: int
    top_k: int
    batches: tuple[int, ...]


OLMOE = Shape(2048, 1024, 64, 8, (1, 8, 64))
SMALL = Shape(64, 32, 4, 2, (1, 3))


def random_experts(ops: Ops, shape: tuple[int, int], kind: ExpertFormat, levels: int, experts: int) -> Weight:
    """Weights of random codes: what they are changes no time."""
    packing = Packing.of_format(shape, kind, levels)
    codes = padded(shape[0], 16) * padded(shape[1], 64)
    sizes = [codes * bits // 8 for bits, _ in packing.levels]
    starts = np.cumsum([0, *sizes])[:-1]
    places = np.arange(experts)[:, None] * sum(sizes) + starts[None, :]
    torch, device = ops.device.library, ops.device
    cells = torch.randint(0, 256, (experts * sum(sizes),), dtype=torch.uint8, device=device.place)
    rq = Requant.of_scale(2.0**-9, INT8)
    scaling = Scaling.of_requants(device, np.zeros((experts, shape[0]), dtype=np.int32), (rq,) * experts)
    return Weight(packing, cells, device.tensor(places.astype(np.int64)), scaling)


def our_layers(ops: Ops, shape: Shape, gates: np.ndarray) -> tuple[dict[str, Call], dict[str, int], Pairs]:
    """A call of each format, the bytes of weights that it reads, and the pairs."""
    device, torch, tokens = ops.device, ops.device.library, len(gates)
    x = torch.randint(-128, 128, (tokens, shape.embed_dim), dtype=torch.int8, device=device.place)
    residual = torch.zeros((tokens, shape.embed_dim), dtype=torch.int16, device=device.place)
    on_device = device.tensor(gates.astype(np.int32))
    activation = Requant.of_scale(2.0**-14, INT8)
    calls: dict[str, Call] = {}
    read: dict[str, int] = {}
    used = int((gates > 0).any(axis=0).sum())
    for name, kind, levels in FORMATS:
        first = random_experts(ops, (2 * shape.hidden, shape.embed_dim), kind, levels, shape.experts)
        second = random_experts(ops, (shape.embed_dim, shape.hidden), kind, levels, shape.experts)
        scaling = device.tensor((np.arange(shape.experts) | levels << 24).astype(np.int32))
        pairs = ops.pairs(on_device, shape.top_k, scaling)

        def call(first: Weight = first, second: Weight = second, pairs: Pairs = pairs) -> object:
            u = ops.experts(x, first, pairs, gather=True)
            h = device.empty((len(u), shape.hidden), torch.int8)
            ops.silu_into(h, u, pairs, activation)
            parts = ops.experts(h, second, pairs, gather=False, gated=True)
            return ops.combine(residual, parts, pairs.slots)

        calls[name] = call
        read[name] = (first.nbytes + second.nbytes) // shape.experts * used
    return calls, read, pairs


def their_layers(ops: Ops, shape: Shape, gates: np.ndarray, pairs: Pairs) -> tuple[dict[str, Call], dict[str, int]]:
    """bf16: the peers."""
    from peers.grouped import FloatExperts

    torch, place = ops.device.library, ops.device.place

    def random(*size: int) -> object:
        return (torch.randn(size, device=place) / size[-1] ** 0.5).to(torch.bfloat16)

    floats = FloatExperts(
        random(shape.experts, 2 * shape.hidden, shape.embed_dim), random(shape.experts, shape.embed_dim, shape.hidden)
    )
    x = random(len(gates), shape.embed_dim)
    chosen = [np.nonzero(column)[0] for column in gates.T]
    most = max(len(rows) for rows in chosen)
    rows, factors = np.zeros((shape.experts, most), dtype=np.int64), np.zeros((shape.experts, most))
    for expert, tokens in enumerate(chosen):
        rows[expert, : len(tokens)], factors[expert, : len(tokens)] = tokens, gates[tokens, expert] / 32768
    all_rows, all_gates = ops.device.tensor(rows), ops.device.tensor(factors).to(torch.bfloat16)
    lists = [(e, all_rows[e, : len(t)], all_gates[e, : len(t)]) for e, t in enumerate(chosen) if len(t)]
    calls: dict[str, Call] = {
        "torch bf16, a product an expert": lambda: floats.matmul_per_expert(x, lists),
        "torch bf16, bmm over all experts": lambda: floats.batched(x, all_rows, all_gates),
        "grouped bf16 kernel (as vLLM's fused_moe)": lambda: floats.sorted_blocks(x, pairs),
    }
    an_expert = (floats.w1.nbytes + floats.w2.nbytes) // shape.experts
    experts = (len(lists), shape.experts, len(lists))
    return calls, {name: an_expert * count for name, count in zip(calls, experts, strict=True)}


def layers(ops: Ops, shape: Shape, timed: bool) -> list[dict[str, object]]:
    """One mixture layer in every way."""
    rows = []
    for tokens in shape.batches:
        gates = drawn_trace(1, shape.experts, shape.top_k, (tokens,), 7).dense_gates(0, 0)
        calls, read, pairs = our_layers(ops, shape, gates)
        others, their_read = their_layers(ops, shape, gates, pairs)
        for name, call in {**calls, **others}.items():
            if not timed:
                call()
                continue
            eager, graph = times(call)
            moved = (read | their_read)[name]
            print(f"{tokens:3} tokens  {name:44} {eager * 1e3:9.1f} us  graph {graph * 1e3:9.1f} us"
                  f"  {moved / graph / 1e6:8.0f} GB/s of weights")  # fmt: skip
            rows.append({"tokens": tokens, "what": name, "microseconds": eager * 1e3, "graph_microseconds": graph * 1e3,
                         "weight_bytes": moved})  # fmt: skip
    return rows


def times(call: Call) -> tuple[float, float]:
    """Median milliseconds, launched from Python and as a CUDA graph."""
    from triton.testing import do_bench, do_bench_cudagraph

    return float(do_bench(call, return_mode="median")), float(do_bench_cudagraph(call, return_mode="median"))


def engine(ops: Ops, timed: bool) -> dict[str, object]:
    """One frame of M3ViT-tiny."""
    made = synthesise(ROOT / "models" / "m3vit_tiny.toml")
    x, task = to_patches(made.test, made.graph.image)[0], "semseg"
    plan = plan_task(made.graph, task, DeviceWeights(ops))
    result = made.graph.output_of(task).tensor
    found = plan.run({made.graph.input.name: x})[result]
    exact = bool(np.array_equal(found, run_task(made.graph, task, x)[result]))
    facts: dict[str, object] = {"model": made.graph.name, "bit_exact": exact}
    if timed:
        from triton.testing import do_bench

        facts["milliseconds"] = float(do_bench(plan.compute, return_mode="median"))
    print(f"M3ViT-tiny: {facts}")
    return facts


def made_store(form: ExpertFormat, count: int, folder: Path) -> Store:
    """Random layers of the recipe, packed once."""
    path = folder / f"olmoe-{count}-{form.value}.experts"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        pack_layers(read_layers(RECIPE).changed(count), FormatChoice(form), path, 0, lambda what, done, total: None)
    return Store.open(path)


def line(row: dict[str, object], m: Metrics) -> str:
    """One row of the printed table."""
    who = f"{row['format']!s:7}{row['budget']:5.0%} {row['schedule']!s:32}"
    times = f"{m.seconds:7.3f} s  copies {m.io_seconds:6.3f}  compute {m.compute_seconds:6.3f}"
    overlap = f"T/ideal {m.ideal_ratio:5.3f}  hidden {m.hidden_fraction:4.0%}  hits {m.hit_rate:4.0%}"
    return f"{who} {times}  {overlap}  {m.read_gb_per_second:5.1f} GB/s"


def streaming(ops: Ops, stores: list[Store], tokens: int, repeat: int) -> list[dict[str, object]]:
    """Decoding from page-locked host memory; the first token is compared with the reference."""
    rows = []
    for store in stores:
        blocks, layer = HostBlocks(store, ops.device), store.layers[0]
        shape = len(store.layers), layer.num_experts, layer.top_k
        trace, hot = drawn_trace(*shape, (1,) * tokens, 1001), drawn_trace(*shape, (256,), 1000)
        first = drawn_trace(*shape, (1,), 1001)
        for budget, schedule in product(BUDGETS, SCHEDULES):
            options = RuntimeOptions(int(blocks.bytes * budget), schedule)
            known = hot if schedule.ahead else None
            run_gpu_trace(blocks, Replay(first, known, check=1), options, ops=ops)
            found = [run_gpu_trace(blocks, Replay(trace, known), options, ops=ops).metrics for _ in range(repeat)]
            median = statistics.median_low(m.seconds for m in found)
            m = next(m for m in found if m.seconds == median)
            rows.append({"format": store.kind.value, "budget": budget, "schedule": str(schedule), **asdict(m)})
            if not ops.device.interpreted:
                print(line(rows[-1], m), flush=True)
    return rows


def check(ops: Ops) -> None:
    """Everything once, in small."""
    sys.path.insert(0, str(ROOT))
    from tests.experts.streaming import layer_of, make_store

    layers(ops, SMALL, timed=False)
    with tempfile.TemporaryDirectory() as folder:
        kinds = (ExpertFormat.INT8, ExpertFormat.NESTED)
        small = [make_store(Path(folder) / k.value, k, (layer_of("a"), layer_of("b"))) for k in kinds]
        streaming(ops, small, 2, 1)
    print("every call ran")


def main() -> int:
    """Run, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=64, help="decoded tokens of the streaming (default 64)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of the streaming (default 3)")
    parser.add_argument("--check", action="store_true", help="everything once, in small, without times")
    given = parser.parse_args()
    try:
        device = open_device()
        if device.interpreted and not given.check:
            raise InputError("times must be taken on a CUDA device, not in the interpreter; unset TRITON_INTERPRET")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    ops = Ops(device)
    if given.check:
        check(ops)
        return 0
    stores = [made_store(form, 2, FOLDER) for form in (ExpertFormat.INT8, ExpertFormat.NESTED)]
    content: dict[str, object] = {
        "device": device.name,
        "triton": version("triton"),
        "layers": layers(ops, OLMOE, timed=True),
        "m3vit_tiny": engine(ops, timed=True),
        "streaming": streaming(ops, stores, given.tokens, given.repeat),
    }
    print(f"stored in {store_results('gpu_experts', content, 'python benchmarks/gpu_experts.py')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
