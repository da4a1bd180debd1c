"""From a function of named arrays to an ONNX model: its jaxpr, one primitive after the other.

It knows nothing of agents. Each primitive is a row of a table. What has only constants is computed here, and
what has no elements is left out of the graph.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend.core import InconclusiveDimensionOperation, Literal

from mjx_hkl.errors import UserError
from mjx_hkl.experiments.onnx.arithmetic import ARITHMETIC
from mjx_hkl.experiments.onnx.shapes import SHAPES
from mjx_hkl.specs import ArraySpec

try:
    import onnx
    from onnx import helper, numpy_helper
except ImportError as error:
    raise UserError("ONNX needs the package onnx: pip install 'mjx-hkl[onnx]'") from error

BATCH = "batch"
_PRIMITIVES = {**ARITHMETIC, **SHAPES}
_OPSET, _IR = 18, 8  # of 2022: read by every runtime since
Arrays = dict[str, jax.Array]
Value = str | np.ndarray | jax.Array | None
"""The name of a tensor of the graph; a constant; None for what has no elements."""


@dataclasses.dataclass(frozen=True)
class Traced:
    """A function of named arrays `[batch, ...]`, as primitives.

    Attributes:
      jaxpr: of the parameters, then the inputs.
      parameters: constant inputs, by name.
      inputs: specs of one entry of the batch, in the order of the jaxpr.
      outputs: the same of what it gives.
    """

    jaxpr: Any
    parameters: dict[str, np.ndarray]
    inputs: dict[str, ArraySpec]
    outputs: dict[str, ArraySpec]

    @classmethod
    def of(
        cls,
        function: Callable[[Any, Arrays], Arrays],
        parameters: Any,
        name_of: Callable[[Any], str],
        inputs: Mapping[str, ArraySpec],
    ) -> "Traced":
        """Traces function(parameters, inputs) for any size of the batch.

        Args:
          function: what it gives has the batch in front too.
          parameters: any pytree of arrays.
          name_of: the name of a parameter, from its path in the tree.
          inputs: of one entry of the batch.

        Raises:
          UserError: it cannot be traced without knowing the size of the batch.
        """
        (batch,) = export.symbolic_shape(BATCH)
        names = sorted(inputs)  # the order in which JAX flattens a dict
        shaped = {
            name: jax.ShapeDtypeStruct((batch, *inputs[name].shape), inputs[name].dtype) for name in names
        }
        leaves = jax.tree_util.tree_leaves_with_path(parameters)
        try:
            jaxpr, found = jax.make_jaxpr(function, return_shape=True)(parameters, shaped)
        except InconclusiveDimensionOperation as error:
            raise UserError("ONNX cannot express: Python code that asks how many worlds there are") from error
        return cls(
            jaxpr,
            {name_of(path): np.asarray(leaf) for path, leaf in leaves},
            {name: inputs[name] for name in names},
            {name: ArraySpec(tuple(x.shape[1:]), str(x.dtype)) for name, x in sorted(found.items())},
        )

    def reads(self, outputs: Collection[str]) -> set[str]:
        """The inputs that these outputs depend on."""
        _, read = _needed(self.jaxpr.jaxpr, [name in outputs for name in self.outputs])
        variables = self.jaxpr.jaxpr.invars[len(self.parameters) :]
        return {name for name, variable in zip(self.inputs, variables, strict=True) if variable in read}

    def model(self, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
        """An `onnx.ModelProto` with these inputs and outputs, in this order.

        Args:
          inputs: at least those that the outputs read, the first of them of shape `[batch]`.
          outputs: to give.

        Raises:
          UserError: the outputs need a primitive that is not in the table.
        """
        graph = Graph(inputs[0])
        given: list[Value] = [graph.parameter(name, value) for name, value in self.parameters.items()]
        given += [name if 0 not in spec.shape else None for name, spec in self.inputs.items()]
        wanted = [name in outputs for name in self.outputs]
        values = dict(zip(self.outputs, graph.walk(self.jaxpr, given, wanted), strict=True))
        for name in outputs:
            graph.add("Identity", values[name], name=name)
        used = {name for node in graph.nodes for name in node.input}
        made = helper.make_graph(
            graph.nodes,
            "policy",
            [_port(name, self.inputs[name]) for name in inputs],
            [_port(name, self.outputs[name]) for name in outputs],
            [tensor for tensor in graph.initializers.values() if tensor.name in used],
        )
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(made, opset_imports=opset, ir_version=_IR, producer_name="mjx-hkl")


def save(model: Any, metadata: Mapping[str, str], path: Path) -> None:
    """Writes a model with its metadata, once ONNX's own checker has found it right."""
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _port(name: str, spec: ArraySpec) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return helper.make_tensor_value_info(name, kind, [BATCH, *spec.shape])


