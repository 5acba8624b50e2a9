# SPDX-License-Identifier: Apache-2.0
"""A real exported model becomes the right graph, and the same graph however an exporter writes the structures down."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

from codesign.frontend import import_qonnx, read_metadata
from codesign.passes import verify
from codesign.reference import run_graph
from codesign.spec import INT8, Graph, IntType, OpKind, Readout
from codesign.train.digitscenes import Split, scenes

from .edit import feed_through, insert_before, node_of, replace_node, set_attribute, set_value, value_of

BLOCK = ("norm1", "q", "k", "v", "attention", "proj", "add1", "norm2")
MLP, EXPERTS = ("fc1", "gelu", "fc2", "add2"), ("router", "experts")


def save_and_import(model: ModelProto, path: Path) -> Graph:
    onnx.save(model, str(path))
    return import_qonnx(path)


def same(a: Graph, b: Graph) -> bool:
    """Equal structure, parameters and constants."""
    values = all(
        np.array_equal(x.values, y.values) and x.spec == y.spec for x, y in zip(a.constants, b.constants, strict=True)
    )
    return values and (a.nodes, a.outputs, a.image, a.input) == (b.nodes, b.outputs, b.image, b.input)


def patches(graph: Graph, image: np.ndarray) -> np.ndarray:
    p = graph.image.patch
    rows, columns = graph.image.height // p, graph.image.width // p
    cut = (image.astype(np.int64) - graph.image.pixel_offset).reshape(rows, p, columns, p, -1)
    return cut.transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1)


@pytest.fixture(scope="module")
def graph(exported: ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return save_and_import(exported, tmp_path_factory.mktemp("import") / "small.onnx")


def test_structure(graph: Graph) -> None:
    trunk = ["embed.patch", "embed.add", *(f"block0.{n}" for n in (*BLOCK, *MLP)), *(f"block1.{n}" for n in BLOCK)]
    for task in ("semseg", "depth"):
        own = [*(f"block1.{n}" for n in EXPERTS), *(f"block2.{n}" for n in (*BLOCK, *MLP)), "norm"]
        names = [n.name for n in graph.nodes_of(task)]
        assert names == [*trunk, *(f"{task}.{n}" for n in own), task]
    assert len(graph.nodes) == len(trunk) + 2 * (len(own) + 1)
    assert {n.kind for n in graph.nodes} == set(OpKind)
    assert graph.name == "small"
    assert [(o.task, o.classes, o.cells, o.first_row, o.readout) for o in graph.outputs] == [
        ("semseg", 11, 2, 1, Readout.CLASS),
        ("depth", 1, 2, 1, Readout.LOG),
    ]
    verify(graph)


def test_constants_exist_once(graph: Graph) -> None:
    contents = [(c.spec.type, c.spec.shape, c.spec.scale, c.values.tobytes()) for c in graph.constants]
    assert len(set(contents)) == len(contents)
    assert graph.constant("block1.experts.w1").spec.type == IntType(2)
    assert set(np.unique(graph.constant("block1.experts.w1").values)) == {-1, 0, 1}
    assert graph.constant("block2.q.weight").spec.type == INT8
    assert not any(c.spec.name.startswith(("semseg.block2", "depth.block2")) for c in graph.constants)


def test_scales_are_those_of_the_quant_nodes(graph: Graph, exported: ModelProto) -> None:
    assert graph.input.scale == 1 / 128
    for tensor, quant in (("block0.q", "blocks.0.attn.q_quant"), ("block0.gelu", "blocks.0.mlp.hidden_quant")):
        node = next(n for n in exported.graph.node if n.output[0] == quant)
        assert graph.spec_of(tensor).scale == float(value_of(exported, node.input[1]).reshape(()))
    residual = {graph.spec_of(n).scale for n in ("embed.patch", "embed.add", "block0.proj", "semseg.block1.experts")}
    assert len(residual) == 1
    assert graph.spec_of("block0.fc1").scale == 2.0**-10
    assert graph.spec_of("depth.block1.router").scale == 2.0**-15


def both(graph: Graph, model: ModelProto) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All tensors of one image: integers of the graph, and floats of qonnx' execution."""
    image = scenes(Split.TEST, 1).images[0]
    batch = ((image.astype(np.float32) - 128) / 128).transpose(2, 0, 1)[None]
    wrapper = ModelWrapper(model)
    if not wrapper.check_all_tensor_shapes_specified():
        wrapper = wrapper.transform(InferShapes())
    wanted = execute_onnx(wrapper, {"image": batch}, return_full_exec_context=True)
    return run_graph(graph, patches(graph, image)), wanted


