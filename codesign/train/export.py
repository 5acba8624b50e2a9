# SPDX-License-Identifier: Apache-2.0
"""Checkpoint to QONNX: one file with one output per task, static shapes, readable names.

The graph is what Brevitas' QONNX export of the traced model gives, made smaller: nodes that compute the same thing from
the same inputs are merged, so the tasks share weights, and everything up to the first mixture of experts.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from brevitas.export import export_qonnx
from onnx import ModelProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.fold_constants import FoldConstants
from qonnx.transformation.general import RemoveStaticGraphInputs, RemoveUnusedTensors, SortGraph
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.quant_constant_folding import FoldTransposeIntoQuantInit
from torch import Tensor, nn

from codesign.errors import InputError, reason
from codesign.train.checkpoint import Checkpoint, read_checkpoint
from codesign.train.model import MultiTaskViT
from codesign.train.onnx_cleanup import give_readable_names, merge_initializers, merge_nodes
from codesign.train.onnx_functions import DOMAIN
from codesign.train.quantizers import Mode
from codesign.train.recipe import Recipe

OPSET = 20
IMAGE_MEAN = 128
IMAGE_SCALE = 1.0 / 128.0
_QUANT = "Quant"


class _AllTasks(nn.Module):
    """Every task as its own pass over the trunk, so that each traces to plain single-task nodes."""

    def __init__(self, model: MultiTaskViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(image, (task,)).heads[0] for task in self.model.recipe.tasks)


def export(checkpoint: Path, out: Path) -> Path:
    """Write the checkpoint's model as QONNX and return its path. Raises InputError for a bad checkpoint or output."""
    return write_qonnx(read_checkpoint(checkpoint), out)


def write_qonnx(checkpoint: Checkpoint, out: Path) -> Path:
    """Write a model as QONNX: input `image` [1, 3, H, W], outputs [1, tokens, outputs] named after the tasks."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    model = to_qonnx(checkpoint)
    try:
        onnx.save(model, str(temporary))
        temporary.replace(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{out} must be writable: {reason(error)}; choose another output path") from None
    return out


def to_qonnx(checkpoint: Checkpoint) -> ModelProto:
    """The cleaned QONNX model of a checkpoint."""
    wrapper = ModelWrapper(_trace(checkpoint.model)).transform(RemoveStaticGraphInputs(), cleanup=False)
    merge_initializers(wrapper.graph)
    merge_nodes(wrapper.graph)
    # Without cleanup: qonnx would give every user of a shared tensor its own copy.
    for step in (FoldConstants(exclude_op_types=[_QUANT]), FoldTransposeIntoQuantInit(), SortGraph(), InferShapes()):
        wrapper = wrapper.transform(step, make_deepcopy=False, cleanup=False)
    merge_initializers(wrapper.graph)
    give_readable_names(wrapper.graph)
    wrapper = wrapper.transform(RemoveUnusedTensors(), make_deepcopy=False, cleanup=False)
    model: ModelProto = wrapper.model
    _drop_spare_opsets(model)
    onnx.helper.set_model_props(model, _metadata(checkpoint))
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """The tracing exporter warns that it is the older of two, and that our domain is not ONNX' own; both are meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _trace(model: MultiTaskViT) -> ModelProto:
    shape = model.recipe.model
    model.set_mode(Mode.QUANTIZED, Mode.QUANTIZED)
    model.eval()
    image = torch.zeros(1, 3, shape.image_height, shape.image_width)
    with TemporaryDirectory() as folder, _quiet(), torch.no_grad():
        path = str(Path(folder) / "traced.onnx")
        export_qonnx(
            _AllTasks(model), args=(image,), export_path=path, dynamo=False, opset_version=OPSET,
            input_names=["image"], output_names=[task.value for task in model.recipe.tasks],
            custom_opsets={DOMAIN: 1},
        )  # fmt: skip
        return onnx.load(path)


def _drop_spare_opsets(model: ModelProto) -> None:
    used = {node.domain for node in model.graph.node} | {""}
    entries = {entry.domain: entry.version for entry in model.opset_import if entry.domain in used}
    del model.opset_import[:]
    for domain in sorted(used):
        model.opset_import.append(onnx.helper.make_opsetid(domain, entries.get(domain, 1)))


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """What an importer needs beside the graph, as strings; `codesign.model` is JSON."""
    return {
        "codesign.model": json.dumps(model_facts(checkpoint.recipe), sort_keys=True),
        "codesign.metrics": json.dumps(checkpoint.metrics, sort_keys=True),
        "codesign.recipe": checkpoint.recipe_text,
    }


def model_facts(recipe: Recipe) -> dict[str, object]:
    """Geometry of input and outputs, as it goes into the ONNX file's metadata."""
    shape = recipe.model
    return {
        "format": 1,
        "image": {
            "height": shape.image_height, "width": shape.image_width, "channels": 3, "layout": "NCHW",
            "mean": IMAGE_MEAN, "scale": IMAGE_SCALE,
        },
        "patch": shape.patch, "grid_height": shape.grid_height, "grid_width": shape.grid_width,
        "num_tokens": shape.num_tokens, "class_token_row": 0, "cells": shape.cells, "cell_size": shape.cell_size,
        "embed_dim": shape.embed_dim, "num_heads": shape.num_heads, "depth": shape.depth,
        "num_experts": shape.num_experts, "top_k": shape.top_k, "expert_weights": recipe.quant.expert_weights.value,
        "tasks": [
            {
                "name": task.value, "channels": task.channels, "outputs": shape.head_outputs(task),
                "readout": task.readout.value,
            }
            for task in recipe.tasks
        ],
    }  # fmt: skip
