# SPDX-License-Identifier: Apache-2.0
"""The NumPy reference as an engine: the judge of the others; itself it is held against the bundle's golden buffers."""

from __future__ import annotations

from codesign.engines.compare import encode
from codesign.engines.engine import Output, Request
from codesign.reference import run_task
from codesign.spec.patches import to_patches


def run(request: Request) -> list[Output]:
    """Compute every run and lay its tensors out as the machine does."""
    x = to_patches(request.images, request.bundle.graph.image)
    outputs = []
    for done, one in enumerate(request.runs):
        request.progress(done, len(request.runs))
        task = request.bundle.task(one.task, one.width)
        values = run_task(request.bundle.graph_at(one.width), one.task, x[one.image])
        if request.traced:
            outputs.append(Output(encode(task.traced.tensors, values, task.traced.output_bytes)))
        else:
            outputs.append(Output(encode((task.result,), values, task.output_bytes)))
    return outputs