def test_agrees_with_qonnx(graph: Graph, exported: ModelProto) -> None:
    """Rounding differs by at most one step right after the first layers; at the end the difference stays small."""
    found, wanted = both(graph, exported)
    check_experts(graph, found, wanted)
    steps = {}
    for tensor, name in (
        ("embed.add", "residual_quant"),
        ("block0.norm1", "blocks.0.norm1_quant"),
        ("block0.q", "blocks.0.attn.q_quant"),
        ("block0.attention", "blocks.0.attn.out_quant"),
        ("block0.gelu", "blocks.0.mlp.hidden_quant"),
        ("block1.norm2", "blocks.1.norm2_quant"),
        ("semseg", "semseg"),
        ("depth", "depth"),
    ):
        scale = graph.spec_of(tensor).scale
        difference = found[tensor] - wanted[name].reshape(found[tensor].shape) / scale
        steps[tensor] = np.abs(difference).max()
        relative = math.sqrt(np.mean(difference**2) / np.mean(found[tensor].astype(float) ** 2))
        assert relative < (0.05 if tensor in ("semseg", "depth") else 0.02), tensor
    assert max(steps["embed.add"], steps["block0.norm1"], steps["block0.q"]) <= 1.01
    assert max(steps["block0.attention"], steps["block0.gelu"], steps["block1.norm2"]) <= 4


