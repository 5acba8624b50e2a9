# SPDX-License-Identifier: Apache-2.0
"""Every model that cannot be taken gets one line with the offender's name and the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from codesign.errors import InputError
from codesign.frontend import import_qonnx

from .edit import feed_through, node_of, private_input, producer, replace_node, set_attribute, set_value, value_of

Edit = Callable[[ModelProto], None]


def refusal(path: Path) -> str:
    """The one line that importing a file ends in."""
    with pytest.raises(InputError) as caught:
        import_qonnx(path)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_status == 2
    return message


def quant(model: ModelProto, name: str) -> NodeProto:
    return next(n for n in model.graph.node if n.op_type == "Quant" and n.output[0] == name)


def facts(model: ModelProto) -> onnx.StringStringEntryProto:
    both = (*model.graph.metadata_props, *model.metadata_props)
    return next(p for p in both if p.key == "codesign.model")


def change_facts(model: ModelProto, change: Callable[[dict], None]) -> None:
    entry = facts(model)
    content = json.loads(entry.value)
    change(content)
    entry.value = json.dumps(content)


# -- edits -----------------------------------------------------------------------------------------------------------


def relu(model: ModelProto) -> None:
    node = node_of(model, "Gelu")
    replace_node(model, node, helper.make_node("Relu", list(node.input), list(node.output), name="act.Relu"))


def softmax(model: ModelProto) -> None:
    node = node_of(model, "Exp")
    replace_node(model, node, helper.make_node("Softmax", list(node.input), list(node.output), name="att.Softmax"))


def foreign_domain(model: ModelProto) -> None:
    node_of(model, "Gelu").domain = "os.path"


def tanh_gelu(model: ModelProto) -> None:
    set_attribute(node_of(model, "Gelu"), "approximate", "tanh")


def dynamic_batch(model: ModelProto) -> None:
    image = next(v for v in model.graph.input if v.name == "image")
    image.type.tensor_type.shape.dim[0].dim_param = "batch"


def dynamic_output(model: ModelProto) -> None:
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_param = "tokens"


def float_weight(model: ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] == "blocks.0.mlp.fc1.weight.quant")
    node.input[1] = "blocks.0.mlp.fc1.weight"


def float_conv(model: ModelProto) -> None:
    node_of(model, "Conv").input[1] = "patch_embed.weight"


def float_expert(model: ModelProto) -> None:
    node = node_of(model, "Experts")
    node.input[4] = producer(model, node.input[4]).input[0]


def float_activation(model: ModelProto) -> None:
    """fc2 reads GELU's output directly."""
    hidden = quant(model, "blocks.0.mlp.hidden_quant")
    node = next(n for n in model.graph.node if n.op_type == "MatMul" and n.input[0] == hidden.output[0])
    node.input[0] = hidden.input[0]


def weight_bits(bits: float) -> Edit:
    return lambda model: private_input(model, quant(model, "blocks.0.attn.q.weight.quant"), 3, np.array(bits))


def activation_bits(model: ModelProto) -> None:
    private_input(model, quant(model, "blocks.0.attn.q_quant"), 3, np.array(4.0))


def residual_bits(model: ModelProto) -> None:
    private_input(model, quant(model, "blocks.0.residual_quant"), 3, np.array(8.0))


def zero_point(model: ModelProto) -> None:
    private_input(model, quant(model, "blocks.0.norm1_quant"), 2, np.array(3.0))


def unsigned(model: ModelProto) -> None:
    set_attribute(quant(model, "blocks.0.norm1_quant"), "signed", 0)


def floor_rounding(model: ModelProto) -> None:
    set_attribute(quant(model, "blocks.0.norm1_quant"), "rounding_mode", "FLOOR")


def negative_scale(model: ModelProto) -> None:
    private_input(model, quant(model, "blocks.0.norm1_quant"), 1, np.array(-0.5))


