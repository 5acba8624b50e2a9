# SPDX-License-Identifier: Apache-2.0
"""An integer M3ViT's float twin in torch, and as ONNX models for onnxruntime.

Weights are the graph's, dequantized: each matrix is scaled to keep its activations near 1, because time, not accuracy,
is measured. Experts are dispatched sparsely: each computes the tokens that chose it, and no others.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torch.nn.functional as F
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from torch import nn

from codesign.spec import AddParams, AttentionParams, Graph, Node, OpKind, RouteParams

Routes = dict[str, tuple[torch.Tensor, ...]]
"""Of each router's output: gates [T, E], then the tokens of every expert."""


class FloatM3ViT(nn.Module):
    """One task of the graph in float. With `routes`, routing is frozen: constant lists of tokens, constant gates."""

    def __init__(self, graph: Graph, task: str, routes: Routes | None = None) -> None:
        super().__init__()
        self.graph_nodes = graph.nodes_of(task)
        self.output = graph.output_of(task).tensor
        self.routes = routes
        self.weights = nn.ParameterDict()
        self.by_name = {node.output.name: node for node in self.graph_nodes}
        values = {c.spec.name: torch.from_numpy(np.array(c.values, dtype=np.float32)) for c in graph.constants}
        for node in self.graph_nodes:
            for name in node.inputs:
                if name in values:
                    self._keep(name, _scaled(name, values[name]))
        self.attention_inputs = set()
        for node in self.graph_nodes:
            if node.kind is OpKind.ATTENTION:  # q, k and v as one product, as float programs have them
                self.attention_inputs |= set(node.inputs)
                parts = [self.by_name[name] for name in node.inputs]
                for index, suffix in ((1, "weight"), (2, "bias")):
                    both = [_scaled(p.inputs[index], values[p.inputs[index]]) for p in parts]
                    self._keep(f"{node.name}.qkv.{suffix}", torch.cat(both))
        self.requires_grad_(False)
        self.eval()

    def _keep(self, name: str, value: torch.Tensor) -> None:
        self.weights[name.replace(".", "_")] = nn.Parameter(value, requires_grad=False)

    def _weight(self, name: str) -> torch.Tensor:
        return self.weights[name.replace(".", "_")]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Patches [P, elements] to the task's output [T, outputs]."""
        values = {"image": image}
        for node in self.graph_nodes:
            if node.output.name not in self.attention_inputs:
                values[node.output.name] = self._apply(node, values)
        return values[self.output]

    def _apply(self, node: Node, values: dict[str, torch.Tensor]) -> torch.Tensor:
        x = [values[n] if n in values else self._weight(n) for n in node.inputs if n not in self.attention_inputs]
        if node.kind is OpKind.LINEAR:
            return F.linear(x[0], x[1], x[2])
        if node.kind is OpKind.GELU:
            return F.gelu(x[0])
        if isinstance(node.params, AddParams):
            offset = node.params.row_offset
            return x[0] + (F.pad(x[1], (0, 0, offset, 0)) if offset else x[1])
        if node.kind is OpKind.NORM:
            return F.layer_norm(x[0], node.output.shape[1:], x[1], x[2])
        if node.kind is OpKind.ATTENTION:
            return self._attention(node, values)
        if node.kind is OpKind.ROUTE:
            return self._route(node, x)
        return self._experts(node, x)

    def _attention(self, node: Node, values: dict[str, torch.Tensor]) -> torch.Tensor:
        assert isinstance(node.params, AttentionParams)
        x = values[self.by_name[node.inputs[0]].inputs[0]]
        qkv = F.linear(x, self._weight(f"{node.name}.qkv.weight"), self._weight(f"{node.name}.qkv.bias"))
        q, k, v = qkv.reshape(node.output.shape[0], 3, node.params.num_heads, node.params.head_dim).permute(1, 2, 0, 3)
        y = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        return y.transpose(0, 1).reshape(node.output.shape)

    def _route(self, node: Node, x: list[torch.Tensor]) -> torch.Tensor:
        assert isinstance(node.params, RouteParams)
        if self.routes is not None:
            return self.routes[node.output.name][0]
        gates = F.softmax(F.linear(x[0], x[1], x[2]), dim=-1)
        top = gates.topk(node.params.top_k, dim=-1)
        return torch.zeros_like(gates).scatter(1, top.indices, top.values)

    def _experts(self, node: Node, x: list[torch.Tensor]) -> torch.Tensor:
        tokens, gates, y, w1, b1, w2, b2 = x
        for e in range(w1.shape[0]):
            if self.routes is not None:
                queue = self.routes[node.inputs[1]][1 + e]
                if len(queue) == 0:
                    continue
            else:
                queue = gates[:, e].nonzero()[:, 0]
            h = F.linear(F.gelu(F.linear(tokens[queue], w1[e], b1[e])), w2[e], b2[e])
            y = y.index_add(0, queue, h * gates[queue, e][:, None])
        return y

    def frozen_routes(self, image: torch.Tensor) -> Routes:
        """How this image is routed."""
        routes: Routes = {}
        values = {"image": image}
        for node in self.graph_nodes:
            if node.output.name not in self.attention_inputs:
                values[node.output.name] = self._apply(node, values)
            if node.kind is OpKind.ROUTE:
                gates = values[node.output.name]
                queues = [gates[:, e].nonzero()[:, 0] for e in range(gates.shape[1])]
                routes[node.output.name] = (gates, *queues)
        return routes


def _scaled(name: str, value: torch.Tensor) -> torch.Tensor:
    if name.endswith("gain"):
        return torch.ones_like(value)
    if value.ndim < 2 or "position" in name or ".b1" in name or ".b2" in name:
        return value / max(1.0, float(value.abs().max())) * 0.1
    return value / max(float(value.std()), 1e-6) / value.shape[-1] ** 0.5


class _Images(CalibrationDataReader):
    def __init__(self, images: list[np.ndarray]) -> None:
        self.images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {"image": image}


def export_onnx(model: FloatM3ViT, image: torch.Tensor, folder: Path) -> dict[str, Path]:
    """The model, its routing frozen, as float ONNX; with QDQ nodes (int8 all over, weights by channel); and with one
    DynamicQuantizeMatMul a product.
    """
    paths = {name: folder / f"{name}.onnx" for name in ("float", "qdq", "dynamic")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (image,),
            str(paths["float"]),
            input_names=["image"],
            output_names=["y"],
            opset_version=17,
            dynamo=False,
        )
    onnx.checker.check_model(onnx.load(paths["float"]))
    reader = _Images([image.numpy() + np.float32(0.01 * i) for i in range(3)])
    logging.getLogger().setLevel(logging.ERROR)  # it recommends a pass that our models do not need
    with contextlib.redirect_stdout(io.StringIO()):
        _quantize(paths, reader)
    return paths


def _quantize(paths: dict[str, Path], reader: CalibrationDataReader) -> None:
    static = {"quant_format": QuantFormat.QDQ, "per_channel": True, "weight_type": QuantType.QInt8}
    quantize_static(paths["float"], paths["qdq"], reader, activation_type=QuantType.QUInt8, **static)
    quantize_dynamic(paths["float"], paths["dynamic"], weight_type=QuantType.QInt8, per_channel=True)


def session(path: Path) -> ort.InferenceSession:
    """onnxruntime on one thread with all its optimizations."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