def check_experts(graph: Graph, found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Gates, and what experts add, of the tokens for which both choose the same experts (near ties may differ)."""
    for task in graph.tasks:
        gates, exact = found[f"{task}.block1.router"] / 2**15, wanted[f"{task}.blocks.1.moe.Router"][0]
        same = ((gates > 0) == (exact > 0)).all(axis=1)
        assert same.mean() > 0.85
        assert np.abs(gates - exact)[same].max() < 0.02
        added = (found[f"{task}.block1.experts"] - found["block1.add1"]) * graph.spec_of("block1.add1").scale
        difference = (added - wanted[f"{task}.blocks.1.moe.Experts"][0])[same]
        assert math.sqrt(np.mean(difference**2) / np.mean(added**2)) < 0.03


def test_class_token_joins_the_position_table(model: ModelProto, path: Path) -> None:
    token = np.linspace(-1, 1, 64).astype(np.float32)
    name = node_of(model, "Concat").input[0]
    set_value(model, name, token.reshape(1, 1, 64))
    graph = save_and_import(model, path)
    found, wanted = both(graph, model)
    row = wanted["residual_quant"][0, 0] / graph.spec_of("embed.add").scale
    assert np.abs(found["embed.add"][0] - row).max() <= 1.01
    assert np.abs(row).max() > 100


def test_without_class_token(model: ModelProto, path: Path) -> None:
    concat = node_of(model, "Concat")
    users = [n for n in model.graph.node if concat.output[0] in n.input]
    for user in users:
        user.input[:] = [concat.input[1] if i == concat.output[0] else i for i in user.input]
    model.graph.node.remove(concat)
    set_value(model, "pos_embed", value_of(model, "pos_embed")[:, 1:])
    for tensor in list(model.graph.initializer):
        if tensor.data_type == onnx.TensorProto.INT64 and 33 in (shape := value_of(model, tensor.name)):
            set_value(model, tensor.name, np.where(shape == 33, 32, shape))
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_value = 32
    del model.graph.value_info[:]
    graph = save_and_import(model, path)
    verify(graph)
    assert [o.first_row for o in graph.outputs] == [0, 0]
    found, wanted = both(graph, model)
    for tensor, name in (("embed.add", "residual_quant"), ("block0.norm1", "blocks.0.norm1_quant")):
        assert np.abs(found[tensor] - wanted[name][0] / graph.spec_of(tensor).scale).max() <= 1.01


def test_weights_are_those_of_qonnx(graph: Graph, exported: ModelProto) -> None:
    scale = value_of(exported, "blocks.0.attn.q.weight.scale")
    weight = value_of(exported, "blocks.0.attn.q.weight")
    assert np.array_equal(graph.constant("block0.q.weight").values, np.rint(weight / scale).clip(-127, 127).T)


def test_metadata_is_readable(exported: ModelProto, path: Path) -> None:
    onnx.save(exported, str(path))
    assert {"codesign.model", "codesign.metrics", "codesign.recipe"} <= set(read_metadata(path))


# -- the same model, written otherwise -------------------------------------------------------------------------------


def erf_gelu(model: ModelProto) -> None:
    gelu = node_of(model, "Gelu")
    x, y = gelu.input[0], gelu.output[0]
    for name, value in (("root2", math.sqrt(2)), ("one", 1.0), ("half", 0.5)):
        set_value(model, name, np.float32(value))
    replace_node(
        model,
        gelu,
        helper.make_node("Div", [x, "root2"], ["g0"]),
        helper.make_node("Erf", ["g0"], ["g1"]),
        helper.make_node("Add", ["g1", "one"], ["g2"]),
        helper.make_node("Mul", [x, "g2"], ["g3"]),
        helper.make_node("Mul", ["half", "g3"], [y]),
    )


def scaled_queries(model: ModelProto) -> None:
    """Multiply q by 1/sqrt(head_dim) after its transpose instead of dividing the scores."""
    divide = node_of(model, "Div")
    product = next(n for n in model.graph.node if n.output[0] == divide.input[0])
    factor = 1 / float(value_of(model, divide.input[1]).reshape(()))
    set_value(model, "factor", np.float32(factor))
    scaled = helper.make_node("Mul", [product.input[0], "factor"], ["scaled_q"])
    scores = helper.make_node("MatMul", ["scaled_q", product.input[1]], list(divide.output))
    replace_node(model, divide, scaled, scores)


def swapped_adds(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "Add":
            node.input[:] = list(reversed(node.input))


def identities(model: ModelProto) -> None:
    feed_through(model, node_of(model, "Exp"), 0, "Identity")
    feed_through(model, node_of(model, "LayerNormalization"), 0, "Identity")
    feed_through(model, node_of(model, "Transpose", 1), 0, "Identity")


def transposed_weight(model: ModelProto) -> None:
    """Store a weight as [out, in] and transpose it after its Quant node."""
    product = next(n for n in model.graph.node if n.op_type == "MatMul" and n.input[1].endswith("q.weight.quant"))
    quant = next(n for n in model.graph.node if n.output[0] == product.input[1])
    for name in quant.input[:2]:
        set_value(model, name, np.ascontiguousarray(value_of(model, name).T))
    del model.graph.value_info[:]
    feed_through(model, product, 1, "Transpose", perm=[1, 0])


def constant_nodes(model: ModelProto) -> None:
    """Scalars as Constant nodes, and no shapes: qonnx has to fold and to infer."""
    small = [t for t in model.graph.initializer if int(np.prod(t.dims)) <= 8]
    kept = [t for t in model.graph.initializer if int(np.prod(t.dims)) > 8]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    first = model.graph.node[0]
    insert_before(model, first, *(helper.make_node("Constant", [], [t.name], value=t) for t in small))
    del model.graph.value_info[:]


def computed_constant(model: ModelProto) -> None:
    """sqrt(head_dim) as a node over a constant: something to fold for qonnx."""
    divide = node_of(model, "Div")
    set_value(model, "head_dim", np.float32(32))
    divide.input[1] = "root"
    insert_before(model, divide, helper.make_node("Sqrt", ["head_dim"], ["root"]))


def no_names(model: ModelProto) -> None:
    for i, node in enumerate(model.graph.node):
        node.name = f"n{i}"


def last_axis_as_attribute_free_positive(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in ("ReduceMax", "ReduceSum"):
            set_value(model, f"{node.name}.axes", np.array([3], dtype=np.int64))
            node.input[1] = f"{node.name}.axes"


@pytest.mark.parametrize(
    "rewrite",
    [
        erf_gelu,
        scaled_queries,
        swapped_adds,
        identities,
        transposed_weight,
        constant_nodes,
        computed_constant,
        no_names,
        last_axis_as_attribute_free_positive,
    ],
)
def test_same_graph_however_it_is_written(rewrite, model: ModelProto, graph: Graph, tmp_path: Path) -> None:
    rewrite(model)
    assert same(save_and_import(model, tmp_path / "small.onnx"), graph)


def test_tasks_that_share_no_onnx_node_still_share_nodes(model: ModelProto, graph: Graph, path: Path) -> None:
    """Duplicate every node and constant of depth's path under new names: deduplication must find all of it again."""
    needed, copies = {"depth"}, []
    constants = {t.name: t for t in model.graph.initializer}
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            copies.append(node)
    renamed = {name: f"{name}.copy" for name in needed if name not in ("image", "depth")}
    clones = []
    for node in reversed(copies):
        clone = onnx.NodeProto.FromString(node.SerializeToString())
        clone.name += ".copy"
        clone.input[:] = [renamed.get(i, i) for i in node.input]
        clone.output[:] = [renamed.get(o, o) for o in node.output]
        clones.append(clone)
    for name in needed & constants.keys():
        model.graph.initializer.append(numpy_helper.from_array(value_of(model, name), renamed[name]))
    kept = [n for n in model.graph.node if "depth" not in n.output]
    del model.graph.node[:]
    model.graph.node.extend([*kept, *clones])
    shapes = [v for v in model.graph.value_info if v.name in renamed]
    for info in shapes:
        model.graph.value_info.append(
            helper.make_tensor_value_info(renamed[info.name], 1, [d.dim_value for d in info.type.tensor_type.shape.dim])
        )
    again = save_and_import(model, path)
    assert [n.name for n in again.nodes] == [n.name for n in graph.nodes]
    assert [c.spec for c in again.constants] == [c.spec for c in graph.constants]


def test_int8_experts(model: ModelProto, path: Path) -> None:
    experts = node_of(model, "Experts")
    for position in (2, 4):
        quant = next(n for n in model.graph.node if n.output[0] == experts.input[position])
        quant.input[3] = set_value(model, f"{quant.name}.bits", np.float32(8))
        quant.input[1] = set_value(model, f"{quant.name}.fine", value_of(model, quant.input[1]) / 100)
    graph = save_and_import(model, path)
    weight = graph.constant("block1.experts.w1")
    assert weight.spec.type == INT8
    assert weight.values.max() > 100
    verify(graph)


def test_channel_without_weights_keeps_its_bias(model: ModelProto, path: Path) -> None:
    name = "blocks.0.attn.q.weight"
    weight, scale = value_of(model, name), value_of(model, f"{name}.scale")
    weight[:, 3], scale[:, 3] = 0.0, 1e-12
    set_value(model, name, weight)
    set_value(model, f"{name}.scale", scale)
    graph = save_and_import(model, path)
    node = next(n for n in graph.nodes if n.name == "block0.q")
    bias = value_of(model, "blocks.0.attn.q.bias")[3]
    value = run_graph(graph, np.zeros(graph.input.shape, dtype=np.int64))["block0.q"][:, 3]
    assert np.all(value == math.floor(bias / node.output.scale + 0.5))


def test_attribute_helper_changes_the_model(model: ModelProto, path: Path) -> None:
    set_attribute(node_of(model, "Router"), "top_k", 1)
    nodes = save_and_import(model, path).nodes
    assert next(n for n in nodes if n.name == "semseg.block1.router").params.top_k == 1
