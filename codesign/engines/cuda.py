# SPDX-License-Identifier: Apache-2.0
"""The integer graph on a GPU, or slowly in Triton's interpreter (docs/edge.md, section 7): the reference's bits."""

from __future__ import annotations

from codesign.emit.manifest import ExpertWidth
from codesign.engines.compare import encode
from codesign.engines.cuda_plan import CudaPlan, DeviceWeights, plan_task
from codesign.engines.engine import Output, Request
from codesign.kernels.gpu.ops import Ops
from codesign.spec.patches import to_patches


def run(request: Request) -> list[Output]:
    """Plan each task once, then compute every run and lay its tensors out as the machine does.

    Raises InputError without torch, Triton or a device (`codesign.kernels.gpu.device.open_device`).
    """
    graph = request.bundle.graph
    x = to_patches(request.images, graph.image)
    plans: dict[tuple[str, ExpertWidth], CudaPlan] = {}
    weights: dict[ExpertWidth, DeviceWeights] = {}
    ops = Ops()
    outputs = []
    for done, one in enumerate(request.runs):
        request.progress(done, len(request.runs))
        key = (one.task, one.width)
        if key not in plans:
            own = weights.setdefault(one.width, DeviceWeights(ops))
            plans[key] = plan_task(request.bundle.graph_at(one.width), one.task, own, request.traced)
        values = plans[key].run({graph.input.name: x[one.image]})
        task = request.bundle.task(one.task, one.width)
        tensors, size = (
            (task.traced.tensors, task.traced.output_bytes) if request.traced else ((task.result,), task.output_bytes)
        )
        outputs.append(Output(encode(tensors, values, size), device=ops.device.name))
    return outputs
