# SPDX-License-Identifier: Apache-2.0
"""Checks and derivations over the integer graph.

In: a `Graph`. Out: verdicts (`verify`: shapes, types and limits of every node) and numbers (`bounds`: worst-case ranges
and accumulator widths), and the graph with sliced experts (`slices`).
"""

from codesign.passes.bounds import NodeBounds, accumulator_bits, graph_bounds
from codesign.passes.slices import slice_experts
from codesign.passes.verify import verify

__all__ = ["NodeBounds", "accumulator_bits", "graph_bounds", "slice_experts", "verify"]
