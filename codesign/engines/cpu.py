# SPDX-License-Identifier: Apache-2.0
"""The integer graph on this processor: native kernels (docs/edge.md, section 2), bit for bit the reference."""

from __future__ import annotations

import numpy as np

from codesign.emit.manifest import ExpertWidth
from codesign.engines.compare import encode
from codesign.engines.cpu_plan import CpuPlan, plan_task
from codesign.engines.cpu_weights import Packed
from codesign.engines.engine import Output, Request
from codesign.kernels.native import choose_variant
from codesign.spec.patches import to_patches


def run(request: Request) -> list[Output]:
    """Plan each task once, then compute every run and lay its tensors out as the machine does.

    Raises InputError without the native module, and for a variant that this processor cannot run.
    """
    graph = request.bundle.graph
    x = to_patches(request.images, graph.image)
    packed = Packed(choose_variant(request.variant))
    plans: dict[tuple[str, ExpertWidth], CpuPlan] = {}
    outputs = []
    for done, one in enumerate(request.runs):
        request.progress(done, len(request.runs))
        key = (one.task, one.width)
        if key not in plans:
            sliced = request.bundle.graph_at(one.width)
            plans[key] = plan_task(sliced, one.task, packed, request.threads, request.traced)
        computed = plans[key].run({graph.input.name: x[one.image]})
        values = {name: rows.astype(np.int64) for name, rows in computed.items()}
        task = request.bundle.task(one.task, one.width)
        if request.traced:
            outputs.append(Output(encode(task.traced.tensors, values, task.traced.output_bytes)))
        else:
            outputs.append(Output(encode((task.result,), values, task.output_bytes)))
    return outputs
