# SPDX-License-Identifier: Apache-2.0
"""The contract that every engine obeys: integer types, operators, and the integer graph.

In: nothing (this package imports only `errors`). Out: `IntType`, `Requant`, `TensorSpec`, `OpKind` with one parameter
dataclass per operator, `Node`, `Graph`. The formulas stand in `ops.py`; `codesign.reference` computes them.
"""

from codesign.spec.graph import Constant, Graph, ImageSpec, Node, Readout, TaskOutput
from codesign.spec.ops import (
    AddParams,
    AttentionParams,
    ExpertsParams,
    GeluParams,
    LinearParams,
    NormParams,
    OpKind,
    OpParams,
    RouteParams,
)
from codesign.spec.types import INT8, INT16, INT32, UINT16, IntType, Requant, Rounding, TensorSpec

__all__ = [
    "INT8",
    "INT16",
    "INT32",
    "UINT16",
    "AddParams",
    "AttentionParams",
    "Constant",
    "ExpertsParams",
    "GeluParams",
    "Graph",
    "ImageSpec",
    "IntType",
    "LinearParams",
    "Node",
    "NormParams",
    "OpKind",
    "OpParams",
    "Readout",
    "Requant",
    "Rounding",
    "RouteParams",
    "TaskOutput",
    "TensorSpec",
]
