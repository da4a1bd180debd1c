"""Primitives that only move numbers: shapes, parts, joins."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mjx_hkl.experiments.onnx.table import Table, shape_of

SHAPES = Table()


def _known(x: Any, what: str) -> np.ndarray:
    if not isinstance(x, np.ndarray):
        raise NotImplementedError(f"{what} that are not constant")
    return x


@SHAPES("broadcast_in_dim")
def _broadcast(graph, equation, x, *sizes):
    shape, axes = equation.params["shape"], equation.params["broadcast_dimensions"]
    added = [axis for axis in range(len(shape)) if axis not in axes]
    own = [1] * len(shape)
    for axis, size in zip(axes, shape_of(equation), strict=True):
        own[axis] = size
    x = graph.add("Unsqueeze", x, graph.ints(*added)) if added else x
    return x if tuple(own) == tuple(shape) else graph.add("Expand", x, graph.shape(shape))


@SHAPES("dim_as_value")
def _size_of_the_batch(graph, equation):
    size = graph.add("Squeeze", graph.shape([equation.params["dim"]]), graph.ints(0))
    return graph.cast(size, equation.outvars[0].aval.dtype)


@SHAPES("reshape")
def _reshape(graph, equation, x, *sizes):
    shape = equation.params["new_sizes"]
    symbolic = [not isinstance(size, int) for size in shape]
    if sum(symbolic) == 1:  # most runtimes plan ahead with it
        return graph.add(
            "Reshape", x, graph.ints(*(-1 if s else n for n, s in zip(shape, symbolic, strict=True)))
        )
    return graph.add("Reshape", x, graph.shape(shape))


@SHAPES("squeeze")
def _squeeze(graph, equation, x):
    return graph.add("Squeeze", x, graph.ints(*equation.params["dimensions"]))


@SHAPES("expand_dims")
def _expand_dims(graph, equation, x):
    return graph.add("Unsqueeze", x, graph.ints(*equation.params["dimensions"]))


@SHAPES("transpose")
def _transpose(graph, equation, x):
    return graph.transpose(x, equation.params["permutation"])


@SHAPES("concatenate")
def _concatenate(graph, equation, *parts):
    return graph.add("Concat", *(x for x in parts if x is not None), axis=equation.params["dimension"])


@SHAPES("stack")
def _stack(graph, equation, *parts):
    axis = equation.params["axis"]
    return graph.add("Concat", *(graph.add("Unsqueeze", x, graph.ints(axis)) for x in parts), axis=axis)


@SHAPES("split")
def _split(graph, equation, x):
    sizes, axis = equation.params["sizes"], equation.params["axis"]
    parts = graph.add("Split", x, graph.ints(*sizes), outputs=len(sizes), axis=axis)
    return parts if len(sizes) > 1 else [parts]


@SHAPES("slice")
def _slice(graph, equation, x):
    start, stop = equation.params["start_indices"], equation.params["limit_indices"]
    return _window(graph, x, shape_of(equation), start, stop, equation.params["strides"])


@SHAPES("dynamic_slice")
def _dynamic_slice(graph, equation, x, *start):
    shape, sizes = shape_of(equation), equation.params["slice_sizes"]
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


@SHAPES("rev")
def _reverse(graph, equation, x):
    axes = equation.params["dimensions"]
    ends = ([size] * len(axes) for size in (-1, np.iinfo(np.int64).min))
    return graph.add(
        "Slice", x, *(graph.ints(*end) for end in ends), graph.ints(*axes), graph.ints(*[-1] * len(axes))
    )


@SHAPES("gather")
def _gather(graph, equation, x, indices):
    """Windows at one place that is known, or entries of one axis."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape, axes = shape_of(equation), numbers.start_index_map
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


@SHAPES("iota")
def _iota(graph, equation):
    shape, axis = equation.params["shape"], equation.params["dimension"]
    if not isinstance(shape[axis], int):
        raise NotImplementedError("over the worlds")
    numbers = np.arange(shape[axis], dtype=equation.params["dtype"])
    return graph.add("Expand", numbers.reshape(-1, *[1] * (len(shape) - axis - 1)), graph.shape(shape))