class Graph:
    """An ONNX graph under construction."""

    def __init__(self, counted: str):
        """`counted` is an input whose only axis is the batch."""
        self.nodes: list[Any] = []
        self.initializers: dict[Any, Any] = {}
        self._counted, self._count = counted, 0

    def parameter(self, name: str, value: np.ndarray) -> Value:
        """A constant that keeps its name."""
        if not value.size:
            return None
        self.initializers[name] = numpy_helper.from_array(value, name)
        return name

    def constant(self, value: Any) -> str:
        """The name of a constant: one for all that are equal."""
        value = np.asarray(value)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self.initializers:
            self.initializers[key] = numpy_helper.from_array(value, f"constant_{len(self.initializers)}")
        return self.initializers[key].name

    def add(self, kind: str, *inputs: Value, name: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """A node; gives the name of its output, or the names of several."""
        given = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        self._count += 1
        names = [name or f"{kind.lower()}_{self._count}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, given, names, name=f"{kind}_{self._count}", **attributes))
        return names[0] if outputs == 1 else names

    def ints(self, *values: int) -> str:
        """A constant list of numbers, as ONNX takes axes and sizes."""
        return self.constant(np.array(values, np.int64))

    def shape(self, shape: Sequence[Any]) -> str:
        """A shape as a tensor; sizes of the batch, and multiples of it, are found when the graph runs."""
        factors = [_batches(size) for size in shape]
        if not any(factors):
            return self.ints(*shape)
        batch = self.add("Shape", self._counted)
        sizes = [
            self.add("Mul", batch, self.ints(factor)) if factor else self.ints(size)
            for factor, size in zip(factors, shape, strict=True)
        ]
        return self.add("Concat", *sizes, axis=0)

    def transpose(self, x: Value, order: Sequence[int]) -> str:
        """The tensor with its axes in that order."""
        return self.add("Transpose", x, perm=[int(i) for i in order])

    def cast(self, x: Value, dtype: Any) -> str:
        """The tensor as numbers of that type."""
        return self.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def walk(self, closed: Any, given: Sequence[Value], wanted: Sequence[bool]) -> list[Value]:
        """Adds what the wanted outputs of a jaxpr need; gives all outputs, those not wanted as None."""
        jaxpr = getattr(closed, "jaxpr", closed)
        values: dict[Any, Value] = dict(zip(jaxpr.invars, given, strict=True))
        values |= zip(jaxpr.constvars, map(_constant, getattr(closed, "consts", ())), strict=True)

        def read(x: Any) -> Value:
            return np.asarray(x.val, x.aval.dtype) if isinstance(x, Literal) else values.get(x)

        for equation, asked in _needed(jaxpr, wanted)[0]:
            results = self._results(equation, asked, [read(x) for x in equation.invars])
            values |= zip(equation.outvars, results, strict=True)
        return [read(x) for x in jaxpr.outvars]

    def _results(self, equation: Any, asked: Sequence[bool], given: list[Value]) -> Sequence[Value]:
        inner, shapes = _inner(equation), [x.aval.shape for x in equation.outvars]
        if inner is not None:
            return self.walk(inner, given, asked)
        if all(0 in shape for shape in shapes):
            return [None] * len(shapes)
        name = equation.primitive.name
        is_constant = not any(isinstance(x, str) or x is None for x in given) and name != "dim_as_value"
        if is_constant and not any(map(_is_symbolic, shapes)):
            found = equation.primitive.bind(*given, **equation.params)
            return list(map(_constant, found if equation.primitive.multiple_results else [found]))
        if name not in _PRIMITIVES:
            raise UserError(f"ONNX cannot express: {name}{_place(equation)}")
        try:
            found = _PRIMITIVES[name](self, equation, *given)
        except NotImplementedError as error:
            raise UserError(f"ONNX cannot express: {name}, {error}{_place(equation)}") from error
        return found if isinstance(found, list) else [found]


_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2")
_INLINED = (*_CALLS, "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


def _inner(equation: Any) -> Any:
    """The jaxpr that an equation is a call of; None where it is none."""
    if equation.primitive.name not in _INLINED:
        return None
    return next(equation.params[x] for x in ("jaxpr", "call_jaxpr", "fun_jaxpr") if x in equation.params)


def _needed(jaxpr: Any, wanted: Sequence[bool]) -> tuple[list[tuple[Any, list[bool]]], set[Any]]:
    """The equations that the wanted outputs need, which outputs of each, and all variables that they read."""
    read = {x for x, asked in zip(jaxpr.outvars, wanted, strict=True) if asked and not isinstance(x, Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        asked = [x in read for x in equation.outvars]
        if not any(asked):
            continue
        kept.append((equation, asked))
        inner, used = _inner(equation), [True] * len(equation.invars)
        if inner is not None:
            inner = getattr(inner, "jaxpr", inner)
            within = _needed(inner, asked)[1]
            used = [x in within for x in inner.invars]
        read |= {x for x, u in zip(equation.invars, used, strict=True) if u and not isinstance(x, Literal)}
    return kept[::-1], read


def _constant(x: Any) -> Value:
    """NumPy's, where NumPy knows the type."""
    return x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended) else np.asarray(x)


def _is_symbolic(shape: Sequence[Any]) -> bool:
    return any(not isinstance(size, int) for size in shape)


def _batches(size: Any) -> int:
    """How many times the batch a size is; 0 for one that does not depend on it."""
    if isinstance(size, int):
        return 0
    found = re.fullmatch(rf"(?:(\d+)\*)?{BATCH}", str(size))
    if not found:
        raise UserError(f"ONNX cannot express: an array of size {size}, of so many worlds")
    return int(found[1] or 1)


def _place(equation: Any) -> str:
    """Where in the code that is not JAX's or flax's the equation comes from, where that is known."""
    traceback = equation.source_info.traceback
    for frame in traceback.frames if traceback else ():
        parts = Path(frame.file_name).parts
        if not {"jax", "flax", "jaxlib"} & set(parts):
            return f" ({'/'.join(parts[-2:])}, {frame.function_name})"
    return ""
