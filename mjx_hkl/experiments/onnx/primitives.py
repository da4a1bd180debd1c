"""JAX's primitives in ONNX: a table of functions that add nodes to a graph.

Each takes the graph, the equation and its inputs, and gives the name of its output, or the names of several. It
raises NotImplementedError, with the reason, where it does not know what the equation asks.
"""

import string
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

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


def _node(kind: str) -> Callable[..., Any]:
    return lambda graph, equation, *inputs: graph.add(kind, *inputs)


PRIMITIVES: dict[str, Callable[..., Any]] = {name: _node(kind) for name, kind in _SAME.items()}


def _primitive(*names: str) -> Callable[[Callable], Callable]:
    def register(function: Callable) -> Callable:
        PRIMITIVES.update(dict.fromkeys(names, function))
        return function

    return register


def _shape(equation: Any, number: int = 0) -> tuple[Any, ...]:
    return equation.invars[number].aval.shape


def _like(equation: Any, value: float) -> np.ndarray:
    """A constant of the type of the first input."""
    return np.asarray(value, equation.invars[0].aval.dtype)


def _known(x: Any, what: str) -> np.ndarray:
    if not isinstance(x, np.ndarray):
        raise NotImplementedError(f"{what} that are not constant")
    return x


@_primitive("ne", "xor")
def _differs(graph, equation, x, y):
    if equation.primitive.name == "xor" and equation.invars[0].aval.dtype != bool:
        return graph.add("BitwiseXor", x, y)
    return graph.add("Not", graph.add("Equal", x, y))


@_primitive("and", "or", "not")
def _logic(graph, equation, *inputs):
    of_bits = "" if equation.invars[0].aval.dtype == bool else "Bitwise"
    return graph.add(of_bits + equation.primitive.name.capitalize(), *inputs)


@_primitive("rem")
def _remainder(graph, equation, x, y):
    return graph.add("Mod", x, y, fmod=1)  # with the sign of x


@_primitive("square")
def _square(graph, equation, x):
    return graph.add("Mul", x, x)


@_primitive("integer_pow")
def _integer_pow(graph, equation, x):
    return graph.add("Pow", x, _like(equation, equation.params["y"]))


@_primitive("rsqrt")
def _inverse_root(graph, equation, x):
    return graph.add("Reciprocal", graph.add("Sqrt", x))


@_primitive("log1p")
def _log1p(graph, equation, x):
    return graph.add("Log", graph.add("Add", x, _like(equation, 1)))


@_primitive("expm1")
def _expm1(graph, equation, x):
    return graph.add("Sub", graph.add("Exp", x), _like(equation, 1))


@_primitive("erfc")
def _erfc(graph, equation, x):
    return graph.add("Sub", _like(equation, 1), graph.add("Erf", x))


@_primitive("is_finite")
def _is_finite(graph, equation, x):
    return graph.add("Not", graph.add("Or", graph.add("IsNaN", x), graph.add("IsInf", x)))


@_primitive("round")
def _round(graph, equation, x):
    if int(equation.params["rounding_method"]) != 1:
        raise NotImplementedError("halves away from 0; jnp.round takes them to even numbers")
    return graph.add("Round", x)


@_primitive("clamp")
def _clamp(graph, equation, least, x, most):
    return graph.add("Min", graph.add("Max", x, least), most)


@_primitive("select_n")
def _select(graph, equation, which, *cases):
    if len(cases) != 2:
        raise NotImplementedError(f"of {len(cases)} cases")
    return graph.add("Where", graph.cast(which, bool), cases[1], cases[0])


@_primitive("convert_element_type")
def _convert(graph, equation, x):
    return graph.cast(x, equation.params["new_dtype"])


@_primitive("optimization_barrier")
def _barrier(graph, equation, *inputs):
    return [graph.add("Identity", x) for x in inputs]


@_primitive("broadcast_in_dim")
def _broadcast(graph, equation, x, *sizes):
    shape, axes = equation.params["shape"], equation.params["broadcast_dimensions"]
    added = [axis for axis in range(len(shape)) if axis not in axes]
    own = [1] * len(shape)
    for axis, size in zip(axes, _shape(equation), strict=True):
        own[axis] = size
    x = graph.add("Unsqueeze", x, graph.ints(*added)) if added else x
    return x if tuple(own) == tuple(shape) else graph.add("Expand", x, graph.shape(shape))


@_primitive("reshape")
def _reshape(graph, equation, x, *sizes):
    shape = equation.params["new_sizes"]
    symbolic = [not isinstance(size, int) for size in shape]
    if sum(symbolic) == 1:  # most runtimes plan ahead with it
        return graph.add(
            "Reshape", x, graph.ints(*(-1 if s else n for n, s in zip(shape, symbolic, strict=True)))
        )
    return graph.add("Reshape", x, graph.shape(shape))


@_primitive("squeeze")
def _squeeze(graph, equation, x):
    return graph.add("Squeeze", x, graph.ints(*equation.params["dimensions"]))


@_primitive("expand_dims")
def _expand_dims(graph, equation, x):
    return graph.add("Unsqueeze", x, graph.ints(*equation.params["dimensions"]))


@_primitive("transpose")
def _transpose(graph, equation, x):
    return graph.transpose(x, equation.params["permutation"])


@_primitive("concatenate")
def _concatenate(graph, equation, *parts):
    return graph.add("Concat", *(x for x in parts if x is not None), axis=equation.params["dimension"])


@_primitive("stack")
def _stack(graph, equation, *parts):
    axis = equation.params["axis"]
    return graph.add("Concat", *(graph.add("Unsqueeze", x, graph.ints(axis)) for x in parts), axis=axis)


