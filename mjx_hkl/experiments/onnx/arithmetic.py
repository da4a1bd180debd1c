"""Primitives that compute: numbers one by one, sums, products, convolutions."""

import string
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mjx_hkl.experiments.onnx.table import Builder, Table, shape_of

ARITHMETIC = Table()
_SAME = {
    **{"neg": "Neg", "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "erf": "Erf"},
    **{
        "sqrt": "Sqrt",
        "abs": "Abs",
        "sign": "Sign",
        "floor": "Floor",
        "ceil": "Ceil",
        "sin": "Sin",
        "cos": "Cos",
    },
    **{"tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh"},
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "max": "Max", "min": "Min"},
    **{
        "add_any": "Add",
        "eq": "Equal",
        "lt": "Less",
        "le": "LessOrEqual",
        "gt": "Greater",
        "ge": "GreaterOrEqual",
    },
    **{"stop_gradient": "Identity", "copy": "Identity", "reduce_precision": "Identity"},
}


def _node(kind: str) -> Builder:
    return lambda graph, equation, *inputs: graph.add(kind, *inputs)


ARITHMETIC.update({name: _node(kind) for name, kind in _SAME.items()})


def _like(equation: Any, value: float) -> np.ndarray:
    """A constant of the type of the first input."""
    return np.asarray(value, equation.invars[0].aval.dtype)


@ARITHMETIC("ne", "xor")
def _differs(graph, equation, x, y):
    if equation.primitive.name == "xor" and equation.invars[0].aval.dtype != bool:
        return graph.add("BitwiseXor", x, y)
    return graph.add("Not", graph.add("Equal", x, y))


@ARITHMETIC("and", "or", "not")
def _logic(graph, equation, *inputs):
    of_bits = "" if equation.invars[0].aval.dtype == bool else "Bitwise"
    return graph.add(of_bits + equation.primitive.name.capitalize(), *inputs)


@ARITHMETIC("rem")
def _remainder(graph, equation, x, y):
    return graph.add("Mod", x, y, fmod=1)  # with the sign of x


@ARITHMETIC("square")
def _square(graph, equation, x):
    return graph.add("Mul", x, x)


@ARITHMETIC("integer_pow")
def _integer_pow(graph, equation, x):
    return graph.add("Pow", x, _like(equation, equation.params["y"]))


@ARITHMETIC("rsqrt")
def _inverse_root(graph, equation, x):
    return graph.add("Reciprocal", graph.add("Sqrt", x))


@ARITHMETIC("log1p")
def _log1p(graph, equation, x):
    return graph.add("Log", graph.add("Add", x, _like(equation, 1)))


@ARITHMETIC("expm1")
def _expm1(graph, equation, x):
    return graph.add("Sub", graph.add("Exp", x), _like(equation, 1))


@ARITHMETIC("erfc")
def _erfc(graph, equation, x):
    return graph.add("Sub", _like(equation, 1), graph.add("Erf", x))


@ARITHMETIC("is_finite")
def _is_finite(graph, equation, x):
    return graph.add("Not", graph.add("Or", graph.add("IsNaN", x), graph.add("IsInf", x)))


@ARITHMETIC("round")
def _round(graph, equation, x):
    if int(equation.params["rounding_method"]) != 1:
        raise NotImplementedError("halves away from 0; jnp.round takes them to even numbers")
    return graph.add("Round", x)


@ARITHMETIC("clamp")
def _clamp(graph, equation, least, x, most):
    return graph.add("Min", graph.add("Max", x, least), most)


@ARITHMETIC("select_n")
def _select(graph, equation, which, *cases):
    if len(cases) != 2:
        raise NotImplementedError(f"of {len(cases)} cases")
    return graph.add("Where", graph.cast(which, bool), cases[1], cases[0])


@ARITHMETIC("convert_element_type")
def _convert(graph, equation, x):
    return graph.cast(x, equation.params["new_dtype"])


@ARITHMETIC("optimization_barrier")
def _barrier(graph, equation, *inputs):
    return [graph.add("Identity", x) for x in inputs]