def channel_scales(model: ModelProto) -> None:
    private_input(model, quant(model, "blocks.0.norm1_quant"), 1, np.full((1, 1, 64), 0.5))


def wide_ternary(model: ModelProto) -> None:
    set_attribute(producer(model, node_of(model, "Experts").input[2]), "narrow", 0)


def input_scales(model: ModelProto) -> None:
    node = quant(model, "blocks.0.attn.q.weight.quant")
    scale = np.broadcast_to(value_of(model, node.input[1]), (64, 64)) * np.linspace(1, 2, 64)[:, None]
    private_input(model, node, 1, scale)


def bad_value(value: float) -> Edit:
    def edit(model: ModelProto) -> None:
        weight = value_of(model, "blocks.0.mlp.fc1.weight")
        weight[2, 5] = value
        set_value(model, "blocks.0.mlp.fc1.weight", weight)

    return edit


def other_residual_scale(model: ModelProto) -> None:
    node = quant(model, "blocks.0.residual_quant")
    private_input(model, node, 1, value_of(model, node.input[1]) * 2)


def no_facts(model: ModelProto) -> None:
    for props in (model.graph.metadata_props, model.metadata_props):
        del props[:]


def broken_facts(model: ModelProto) -> None:
    facts(model).value = "{"


def external(model: ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "patch_embed.weight")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.ClearField("raw_data")


def probability_scale(model: ModelProto) -> None:
    private_input(model, quant(model, "blocks.0.attn.prob_quant"), 1, np.array(1 / 64))


def wrong_heads(model: ModelProto) -> None:
    """q is split as [head_dim, heads] instead of [heads, head_dim]."""
    reshape = next(n for n in model.graph.node if n.op_type == "Reshape" and n.input[0] == "blocks.0.attn.q_quant")
    transpose = next(n for n in model.graph.node if n.op_type == "Transpose" and n.input[0] == reshape.output[0])
    reshape.input[1] = set_value(model, "shape.wrong", np.array([1, 33, 32, 2], dtype=np.int64))
    set_attribute(transpose, "perm", [0, 3, 1, 2])
    for info in model.graph.value_info:
        if info.name == reshape.output[0]:
            info.type.tensor_type.shape.dim[2].dim_value, info.type.tensor_type.shape.dim[3].dim_value = 32, 2


def padded_conv(model: ModelProto) -> None:
    set_attribute(node_of(model, "Conv"), "strides", [8, 8])


def big_epsilon(model: ModelProto) -> None:
    set_attribute(node_of(model, "LayerNormalization"), "epsilon", 0.5)


def huge_bias(model: ModelProto) -> None:
    set_value(model, "blocks.0.attn.q.bias", np.full(64, 3e9, dtype=np.float32))


def no_experts_chosen(model: ModelProto) -> None:
    set_attribute(node_of(model, "Router"), "top_k", 9)


def hidden_bits(model: ModelProto) -> None:
    set_attribute(node_of(model, "Experts"), "hidden_bit_width", 4)


def post_norm(model: ModelProto) -> None:
    """The MLP of block 2 normalises the stream of block 0."""
    nodes = [n for n in model.graph.node if n.op_type == "LayerNormalization"]
    nodes[3].input[0] = nodes[1].input[0]


def unknown_task(model: ModelProto) -> None:
    change_facts(model, lambda f: f.update(tasks=f["tasks"][:1]))


def wrong_cells(model: ModelProto) -> None:
    change_facts(model, lambda f: f.update(cells=3))


def wrong_patch(model: ModelProto) -> None:
    change_facts(model, lambda f: f.update(patch=8))


def wrong_mean(model: ModelProto) -> None:
    change_facts(model, lambda f: f["image"].update(mean=127))


def path_as_task(model: ModelProto) -> None:
    change_facts(model, lambda f: f["tasks"][0].update(name="../../x"))