@_primitive("split")
def _split(graph, equation, x):
    sizes, axis = equation.params["sizes"], equation.params["axis"]
    parts = graph.add("Split", x, graph.ints(*sizes), outputs=len(sizes), axis=axis)
    return parts if len(sizes) > 1 else [parts]


@_primitive("slice")
def _slice(graph, equation, x):
    start, stop = equation.params["start_indices"], equation.params["limit_indices"]
    return _window(graph, x, _shape(equation), start, stop, equation.params["strides"])


@_primitive("dynamic_slice")
def _dynamic_slice(graph, equation, x, *start):
    shape, sizes = _shape(equation), equation.params["slice_sizes"]
    whole = [n == size for n, size in zip(shape, sizes, strict=True)]
    first = [0 if w else int(_known(at, "starts")) for w, at in zip(whole, start, strict=True)]
    first = [
        at if w else max(0, min(at, n - size))
        for w, at, n, size in zip(whole, first, shape, sizes, strict=True)
    ]
    return _window(graph, x, shape, first, [at + size for at, size in zip(first, sizes, strict=True)])


def _window(
    graph: Any, x: Any, shape: Sequence, start: Sequence, stop: Sequence, strides: Sequence[int] | None = None
) -> Any:
    """x[start:stop:stride] of each axis, those left out that are taken whole."""
    strides = strides or [1] * len(shape)
    cut = [
        (axis, *of)
        for axis, (size, *of) in enumerate(zip(shape, start, stop, strides, strict=True))
        if of != [0, size, 1]
    ]
    if not cut:
        return graph.add("Identity", x)
    axes, start, stop, strides = zip(*cut, strict=True)
    if not all(isinstance(size, int) for size in stop):
        raise NotImplementedError("of a part of the worlds")
    return graph.add("Slice", x, *(graph.ints(*values) for values in (start, stop, axes, strides)))


@_primitive("rev")
def _reverse(graph, equation, x):
    axes = equation.params["dimensions"]
    ends = ([size] * len(axes) for size in (-1, np.iinfo(np.int64).min))
    return graph.add(
        "Slice", x, *(graph.ints(*end) for end in ends), graph.ints(*axes), graph.ints(*[-1] * len(axes))
    )


@_primitive("gather")
def _gather(graph, equation, x, indices):
    """Windows at one place that is known, or entries of one axis."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape, axes = _shape(equation), numbers.start_index_map
    indices = _known(indices, "indices")
    if numbers.operand_batching_dims:
        raise NotImplementedError("with others for each world")
    bounds = np.array([shape[axis] - sizes[axis] for axis in axes], np.int64)
    if (indices < 0).any() or (indices > bounds).any():
        raise NotImplementedError("out of bounds")
    if indices.ndim == 1:
        start = [0] * len(shape)
        for axis, index in zip(axes, indices, strict=True):
            start[axis] = int(index)
        stop = [at + size for at, size in zip(start, sizes, strict=True)]
        found = _window(graph, x, shape, start, stop)
        gone = numbers.collapsed_slice_dims
        return graph.add("Squeeze", found, graph.ints(*gone)) if gone else found
    (axis, *more), count, rank = axes, indices.ndim - 1, len(equation.outvars[0].aval.shape)
    kept = tuple(i for i in range(rank) if not axis <= i < axis + count)
    whole = all(size == n for i, (size, n) in enumerate(zip(sizes, shape, strict=True)) if i != axis)
    if more or numbers.collapsed_slice_dims != (axis,) or numbers.offset_dims != kept or not whole:
        raise NotImplementedError("of several axes at once")
    return graph.add("Gather", x, indices[..., 0], axis=axis)


@_primitive("iota")
def _iota(graph, equation):
    shape, axis = equation.params["shape"], equation.params["dimension"]
    if not isinstance(shape[axis], int):
        raise NotImplementedError("over the worlds")
    numbers = np.arange(shape[axis], dtype=equation.params["dtype"])
    return graph.add("Expand", numbers.reshape(-1, *[1] * (len(shape) - axis - 1)), graph.shape(shape))


@_primitive("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
def _reduce(graph, equation, x):
    kind = "Reduce" + equation.primitive.name.removeprefix("reduce_").capitalize()
    if x is None:
        raise NotImplementedError("of nothing")
    return graph.add(kind, x, graph.ints(*equation.params["axes"]), keepdims=0)


@_primitive("reduce_and", "reduce_or")
def _reduce_logic(graph, equation, x):
    kind = "ReduceMin" if equation.primitive.name == "reduce_and" else "ReduceMax"
    found = graph.add(kind, graph.cast(x, np.int32), graph.ints(*equation.params["axes"]), keepdims=0)
    return graph.cast(found, bool)


@_primitive("argmax", "argmin")
def _arg(graph, equation, x):
    kind = "Arg" + equation.primitive.name.removeprefix("arg").capitalize()
    (axis,) = equation.params["axes"]
    return graph.cast(graph.add(kind, x, axis=axis, keepdims=0), equation.params["index_dtype"])


@_primitive("cumsum")
def _cumsum(graph, equation, x):
    axis = np.asarray(equation.params["axis"], np.int64)
    return graph.add("CumSum", x, axis, reverse=int(equation.params["reverse"]))


@_primitive("dot_general")
def _dot(graph, equation, x, y):
    (of_x, of_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    rank_x, rank_y = len(_shape(equation)), len(_shape(equation, 1))
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


@_primitive("conv_general_dilated")
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


@_primitive("reduce_window_max")
def _max_pool(graph, equation, x):
    asked, rank = equation.params, len(_shape(equation))
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