@ARITHMETIC("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
def _reduce(graph, equation, x):
    kind = "Reduce" + equation.primitive.name.removeprefix("reduce_").capitalize()
    if x is None:
        raise NotImplementedError("of nothing")
    return graph.add(kind, x, graph.ints(*equation.params["axes"]), keepdims=0)


@ARITHMETIC("reduce_and", "reduce_or")
def _reduce_logic(graph, equation, x):
    kind = "ReduceMin" if equation.primitive.name == "reduce_and" else "ReduceMax"
    found = graph.add(kind, graph.cast(x, np.int32), graph.ints(*equation.params["axes"]), keepdims=0)
    return graph.cast(found, bool)


@ARITHMETIC("argmax", "argmin")
def _arg(graph, equation, x):
    kind = "Arg" + equation.primitive.name.removeprefix("arg").capitalize()
    (axis,) = equation.params["axes"]
    return graph.cast(graph.add(kind, x, axis=axis, keepdims=0), equation.params["index_dtype"])


@ARITHMETIC("cumsum")
def _cumsum(graph, equation, x):
    axis = np.asarray(equation.params["axis"], np.int64)
    return graph.add("CumSum", x, axis, reverse=int(equation.params["reverse"]))


@ARITHMETIC("dot_general")
def _dot(graph, equation, x, y):
    (of_x, of_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    rank_x, rank_y = len(shape_of(equation)), len(shape_of(equation, 1))
    result = equation.outvars[0].aval
    if x is None or y is None:  # a sum of nothing
        return graph.add("Expand", np.zeros((), result.dtype), graph.shape(result.shape))
    if not batch_x and rank_y == 2 and tuple(of_x) == (rank_x - 1,) and tuple(of_y) == (0,):
        return graph.add("MatMul", x, y)
    letters: Iterator[str] = iter(string.ascii_letters)
    axes_x, axes_y = [next(letters) for _ in range(rank_x)], [""] * rank_y
    for i, j in zip((*batch_x, *of_x), (*batch_y, *of_y), strict=True):
        axes_y[j] = axes_x[i]
    axes_y = [letter or next(letters) for letter in axes_y]
    free_x = [axes_x[i] for i in range(rank_x) if i not in (*batch_x, *of_x)]
    free_y = [axes_y[j] for j in range(rank_y) if j not in (*batch_y, *of_y)]
    given, found = (
        ["".join(axes) for axes in (axes_x, axes_y)],
        [axes_x[i] for i in batch_x] + free_x + free_y,
    )
    return graph.add("Einsum", x, y, equation=f"{','.join(given)}->{''.join(found)}")


@ARITHMETIC("conv_general_dilated")
def _convolution(graph, equation, x, kernel):
    asked = equation.params
    images, kernels, results = asked["dimension_numbers"]
    if set(asked["lhs_dilation"]) != {1} or asked["batch_group_count"] != 1:
        raise NotImplementedError("transposed or grouped by worlds")
    found = graph.add(
        "Conv",
        graph.transpose(x, images),
        graph.transpose(kernel, kernels),
        strides=list(asked["window_strides"]),
        pads=_pads(asked["padding"]),
        dilations=list(asked["rhs_dilation"]),
        group=asked["feature_group_count"],
    )
    return graph.transpose(found, np.argsort(results))


@ARITHMETIC("reduce_window_max")
def _max_pool(graph, equation, x):
    asked, rank = equation.params, len(shape_of(equation))
    window = asked["window_dimensions"]
    pooled = [axis for axis in range(rank) if window[axis] > 1]
    order = [axis for axis in range(rank) if axis not in pooled] + pooled
    dilated = {*asked["base_dilation"], *asked["window_dilation"]} != {1}
    moved = any(asked["window_strides"][axis] > 1 or any(asked["padding"][axis]) for axis in order[:2])
    if len(order) - len(pooled) != 2 or dilated or moved:
        raise NotImplementedError("over others than height and width")
    found = graph.add(
        "MaxPool",
        graph.transpose(x, order),
        kernel_shape=[window[axis] for axis in pooled],
        strides=[asked["window_strides"][axis] for axis in pooled],
        pads=_pads([asked["padding"][axis] for axis in pooled]),
    )
    return graph.transpose(found, np.argsort(order))


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    low, high = zip(*padding, strict=True)
    if min(*low, *high) < 0:
        raise NotImplementedError("with negative padding")
    return [int(size) for size in (*low, *high)]