def unknown_readout(model: ModelProto) -> None:
    change_facts(model, lambda f: f["tasks"][1].update(readout="sqrt"))


def class_of_one(model: ModelProto) -> None:
    change_facts(model, lambda f: f["tasks"][1].update(readout="class"))


def missing_bias(model: ModelProto) -> None:
    del node_of(model, "Router").input[2]


def two_inputs(model: ModelProto) -> None:
    gelu = node_of(model, "Gelu")
    gelu.input[0] = "second"
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1, 33, 64]))


CASES = [
    (relu, r"node act\.Relu must be an operator that the machine has, not Relu; replace it by one of Quant, Conv, .*"),
    (softmax, r"node att\.Softmax must be an operator that the machine has, not Softmax; .*"),
    (
        foreign_domain,
        r"node blocks\.0\.mlp\.Gelu \(Gelu\) must be of standard ONNX or of .*, not of domain 'os\.path'; .*",
    ),
    (tanh_gelu, r"node blocks\.0\.mlp\.Gelu \(Gelu\) must have approximate='none', not 'tanh'; export exact GELU"),
    (dynamic_batch, r"tensor image must have a static shape, not 'batch' in dimension 0; export with fixed sizes .*"),
    (dynamic_output, r"tensor depth must have a static shape, not 'tokens' in dimension 1; export with fixed sizes .*"),
    (float_weight, r"weight of node .*fc1.* must come from a Quant node, not from constant .*fc1\.weight; quantize it"),
    (float_conv, r"weight of node .* must come from a Quant node, not from constant patch_embed\.weight; quantize it"),
    (float_expert, r"weight of node .*Experts must come from a Quant node, not from constant .*w2.*; quantize it"),
    (
        float_activation,
        r"node blocks\.0\.mlp\.Gelu \(Gelu\) must be followed by a Quant of 8 bits; quantize its output",
    ),
    (weight_bits(4), r"bit width of weight .*q\.weight\.quant must be 2 or 8, signed, not 4; change its quantizer"),
    (weight_bits(2.5), r"bit width of Quant .*q\.weight\.quant must be one whole number, not 2\.5; .*"),
    (activation_bits, r"bit width of Quant blocks\.0\.attn\.q_quant must be 8, not 4; change its quantizer"),
    (residual_bits, r"bit width of Quant blocks\.0\.residual_quant must be 16, not 8; change its quantizer"),
    (zero_point, r"zero point of Quant blocks\.0\.norm1_quant must be 0, not 3; quantize symmetrically"),
    (unsigned, r"Quant blocks\.0\.norm1_quant must be signed over its full range, not signed=0 narrow=0; .*"),
    (floor_rounding, r"rounding mode of Quant blocks\.0\.norm1_quant must be ROUND, not b'FLOOR'; .*"),
    (negative_scale, r"scale of Quant blocks\.0\.norm1_quant must be positive, not -0\.5; train the model again"),
    (channel_scales, r"scale of Quant blocks\.0\.norm1_quant must be one number, not 64; quantize per tensor"),
    (wide_ternary, r"weight blocks\.1\.moe\.w1\.weight\.quant of 2 bits must be narrow \(-1, 0, 1\), not -2\.\.1; .*"),
    (input_scales, r"weight blocks\.0\.attn\.q\.weight\.quant must have one scale per output channel, .*"),
    (bad_value(np.nan), r"tensor blocks\.0\.mlp\.fc1\.weight must be finite, not NaN or Inf in 1 places; train .*"),
    (bad_value(np.inf), r"tensor blocks\.0\.mlp\.fc1\.weight must be finite, not NaN or Inf in 1 places; train .*"),
    (other_residual_scale, r"scale of residual Quant .* must equal that of .*, not .*; use one scale for the whole .*"),
    (
        no_facts,
        r".*model\.onnx must have the metadata 'codesign\.model', which is missing; write it with codesign export",
    ),
    (broken_facts, r"metadata codesign\.model of .*model\.onnx must be JSON; write it with codesign export"),
    (external, r"tensor patch_embed\.weight must lie inside .*model\.onnx, not in another file; save it without .*"),
    (probability_scale, r"Quant blocks\.0\.attn\.prob_quant of the attention probabilities must have 8 bits and .*"),
    (wrong_heads, r"node .* \(Transpose\) must move values as a vision transformer does .*"),
    (padded_conv, r"node .* \(Conv\) must cut the image into whole square patches .*; use a patch embedding"),
    (
        big_epsilon,
        r"node .* \(LayerNormalization\) must normalise the last axis with epsilon <= 0\.0001, not .* 0\.5; .*",
    ),
    (huge_bias, r"bias of weight blocks\.0\.attn\.q\.weight\.quant must fit int32 in units of its scales, not .*; .*"),
    (no_experts_chosen, r"top_k of node .*Router must be in 1\.\.4, not 9; change the recipe"),
    (hidden_bits, r"hidden activation of node .*Experts must be signed full-range int8, not 4 bits, .*; retrain"),
    (
        post_norm,
        r"node .*LayerNormalization must normalise the stream that its branch is added to; use pre-norm blocks",
    ),
    (
        unknown_task,
        r"output depth must be a task of the metadata \(semseg\), not another; write it with codesign export",
    ),
    (wrong_cells, r"output semseg must have cells x cells x channels = 99 columns, as the metadata says, not 44; .*"),
    (wrong_patch, r"image must have the shape of the metadata, .* with patch 8, not .* with patch 16; export it again"),
    (wrong_mean, r"image must be quantized as pixel - 128 with scale .* and mean 127; export it again"),
    (path_as_task, r"metadata field name must be a task's name, not '\.\./\.\./x'; write it with codesign export"),
    (unknown_readout, r"metadata field readout must be one of class, value, log, not 'sqrt'; write it with .*"),
    (class_of_one, r"task depth must have several values a cell to read out a class, .*, not 1 for 'class'; .*"),
    (missing_bias, r"node .*Router must be one of Router with 3 inputs, Experts with 6 inputs, not Router with 2; .*"),
    (two_inputs, r".*model\.onnx must have one input, the image, not 2; export it again"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), CASES, ids=lambda c: getattr(c, "__name__", ""))
