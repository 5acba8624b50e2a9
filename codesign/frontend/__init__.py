# SPDX-License-Identifier: Apache-2.0
"""QONNX to the integer graph.

In: an ONNX file with Quant nodes (`codesign export` writes one). Out: a `Graph`, one path per task, with everything
that tasks share present once. Layers: `load` (is the file sound?), `model` (folded constants, shapes, producers),
`quant` (Quant nodes), `match` (structures in float), `lower` (their integer nodes), `builder` (deduplication, names).
"""

from codesign.frontend.importer import import_qonnx, read_metadata

__all__ = ["import_qonnx", "read_metadata"]
