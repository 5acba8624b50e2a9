# SPDX-License-Identifier: Apache-2.0
"""One frame of M3ViT-tiny on one thread: the cpu engine's variants against torch and onnxruntime, side by side.

`python benchmarks/cpu_m3vit_tiny.py [--rounds N]` takes turns in one process, prints medians and the ratio to the
fastest peer, and writes benchmarks/results/cpu_m3vit_tiny.json. It takes a minute and a half, and the first time two to
four minutes more: torch.compile compiles in a process of its own for at most six minutes, and this one finds the
result in torch's cache (where it does not finish, it is left out and the table says so).
Status 1 when the bits differ from the reference, or when the fastest variant is not 3 times as fast as each peer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnxruntime
import torch
import torch._inductor.config as inductor
from common import store
from peers.m3vit import FloatM3ViT, export_onnx, session

from codesign.engines.cpu_plan import plan_task
from codesign.engines.cpu_weights import Packed
from codesign.kernels.native import native, variants
from codesign.reference import run_task
from codesign.spec import Graph
from codesign.spec.patches import to_patches
from codesign.synthesis import count_macs, synthesise

MODEL = Path(__file__).resolve().parent.parent / "models" / "m3vit_tiny.toml"
TASK = "semseg"
SLOW = 0.05
"""Seconds a frame above which fewer rounds do."""
COMPILE_LIMIT = 360
"""Seconds that torch.compile may take."""
TARGET = 3.0
"""Times the speed of the fastest peer."""
_COMPILED = "torch.compile, frozen routing"


def ours(graph: Graph, x: np.ndarray) -> tuple[dict[str, Callable[[], object]], bool]:
    """The engine's variants, and whether all give the reference's bits."""
    expected = run_task(graph, TASK, x)[TASK]
    runs: dict[str, Callable[[], object]] = {}
    exact = True
    for variant in variants():
        plan = plan_task(graph, TASK, Packed(variant))
        exact &= bool(np.array_equal(plan.run({graph.input.name: x})[TASK], expected))
        runs[f"codesign {variant}"] = plan.compute
    return runs, exact


def peers(graph: Graph, x: np.ndarray, folder: Path) -> dict[str, Callable[[], object]]:
    """Float programs of the same model and image on one thread."""
    torch.set_num_threads(1)
    image = torch.from_numpy(x.astype(np.float32) / 128)
    with torch.no_grad():
        dynamic = FloatM3ViT(graph, TASK)
        frozen = FloatM3ViT(graph, TASK, dynamic.frozen_routes(image))
    paths = export_onnx(frozen, image, folder)

    def in_torch(model: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], object]:
        def call() -> object:
            with torch.no_grad():  # inference_mode is no faster, and inductor does not freeze weights in it
                return model(image)

        return call

    compiled = {_COMPILED: in_torch(compiled_of(frozen))} if compiles() else {}

    def in_onnx(path: Path) -> Callable[[], object]:
        one, feed = session(path), {"image": image.numpy()}
        return lambda: one.run(None, feed)

    return {
        "torch eager, dynamic routing": in_torch(dynamic),
        "torch eager, frozen routing": in_torch(frozen),
        **compiled,
        "onnxruntime fp32, frozen routing": in_onnx(paths["float"]),
        "onnxruntime int8 QDQ, frozen routing": in_onnx(paths["qdq"]),
        "onnxruntime DynamicQuantizeMatMul per expert": in_onnx(paths["dynamic"]),
    }


def compiled_of(model: FloatM3ViT) -> Callable[[torch.Tensor], torch.Tensor]:
    """The whole model as one graph; weights are constants, which inductor packs for its products."""
    inductor.freezing = True
    compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(model, dynamic=False, fullgraph=True)
    return compiled


def compile_only() -> None:
    """Fill torch's cache."""
    made = synthesise(MODEL)
    torch.set_num_threads(1)
    image = torch.from_numpy(to_patches(made.test, made.graph.image)[0].astype(np.float32) / 128)
    with torch.no_grad():
        routes = FloatM3ViT(made.graph, TASK).frozen_routes(image)
        compiled_of(FloatM3ViT(made.graph, TASK, routes))(image)


def compiles() -> bool:
    """Whether torch.compile comes to an end in time, in another process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--compile-only"]
    try:
        done = subprocess.run(  # noqa: S603 - this file again, no shell
            command, timeout=COMPILE_LIMIT, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"{_COMPILED}: left out, it did not compile in {COMPILE_LIMIT} s")
        return False
    if done.returncode:
        print(f"{_COMPILED}: left out, it failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return done.returncode == 0


def measure(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    for number in range(rounds):
        for name, run in runs.items():
            if seconds[name] and min(seconds[name]) > SLOW and number % 10:
                continue
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def main() -> int:
    """Run, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--compile-only", action="store_true", help="compile for torch.compile, measure nothing")
    arguments = parser.parse_args()
    if arguments.compile_only:
        compile_only()
        return 0
    rounds = arguments.rounds
    made = synthesise(MODEL)
    x = to_patches(made.test, made.graph.image)[0]
    own, exact = ours(made.graph, x)
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(own | peers(made.graph, x, Path(folder)), rounds)
    macs = count_macs(made.graph, TASK).total
    times = {name: median(each) for name, each in seconds.items()}
    best = min(t for name, t in times.items() if name not in own)
    lead = best / min(times[name] for name in own)
    peaks = {v.value: native().peak_macs_per_second(v.native) for v in variants()}
    rows = {}
    print("| | ms | times the fastest peer's speed | of the core's peak |\n|---|---:|---:|---:|")
    for name, t in sorted(times.items(), key=lambda item: item[1]):
        peak = peaks.get(name.removeprefix("codesign "), 0.0)
        fraction = macs / t / peak if peak else None
        rows[name] = {"milliseconds": t * 1e3, "fastest_ms": min(seconds[name]) * 1e3, "of_peak": fraction}
        share = "" if fraction is None else f"{fraction:.0%} of {peak / 1e9:,.0f} GMAC/s"
        print(f"| {name} | {t * 1e3:.2f} | {best / t:.2f} | {share} |")
    content = {
        "threads": 1,
        "model": made.graph.name,
        "macs": macs,
        "bit_exact": exact,
        "peak_macs_per_second": peaks,
        "runs": rows,
        "speedup_over_fastest_peer": {name: best / times[name] for name in own},
        "rounds": rounds,
        "peers": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    }
    print(f"bit exact: {exact}; stored in {store('cpu_m3vit_tiny', content, 'python benchmarks/cpu_m3vit_tiny.py')}")
    if lead < TARGET:
        print(f"missed: {lead:.2f} times the fastest peer's speed, and {TARGET} are wanted")
    return 0 if exact and lead >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
