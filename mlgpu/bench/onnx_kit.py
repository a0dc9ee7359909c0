"""Workloads in ONNX Runtime: forward passes alone, each a graph of ONNX operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from . import clock
from .workload import Arrays, Case, Workload

# Operators of a graph: type, inputs, output, attributes.  Names of inputs are the workload's.
Node = tuple[str, tuple[str, ...], str, dict[str, Any]]


def _mlp(arrays: Arrays) -> list[Node]:
    nodes: list[Node] = []
    x = "x"
    for i in (0, 2, 4):
        y = f"y{i}"
        nodes.append(("Gemm", (x, f"{i}.weight", f"{i}.bias"), y, {"transB": 1}))
        if i != 4:
            nodes.append(("Relu", (y,), f"r{i}", {}))
        x = f"r{i}"
    return [*nodes, ("Identity", ("y4",), "output", {})]


def _fixed(*nodes: Node) -> Callable[[Arrays], list[Node]]:
    return lambda arrays: list(nodes)


# By the family of the workload.
FORMS: dict[str, Callable[[Arrays], list[Node]]] = {
    "mlp_infer1": _mlp,
    "conv_f": _fixed(("Conv", ("x", "weight", "bias"), "output", {"pads": [1, 1, 1, 1]})),
    "gemm": _fixed(("MatMul", ("a", "b"), "output", {})),
    "bmm_qk": _fixed(("Transpose", ("k",), "kt", {"perm": [0, 1, 3, 2]}),
                     ("MatMul", ("q", "kt"), "output", {})),
    "bmm_av": _fixed(("MatMul", ("p", "v"), "output", {})),
    "softmax": _fixed(("Softmax", ("x",), "output", {"axis": -1})),
    "ln_f": _fixed(("LayerNormalization", ("x", "weight", "bias"), "output", {"epsilon": 1e-5})),
    "gelu": _fixed(("Gelu", ("x",), "output", {"approximate": "tanh"})),
    "gelu_erf": _fixed(("Gelu", ("x",), "output", {})),
    "silu": _fixed(("Sigmoid", ("x",), "s", {}), ("Mul", ("x", "s"), "m", {}),
                   ("Mul", ("m", "gate"), "output", {})),
    "add": _fixed(("Add", ("x", "y"), "output", {})),
}
_PARAMETERS = ("weight", "bias")  # inputs that end so are part of the graph, the others are given


class OnnxKit:
    """ONNX Runtime on the CPU in float32."""

    timer = staticmethod(clock.host)

    def __init__(self, threads: int) -> None:
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.log_severity_level = 3

    def case(self, workload: Workload, arrays: Arrays) -> Case | None:
        """The workload set up; None where it has no form here."""
        if workload.family not in FORMS:
            return None
        nodes = FORMS[workload.family](arrays)
        used = dict.fromkeys(name for _, inputs, _, _ in nodes for name in inputs
                             if name in arrays)
        fed = [name for name in used if not name.endswith(_PARAMETERS)]
        graph = helper.make_graph(
            [helper.make_node(kind, inputs, [output], **attributes)
             for kind, inputs, output, attributes in nodes], workload.name,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, arrays[name].shape)
             for name in fed],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(arrays[name], name) for name in used if name not in fed])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        run = onnxruntime.InferenceSession(model.SerializeToString(), self.options,
                                           providers=["CPUExecutionProvider"]).run
        given = {name: arrays[name] for name in fed}
        return Case(lambda: run(None, given), lambda: {"output": run(None, given)[0]})


def kit(peer: str, device: str, dtype: str, threads: int) -> OnnxKit:
    """The kit."""
    return OnnxKit(threads)