def test_one_line(edit: Edit, message: str, model: ModelProto, path: Path) -> None:
    edit(model)
    onnx.save(model, str(path))
    found = refusal(path)
    assert re.fullmatch(message, found), found


def test_structures_the_machine_lacks_are_named(model: ModelProto, path: Path) -> None:
    """A supported operator in a place where the machine has no use for it."""
    feed_through(model, node_of(model, "Exp"), 0, "Erf")
    onnx.save(model, str(path))
    assert "must be exp(scores - row maximum)" in refusal(path)


def test_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.onnx").endswith("there is none; give the path that codesign export wrote")


@pytest.mark.parametrize("content", [b"", b"not onnx at all", b"\x08\x09" * 40])
def test_not_onnx(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert re.search(r"must be a whole ONNX file", refusal(path))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated(part: float, exported: ModelProto, path: Path) -> None:
    content = exported.SerializeToString()
    path.write_bytes(content[: int(len(content) * part)])
    assert "model.onnx must" in refusal(path)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_bytes_never_crash(seed: int, exported: ModelProto, path: Path) -> None:
    """Anything but a graph or an InputError is a bug."""
    content = bytearray(exported.SerializeToString())
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(1, 5)):  # nodes and shapes come before and behind the weights
        content[int(rng.integers(0, 30_000)) * (1 if rng.random() < 0.5 else -1)] = int(rng.integers(0, 256))
    path.write_bytes(bytes(content))
    try:
        import_qonnx(path)
        message = ""
    except InputError as error:
        message = str(error)
    assert "\n" not in message
