# SPDX-License-Identifier: Apache-2.0
"""Other libraries' layers with weights of few bits, as benchmarks/low_bit_gemm.py times them.

Each maker gives one call that takes x through `copies` layers of different random weights, on one thread. Outputs go
to memory that is used again for each layer where the library allows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

Run = Callable[[], object]
_FLOAT_IN = "float32 x, quantized inside; float32 y"


@dataclass(frozen=True)
class Layer:
    """Shape of the layers: y [rows, outputs] = x [rows, inputs] . w^T."""

    outputs: int
    inputs: int


@dataclass(frozen=True)
class Peer:
    """One way of another library. `weight_bytes`: of a layer, scales and zero points included."""

    name: str
    bits: int
    includes: str
    weight_bytes: Callable[[Layer], int]
    make: Callable[[Layer, int], Callable[[int], Run]]
    """(layer, copies) to (rows to one call)."""

    @property
    def quantizes(self) -> bool:
        """It takes float32 x and quantizes it."""
        return self.includes == _FLOAT_IN


def block(layer: Layer) -> int:
    """Largest block of MatMulNBits, up to 128, that divides the inputs: fewest scales."""
    return max(size for size in (16, 32, 64, 128) if layer.inputs % size == 0)


def _session(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], layer: Layer, dtype: int
) -> onnx.ModelProto:
    names = [node.output[0] for node in nodes]
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", dtype, ["rows", layer.inputs])],
        [helper.make_tensor_value_info(name, dtype, ["rows", layer.outputs]) for name in names],
        constants,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _onnx_runs(
    model: onnx.ModelProto, layer: Layer, dtype: type, lut: bool = False, y_type: type | None = None
) -> Callable[[int], Run]:
    out = y_type or dtype
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if lut:
        options.add_session_config_entry("mlas.use_lut_gemm", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def with_rows(rows: int) -> Run:
        x, y = _input(rows, layer, dtype), np.empty((rows, layer.outputs), dtype=out)
        binding = session.io_binding()
        binding.bind_input("x", "cpu", 0, dtype, x.shape, x.ctypes.data)
        for output in session.get_outputs():  # all into the same memory
            binding.bind_output(output.name, "cpu", 0, out, y.shape, y.ctypes.data)
        keep = (x, y)
        return lambda: (session.run_with_iobinding(binding), keep)

    return with_rows


def _input(rows: int, layer: Layer, dtype: type) -> np.ndarray:
    rng = np.random.default_rng(rows)
    if dtype is np.float32:
        return rng.normal(0, 1, (rows, layer.inputs)).astype(np.float32)
    return rng.integers(0, 256, (rows, layer.inputs)).astype(np.uint8).view(dtype)


def _constant(name: str, array: np.ndarray) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(array, name)


def matmul_n_bits(bits: int, lut: bool = False) -> Callable[[Layer, int], Callable[[int], Run]]:
    """onnxruntime's MatMulNBits, symmetric blocks, accuracy_level 4 (int8 products)."""

    def make(layer: Layer, copies: int) -> Callable[[int], Run]:
        rng, size = np.random.default_rng(0), block(layer)
        blocks = layer.inputs // size
        nodes, constants = [], []
        for i in range(copies):
            packed = rng.integers(0, 256, (layer.outputs, blocks, size * bits // 8), dtype=np.uint8)
            scales = rng.uniform(0.01, 0.02, (layer.outputs, blocks)).astype(np.float32)
            constants += [_constant(f"w{i}", packed), _constant(f"s{i}", scales)]
            attributes = {"K": layer.inputs, "N": layer.outputs, "bits": bits, "block_size": size, "accuracy_level": 4}
            node = helper.make_node(
                "MatMulNBits", ["x", f"w{i}", f"s{i}"], [f"y{i}"], domain="com.microsoft", **attributes
            )
            nodes.append(node)
        return _onnx_runs(_session(nodes, constants, layer, TensorProto.FLOAT), layer, np.float32, lut)

    return make


def dynamic_quantize_matmul(layer: Layer, copies: int) -> Callable[[int], Run]:
    """onnxruntime's DynamicQuantizeMatMul: int8 weights, a scale per output."""
    rng, nodes, constants = np.random.default_rng(0), [], []
    for i in range(copies):
        weight = rng.integers(-127, 128, (layer.inputs, layer.outputs), dtype=np.int8)
        scales = rng.uniform(0.01, 0.02, layer.outputs).astype(np.float32)
        constants += [_constant(f"w{i}", weight), _constant(f"s{i}", scales)]
        nodes.append(
            helper.make_node("DynamicQuantizeMatMul", ["x", f"w{i}", f"s{i}"], [f"y{i}"], domain="com.microsoft")
        )
    return _onnx_runs(_session(nodes, constants, layer, TensorProto.FLOAT), layer, np.float32)


def q_linear_matmul(layer: Layer, copies: int) -> Callable[[int], Run]:
    """onnxruntime's QLinearMatMul: uint8 to uint8 with given scales, int8 weights, a scale per output."""
    rng, nodes = np.random.default_rng(0), []
    constants = [
        _constant("xs", np.array(0.02, np.float32)),
        _constant("xz", np.array(128, np.uint8)),
        _constant("ys", np.array(2.0, np.float32)),
        _constant("wz", np.zeros(layer.outputs, np.int8)),
    ]
    for i in range(copies):
        weight = rng.integers(-127, 128, (layer.inputs, layer.outputs), dtype=np.int8)
        scales = rng.uniform(0.01, 0.02, layer.outputs).astype(np.float32)
        constants += [_constant(f"w{i}", weight), _constant(f"s{i}", scales)]
        inputs = ["x", "xs", "xz", f"w{i}", f"s{i}", "wz", "ys", "xz"]
        nodes.append(helper.make_node("QLinearMatMul", inputs, [f"y{i}"]))
    return _onnx_runs(_session(nodes, constants, layer, TensorProto.UINT8), layer, np.uint8)


def quantize_linear(layer: Layer, copies: int) -> Callable[[int], Run]:
    """onnxruntime's DynamicQuantizeLinear: x to uint8, with a scale and a zero point for all of it."""
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], [f"y{i}", f"s{i}", f"z{i}"]) for i in range(copies)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", layer.inputs])
    ys = [helper.make_tensor_value_info(f"y{i}", TensorProto.UINT8, ["rows", layer.inputs]) for i in range(copies)]
    model = helper.make_model(
        helper.make_graph(nodes, "quantize", [x], ys), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    return _onnx_runs(model, Layer(layer.inputs, layer.inputs), np.float32, y_type=np.uint8)


def _torch_runs(calls: Callable[[torch.Tensor], list[Run]], layer: Layer, dtype: torch.dtype) -> Callable[[int], Run]:
    def with_rows(rows: int) -> Run:
        x = torch.from_numpy(_input(rows, layer, np.float32)).to(dtype)
        layers = calls(x)

        def run() -> None:
            with torch.inference_mode():
                for call in layers:
                    call()

        return run

    return with_rows


def torch_int4(layer: Layer, copies: int) -> Callable[[int], Run]:
    """torch._weight_int4pack_mm_for_cpu: bfloat16 x, groups as MatMulNBits' blocks, products in float."""
    rng, size = torch.Generator().manual_seed(0), max(32, block(layer))
    weights = []
    for _ in range(copies):
        codes = torch.randint(0, 16, (layer.outputs, layer.inputs), dtype=torch.int32, generator=rng)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        scales = torch.rand((layer.inputs // size, layer.outputs, 2), generator=rng).to(torch.bfloat16)
        weights.append((packed, scales))
    op = torch.ops.aten._weight_int4pack_mm_for_cpu.default
    return _torch_runs(lambda x: [lambda w=w: op(x, w[0], size, w[1]) for w in weights], layer, torch.bfloat16)


def torch_int8(layer: Layer, copies: int) -> Callable[[int], Run]:
    """torch._weight_int8pack_mm: bfloat16 x, a scale per output, products in float."""
    rng, weights = torch.Generator().manual_seed(0), []
    for _ in range(copies):
        codes = torch.randint(-128, 128, (layer.outputs, layer.inputs), dtype=torch.int8, generator=rng)
        weights.append((codes, torch.rand(layer.outputs, generator=rng).to(torch.bfloat16)))
    op = torch.ops.aten._weight_int8pack_mm.default
    return _torch_runs(lambda x: [lambda w=w: op(x, w[0], w[1]) for w in weights], layer, torch.bfloat16)


def _packed_for_x86(layer: Layer, copies: int) -> list[object]:
    torch.backends.quantized.engine = "x86"
    weights = []
    for i in range(copies):
        values = torch.randn((layer.outputs, layer.inputs), generator=torch.Generator().manual_seed(i))
        scales, zeros = torch.full((layer.outputs,), 0.02), torch.zeros(layer.outputs, dtype=torch.int64)
        weight = torch.quantize_per_channel(values, scales, zeros, 0, torch.qint8)
        weights.append(torch.ops.quantized.linear_prepack(weight, None))
    return weights


def torch_dynamic(layer: Layer, copies: int) -> Callable[[int], Run]:
    """torch.ops.quantized.linear_dynamic, the x86 engine: float32 x quantized inside, a scale per output."""
    weights = _packed_for_x86(layer, copies)
    op = torch.ops.quantized.linear_dynamic.default
    return _torch_runs(lambda x: [lambda w=w: op(x, w, False) for w in weights], layer, torch.float32)


def torch_static(layer: Layer, copies: int) -> Callable[[int], Run]:
    """torch.ops.quantized.linear, the x86 engine: uint8 to uint8 with given scales, a scale per output."""
    weights = _packed_for_x86(layer, copies)
    op = torch.ops.quantized.linear.default

    def calls(x: torch.Tensor) -> list[Run]:
        codes = torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)
        return [lambda w=w: op(codes, w, 2.0, 128) for w in weights]

    return _torch_runs(calls, layer, torch.float32)


def _per_output(bits: int, extra: int) -> Callable[[Layer], int]:
    return lambda layer: layer.outputs * layer.inputs * bits // 8 + extra * layer.outputs


def _per_block(bits: int, extra: int, smallest: int = 16) -> Callable[[Layer], int]:
    def size(layer: Layer) -> int:
        blocks = layer.inputs // max(block(layer), smallest)
        return layer.outputs * (layer.inputs * bits // 8 + extra * blocks)

    return size


PEERS = (
    Peer("onnxruntime MatMulNBits 2", 2, _FLOAT_IN, _per_block(2, 4), matmul_n_bits(2)),
    Peer("onnxruntime MatMulNBits 2 LUT", 2, _FLOAT_IN, _per_block(2, 4), matmul_n_bits(2, lut=True)),
    Peer("onnxruntime MatMulNBits 4", 4, _FLOAT_IN, _per_block(4, 4), matmul_n_bits(4)),
    Peer("onnxruntime MatMulNBits 8", 8, _FLOAT_IN, _per_block(8, 4), matmul_n_bits(8)),
    Peer("onnxruntime DynamicQuantizeMatMul", 8, _FLOAT_IN, _per_output(8, 4), dynamic_quantize_matmul),
    Peer("onnxruntime QLinearMatMul", 8, "uint8 x; uint8 y", _per_output(8, 4), q_linear_matmul),
    Peer("torch int4pack_mm", 4, "bfloat16 x and y, float products", _per_block(4, 4, 32), torch_int4),
    Peer("torch int8pack_mm", 8, "bfloat16 x and y, float products", _per_output(8, 2), torch_int8),
    Peer("torch quantized linear, dynamic", 8, _FLOAT_IN, _per_output(8, 4), torch_dynamic),
    Peer("torch quantized linear, static", 8, "uint8 x; uint8 y", _per_output(8, 4), torch_static),
)
