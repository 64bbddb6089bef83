"""Building an ONNX graph by hand: names, constants, the file's bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

# Opset 17 and IR 8 have every operator used here and are read by all runtimes of the last years
# (ONNX Runtime >= 1.12, OpenVINO >= 2022.2, TensorRT >= 8.5). LSTM and Conv take bfloat16 from opset 22 on.
_OPSET, _IR = 17, 8
_BFLOAT_OPSET, _BFLOAT_IR = 22, 10
# Operators of ONNX Runtime's own.
CONTRIB = "com.microsoft"
_CONTRIB_OPSET = 1

# What a precision computes in. int8 names the weights of its matrices; all else of it is float32.
_ELEMENTS: dict[str, tuple[int, Any]] = {
    "fp32": (TensorProto.FLOAT, np.float32),
    "fp16": (TensorProto.FLOAT16, np.float16),
    "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "int8": (TensorProto.FLOAT, np.float32),
}

FloatArray = npt.NDArray[np.floating]
Weights = Mapping[str, npt.NDArray[np.float32]]
Shapes = dict[str, tuple[int, ...]]
"""Shapes of parameters by name, in the order of the layers."""


def check_weights(weights: Weights, expected: Shapes) -> None:
    """Compare parameters with the shapes that a configuration asks for.

    Raises
    ------
    ValueError
        If a parameter is missing, superfluous or has another shape; all such are named.
    """
    found = {name: array.shape for name, array in weights.items()}
    if found != expected:
        wrong = sorted({name for name, _ in expected.items() ^ found.items()})
        raise ValueError(f"weights do not fit the configuration: {', '.join(wrong)}")


class Graph:
    """A graph in the making. Values are passed around by their names.

    Parameters
    ----------
    name : str
    leads, samples : int
        The graph has the inputs ``x`` (batch, leads, samples) and ``mask`` (batch, leads).
    precision : str
        Inputs and outputs are float32 in every precision; between them `narrow` and `widen` lead into and
        out of the type that the precision computes in.
    """

    def __init__(self, name: str, leads: int, samples: int, precision: str = "fp32") -> None:
        self.precision = precision
        self._element, self._dtype = _ELEMENTS[precision]
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs = [_value("x", ["batch", leads, samples]), _value("mask", ["batch", leads])]
        self._outputs: list[onnx.ValueInfoProto] = []

    def narrow(self, at: str) -> str:
        """Convert a float32 value to the type that the precision computes in."""
        return at if self._element == TensorProto.FLOAT else self.add("Cast", at, to=self._element)

    def widen(self, at: str) -> str:
        """Convert a value to float32: sums over many terms, exponentials and logarithms need it."""
        return at if self._element == TensorProto.FLOAT else self.add("Cast", at, to=TensorProto.FLOAT)

    def mean(self, at: str, axes: Sequence[int], *, keepdims: bool = False) -> str:
        """Append the mean over some axes."""
        if self._opset < 18:
            return self.add("ReduceMean", at, axes=list(axes), keepdims=int(keepdims))
        return self.add("ReduceMean", at, self.constant(list(axes)), keepdims=int(keepdims))

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Append a node and return the name of its output, the first of `outputs`.

        The others are named like it with ``.1``, ``.2`` and so on at the end.
        """
        name = f"{operator}_{len(self._nodes)}"
        names = [name, *(f"{name}.{number}" for number in range(1, outputs))]
        self._nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return name

    def constant(self, values: npt.ArrayLike | FloatArray, name: str = "") -> str:
        """Add a constant and return its name: of the precision's type, or int64 where `values` are integers.

        Parameters
        ----------
        values : array-like
        name : str
            By default one made of the values themselves, so that equal constants are stored once.
        """
        array = np.asarray(values)
        return self._stored(array, np.int64 if array.dtype.kind == "i" else self._dtype, name)

    def exact(self, values: npt.ArrayLike | FloatArray, name: str = "") -> str:
        """Add a constant that is float32 in every precision; otherwise as `constant`."""
        return self._stored(np.asarray(values), np.float32, name)

    def integers(self, values: npt.NDArray[np.int8], name: str) -> str:
        """Add a constant of 8-bit integers."""
        return self._stored(values, np.int8, name)

    def _stored(self, values: npt.NDArray[Any], dtype: Any, name: str) -> str:
        # `np.ascontiguousarray` would turn a scalar into a vector.
        array = np.asarray(values, dtype, order="C")
        name = name or f"{array.dtype}:{array.tolist()}"
        self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def linear(self, at: str, name: str, weight: FloatArray, bias: FloatArray) -> str:
        """Multiply the last axis with a (outputs, inputs) matrix and add a bias that broadcasts."""
        product = self.add("MatMul", at, self.constant(weight.T, f"{name}.weight"))
        return self.add("Add", product, self.constant(bias, f"{name}.bias"))

    def output(self, name: str, at: str, shape: Sequence[int]) -> None:
        """Declare a float32 value as the output `name`; `shape` is that of one window."""
        self._nodes.append(helper.make_node("Identity", [at], [name]))
        self._outputs.append(_value(name, ["batch", *shape]))

    @property
    def _opset(self) -> int:
        return _BFLOAT_OPSET if self.precision == "bf16" else _OPSET

    def to_bytes(self) -> bytes:
        """Return the file, checked; equal graphs give equal bytes."""
        constants = list(self._constants.values())
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, constants)
        opsets = [helper.make_opsetid("", self._opset)]
        if any(node.domain == CONTRIB for node in self._nodes):
            opsets.append(helper.make_opsetid(CONTRIB, _CONTRIB_OPSET))
        ir_version = _BFLOAT_IR if self._opset == _BFLOAT_OPSET else _IR
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="bedside")
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def _value(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
