"""Build the graph of all-MiniLM-L6-v2 for onnxruntime, without its weights.

    .venv/bin/python scripts/make_minilm_graph.py

Writes pgstack/embedded/modelserver/minilm.onnx, which is checked in.  Every weight is an
external initializer that bears its name in the safetensors file; the server feeds them at load
time, so the graph stays small and the weights are stored once, as published.

    in   input_ids        int64 [batch, length]
    in   attention_mask   int64 [batch, length]   1 = a token, 0 = padding
    out  embedding        float32 [batch, 384]    mean of the tokens, length 1

BERT: 6 layers, hidden 384, 12 heads, GELU (erf), layer norm epsilon 1e-12; all token types 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TARGET = Path(__file__).parents[1] / "pgstack/embedded/modelserver/minilm.onnx"

LAYERS, HIDDEN, HEADS, INTERMEDIATE = 6, 384, 12, 1536
VOCABULARY, POSITIONS, TYPES = 30522, 512, 2
HEAD = HIDDEN // HEADS
EPSILON = 1e-12
OPSET = 20  # the first with Gelu


class Graph:
    """Collects nodes, constants and weights; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._weights: set[str] = set()

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add a node."""
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, value: object, kind: type) -> str:
        """Add a constant stored in the graph."""
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """Name a weight that is fed at load time."""
        if name not in self._weights:
            self._weights.add(name)
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            # Never opened: the server replaces every external initializer.
            tensor.external_data.add(key="location", value="weights")
            self.initializers.append(tensor)
        return name

    def linear(self, x: str, name: str, size_in: int, size_out: int) -> str:
        """Apply a dense layer to ``x`` [rows, size_in], its weight as PyTorch stores it."""
        weight = self.weight(f"{name}.weight", size_out, size_in)
        bias = self.weight(f"{name}.bias", size_out)
        return self.op("Gemm", x, weight, bias, transB=1)

    def norm(self, x: str, name: str) -> str:
        """Apply a layer normalisation."""
        scale = self.weight(f"{name}.weight", HIDDEN)
        bias = self.weight(f"{name}.bias", HIDDEN)
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=EPSILON)


def embeddings(g: Graph, length: str) -> str:
    """Return the sum of word, position and type embeddings, normalised: [batch, length, 384]."""
    words = g.op(
        "Gather", g.weight("embeddings.word_embeddings.weight", VOCABULARY, HIDDEN), "input_ids"
    )
    zero, axis = g.constant([0], np.int64), g.constant([0], np.int64)
    positions = g.op(
        "Slice",
        g.weight("embeddings.position_embeddings.weight", POSITIONS, HIDDEN),
        *(zero, length, axis),
    )
    types = g.weight("embeddings.token_type_embeddings.weight", TYPES, HIDDEN)
    first_type = g.op("Gather", types, g.constant(0, np.int64))
    total = g.op("Add", g.op("Add", words, positions), first_type)
    return g.norm(total, "embeddings.LayerNorm")


def attention(g: Graph, x: str, layer: str, mask: str, to_heads: str) -> str:
    """Return the attended values, [rows, 384], for ``x`` [rows, 384]."""

    def heads(part: str, perm: list[int]) -> str:
        flat = g.linear(x, f"{layer}.attention.self.{part}", HIDDEN, HIDDEN)
        return g.op("Transpose", g.op("Reshape", flat, to_heads), perm=perm)

    query, value = heads("query", [0, 2, 1, 3]), heads("value", [0, 2, 1, 3])
    key = heads("key", [0, 2, 3, 1])
    scale = g.constant(1 / np.sqrt(HEAD), np.float32)
    scores = g.op("Add", g.op("Mul", g.op("MatMul", query, key), scale), mask)
    mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
    joined = g.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return g.op("Reshape", joined, g.constant([-1, HIDDEN], np.int64))


def encoder(g: Graph, x: str, mask: str, to_heads: str) -> str:
    """Return the last layer's output, [rows, 384]."""
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        attended = attention(g, x, layer, mask, to_heads)
        dense = g.linear(attended, f"{layer}.attention.output.dense", HIDDEN, HIDDEN)
        x = g.norm(g.op("Add", dense, x), f"{layer}.attention.output.LayerNorm")
        wide = g.op("Gelu", g.linear(x, f"{layer}.intermediate.dense", HIDDEN, INTERMEDIATE))
        dense = g.linear(wide, f"{layer}.output.dense", INTERMEDIATE, HIDDEN)
        x = g.norm(g.op("Add", dense, x), f"{layer}.output.LayerNorm")
    return x


def pooled(g: Graph, x: str, weights: str) -> None:
    """Average ``x`` [batch, length, 384] over the tokens and scale to length 1."""
    axis = g.constant([1], np.int64)
    column = g.op("Unsqueeze", weights, g.constant([2], np.int64))
    total = g.op("ReduceSum", g.op("Mul", x, column), axis, keepdims=0)
    count = g.op("ReduceSum", weights, axis, keepdims=1)
    mean = g.op("Div", total, count)
    length = g.op("ReduceL2", mean, axis, keepdims=1)
    g.nodes.append(helper.make_node("Div", [mean, length], ["embedding"]))


def build() -> onnx.ModelProto:
    """Return the whole model."""
    g = Graph()
    shape = g.op("Shape", "input_ids")
    length = g.op("Slice", shape, g.constant([1], np.int64), g.constant([2], np.int64))
    tokens = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    # 0 for tokens, the lowest number for padding; [batch, 1, 1, length] fits every head and row.
    padding = g.op("Sub", g.constant(1, np.float32), tokens)
    lowest = g.op("Mul", padding, g.constant(np.finfo(np.float32).min, np.float32))
    mask = g.op("Unsqueeze", lowest, g.constant([1, 2], np.int64))
    split = g.constant([HEADS, HEAD], np.int64)
    to_heads = g.op("Concat", shape, split, axis=0)

    rows = g.constant([-1, HIDDEN], np.int64)
    x = g.op("Reshape", embeddings(g, length), rows)
    x = encoder(g, x, mask, to_heads)
    whole = g.op("Concat", shape, g.constant([HIDDEN], np.int64), axis=0)
    pooled(g, g.op("Reshape", x, whole), tokens)

    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", HIDDEN])
    graph = helper.make_graph(g.nodes, "all-MiniLM-L6-v2", ids, [out], g.initializers)
    # IR 10 is what onnxruntime 1.20, the oldest we allow, reads.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def main() -> None:
    """Write the graph."""
    TARGET.write_bytes(build().SerializeToString(deterministic=True))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
