# SPDX-License-Identifier: Apache-2.0
"""Float reference of the two ONNX nodes of the project's own domain, for qonnx' executor. NumPy only.

A node's domain is this module's name: qonnx imports it and takes the class called like the node's type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper
from qonnx.custom_op.base import CustomOp
from scipy.special import erf

Array = npt.NDArray[np.float32]

DOMAIN = "codesign.frontend.qonnx_ops"


def gelu(x: Array) -> Array:
    """x times the normal distribution function of x, exactly (no tanh)."""
    return np.asarray(0.5 * x * (1.0 + erf(x / np.sqrt(2.0))), dtype=np.float32)


def route(x: Array, weight: Array, bias: Array, top_k: int) -> Array:
    """Gates [..., E] of tokens [..., D]: softmax over all E experts, zero outside the top k, not renormalised.

    `weight` is [E, D], `bias` [E]. Of equal gates the expert with the smaller index is chosen.
    """
    logits = x @ weight.T + bias
    exps = np.exp(logits - logits.max(axis=-1, keepdims=True))
    gates = exps / exps.sum(axis=-1, keepdims=True)
    chosen = np.argsort(-gates, axis=-1, kind="stable")[..., :top_k]
    kept = np.zeros_like(gates)
    np.put_along_axis(kept, chosen, np.take_along_axis(gates, chosen, axis=-1), axis=-1)
    return np.asarray(kept, dtype=np.float32)


def quantize(x: Array, scale: float, bit_width: int, signed: bool, narrow: bool) -> Array:
    """Round half to even to a multiple of `scale` and saturate, as the QONNX Quant node does with zero point 0."""
    top = 2 ** (bit_width - 1) - 1 if signed else 2**bit_width - 1 - int(narrow)
    low = (-top if narrow else -top - 1) if signed else 0
    step = np.float32(scale)
    return np.asarray(np.clip(np.round(x / step), low, top) * step, dtype=np.float32)


class Router(CustomOp):  # type: ignore[misc]
    """Inputs x [..., D], weight [E, D] (after Quant), bias [E]; output gates [..., E]; attribute top_k."""

    def get_nodeattr_types(self) -> dict[str, tuple[Any, ...]]:
        """Attributes as qonnx wants them: type, required, default, allowed values."""
        return {"top_k": ("i", True, 1)}

    def make_shape_compatible_op(self, model: Any) -> NodeProto:
        """A standard node with the same output shape, for shape inference."""
        return helper.make_node(
            "Einsum", list(self.onnx_node.input[:2]), list(self.onnx_node.output), equation="...d,ed->...e"
        )

    def infer_node_datatype(self, model: Any) -> None:
        """Nothing to infer: the output is float."""

    def execute_node(self, context: dict[str, Array], graph: Any) -> None:
        """Compute the output from the inputs in `context`."""
        x, weight, bias = (context[name] for name in self.onnx_node.input)
        context[self.onnx_node.output[0]] = route(x, weight, bias, self.get_nodeattr("top_k"))

    def verify_node(self) -> None:
        """Nothing beyond what the attributes say."""


class Experts(CustomOp):  # type: ignore[misc]
    """Inputs x [..., D], gates [..., E], w1 [E, H, D], b1 [E, H], w2 [E, D, H], b2 [E, D]; output y [..., D].

    y = sum over e of gate_e * (w2_e . quant(gelu(w1_e . x + b1_e)) + b2_e); the attributes describe quant.
    """

    def get_nodeattr_types(self) -> dict[str, tuple[Any, ...]]:
        """Attributes as qonnx wants them: type, required, default, allowed values."""
        return {
            "hidden_scale": ("f", True, 1.0),
            "hidden_bit_width": ("i", True, 8),
            "hidden_signed": ("i", True, 1, {0, 1}),
            "hidden_narrow": ("i", True, 0, {0, 1}),
        }

    def make_shape_compatible_op(self, model: Any) -> NodeProto:
        """A standard node with the same output shape, for shape inference."""
        return helper.make_node("Identity", list(self.onnx_node.input[:1]), list(self.onnx_node.output))

    def infer_node_datatype(self, model: Any) -> None:
        """Nothing to infer: the output is float."""

    def execute_node(self, context: dict[str, Array], graph: Any) -> None:
        """Compute the output from the inputs in `context`."""
        x, gates, w1, b1, w2, b2 = (context[name] for name in self.onnx_node.input)
        y = np.zeros_like(x)
        for expert in range(len(w1)):
            rows = gates[..., expert] > 0  # an expert that no token chose is never computed
            hidden = quantize(
                gelu(x[rows] @ w1[expert].T + b1[expert]),
                self.get_nodeattr("hidden_scale"),
                self.get_nodeattr("hidden_bit_width"),
                bool(self.get_nodeattr("hidden_signed")),
                bool(self.get_nodeattr("hidden_narrow")),
            )
            y[rows] += gates[rows, expert][:, None] * (hidden @ w2[expert].T + b2[expert])
        context[self.onnx_node.output[0]] = y

    def verify_node(self) -> None:
        """Nothing beyond what the attributes say."""
