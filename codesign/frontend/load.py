# SPDX-License-Identifier: Apache-2.0
"""Read an ONNX file that nobody vouches for: parse, bound, check. Nothing is executed and no other file is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from codesign.errors import InputError, reason
from codesign.frontend.qonnx_ops import DOMAIN

MAX_FILE_BYTES = 1 << 30
"""Far above any model that fits the boards, below protobuf's own limit of 2 GiB."""

DOMAINS = ("", "ai.onnx", "qonnx.custom_op.general", DOMAIN)
"""Domains a node may have. qonnx imports the module that a domain names, so an unknown one must not reach it."""

_CUSTOM_INPUTS = MappingProxyType({"Router": 3, "Experts": 6})

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def load_model(path: Path) -> ModelProto:
    """The parsed and checked model. Raises InputError (one line, with file or node or tensor) for anything unsound."""
    model = _parse(path, _read(path))
    for node in model.graph.node:
        _check_node(path, node)
    for tensor in _tensors(model):
        _check_tensor(path, tensor)
    _check_interface(path, model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be valid ONNX, not: {first_line(error)}; export it again") from None
    return model


def label(node: NodeProto) -> str:
    """What an error calls a node: its name, or its output if it has none."""
    return str(node.name or (node.output[0] if node.output else "without name"))


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path} must be an ONNX file, and there is none; give the path that codesign export wrote")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(f"{path} must be at most {MAX_FILE_BYTES} bytes, not {size}; export a smaller model")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} must be readable: {reason(error)}; check its permissions") from None


def _parse(path: Path, content: bytes) -> ModelProto:
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise InputError(
            f"{path} must be a whole ONNX file, not truncated or damaged; copy or export it again"
        ) from None
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{path} must be a whole ONNX file with nodes and outputs, not an empty one; export it again")
    if len(model.functions) or len(model.graph.sparse_initializer) or len(model.training_info):
        raise InputError(
            f"{path} must hold plain nodes only, not functions, sparse tensors or training; export it again"
        )
    return model


def _check_node(path: Path, node: NodeProto) -> None:
    for name in (node.name, node.op_type, node.domain, *node.input, *node.output):
        if not isinstance(name, str) or not name.isprintable():  # names go into one-line errors and into files
            raise InputError(f"names in {path} must be printable text, not {name!r}; export it again")
    wanted = _CUSTOM_INPUTS.get(node.op_type) if node.domain == DOMAIN else None
    if node.domain == DOMAIN and len(node.input) != wanted:  # onnx' checker knows the standard operators only
        known = ", ".join(f"{name} with {count} inputs" for name, count in _CUSTOM_INPUTS.items())
        raise InputError(
            f"node {label(node)} must be one of {known}, not {node.op_type} with {len(node.input)}; export it again"
        )
    if node.domain not in DOMAINS:
        known = ", ".join(d for d in DOMAINS if d)
        raise InputError(
            f"node {label(node)} ({node.op_type}) must be of standard ONNX or of {known}, not of domain"
            f" {node.domain!r}; replace it"
        )
    for attribute in node.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            raise InputError(
                f"node {label(node)} must not branch or loop, as {node.op_type} does; export a static model"
            )


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t


def _check_tensor(path: Path, tensor: TensorProto) -> None:
    name = tensor.name or "of a Constant node"
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise InputError(f"tensor {name} must lie inside {path}, not in another file; save it without external data")
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise InputError(f"tensor {name} must match its shape: {first_line(error)}; export the model again") from None
    if tensor.data_type in _FLOATS and not np.isfinite(values.astype(np.float64)).all():
        count = int((~np.isfinite(values.astype(np.float64))).sum())
        raise InputError(f"tensor {name} must be finite, not NaN or Inf in {count} places; train the model again")


def _check_interface(path: Path, model: ModelProto) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    used = {name for node in model.graph.node for name in node.input}  # old exporters list spent weights as inputs
    inputs = [value for value in model.graph.input if value.name not in constants and value.name in used]
    if len(inputs) != 1:
        raise InputError(f"{path} must have one input, the image, not {len(inputs)}; export it again")
    for value in (*inputs, *model.graph.output):
        for position, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value <= 0:
                found = dim.dim_param or "unknown"
                raise InputError(
                    f"tensor {value.name} must have a static shape, not {found!r} in dimension {position};"
                    " export with fixed sizes and batch 1"
                )
