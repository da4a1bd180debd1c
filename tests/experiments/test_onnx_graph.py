"""What JAX computes, ONNX computes: a function for each kind of primitive, for any number of worlds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_hkl.errors import UserError
from mjx_hkl.specs import ArraySpec

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from mjx_hkl.experiments.onnx.graph import Traced, save  # noqa: E402

X, Y, N, IMAGE = ArraySpec((6,)), ArraySpec((4,)), ArraySpec((), "int32"), ArraySpec((16, 12, 3), "uint8")


def traced(function, specs):
    inputs = {"is_first": ArraySpec((), "bool"), **specs}
    return Traced.of(lambda _, x: {"out": function(*(x[name] for name in specs))}, (), str, inputs)


def compare(function, tmp_path=None, **specs):
    model = traced(function, specs).model(["is_first", *specs], ["out"])
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        random = np.random.default_rng(batch)
        arrays = {
            name: random.normal(size=(batch, *spec.shape)).astype(spec.dtype)
            if spec.dtype == "float32"
            else random.integers(0, 5, (batch, *spec.shape)).astype(spec.dtype)
            for name, spec in specs.items()
        }
        (found,) = session.run(["out"], {"is_first": np.ones(batch, bool), **arrays})
        expected = np.asarray(function(*map(jnp.asarray, arrays.values())))
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def strided(x):
    conv = nnx.Conv(3, 4, (3, 3), (2, 2), rngs=nnx.Rngs(0))
    return conv(x.astype(jnp.float32) / 255)


def pooled(x):
    return nnx.max_pool(x.astype(jnp.float32), (3, 3), (2, 2), "SAME")


def patches(x):
    x = x.astype(jnp.float32).reshape(-1, 4, 4, 3, 4, 3)
    return jnp.swapaxes(x, 2, 3).reshape(-1, 4, 3, 48)


WEIGHTS = np.linspace(-1, 1, 6 * 3 * 4, dtype=np.float32).reshape(6, 3, 4)
OF_VECTORS = {
    "activations": lambda x: jax.nn.gelu(x, approximate=False) + jax.nn.softplus(x) + jax.nn.silu(x),
    "gelu": jax.nn.gelu,
    "logarithms": lambda x: jnp.log1p(jnp.abs(x)) + jnp.expm1(x) + jnp.log(jnp.exp(x)),
    "roots": lambda x: jax.lax.rsqrt(jnp.square(x) + 1) + jnp.sqrt(jnp.abs(x)) + jnp.abs(x) ** 1.5 + x**3,
    "angles": lambda x: jnp.sin(x) + jnp.cos(x) + jnp.arctan(x),
    "rounding": lambda x: jnp.round(x) + jnp.floor(x) + jnp.ceil(x) + jnp.sign(x),
    "remainder": lambda x: x % 0.7,
    "bounds": lambda x: jax.lax.clamp(-1.0, jnp.clip(x, -2, 0.5), 0.3) + jax.nn.relu(x),
    "logic": lambda x: ((x > 0) & ~(x >= 1)) | (x < -1) | (x != x) ^ (x <= -2),
    "reductions": lambda x: x.sum(-1) + x.max(-1) - x.min(-1) + x.prod(-1) + x.mean(-1) + x.std(-1),
    "any": lambda x: (x > 1).any(-1) & (x > -3).all(-1),
    "finite": lambda x: jnp.isfinite(x / x),
    "norm": lambda x: jnp.linalg.norm(x, axis=-1, keepdims=True),
    "softmax": lambda x: jax.nn.softmax(x) + jax.nn.log_softmax(x),
    "logsumexp": lambda x: jax.nn.logsumexp(x, -1),
    "choice": lambda x: jnp.argmax(x, -1) + jnp.argmin(x, -1),
    "cumulated": lambda x: jnp.cumsum(x, -1),
    "entry": lambda x: x[:, 0] + x[:, -1],
    "entries": lambda x: x[:, jnp.array([4, 1, 1])],
    "table of entries": lambda x: x[..., np.array([[4, 1], [0, 0]])],
    "parts": lambda x: jnp.concatenate([x[:, -2:], x[:, ::2], x[:, :0], jnp.split(x, 3, -1)[1]], -1),
    "reversed": lambda x: x[:, ::-1],
    "shapes": lambda x: jnp.stack([x, x], 1).reshape(-1, 3, 4).transpose(0, 2, 1)[:, None].squeeze(1),
    "all in one axis": lambda x: x.reshape(-1),
    "of the batch": lambda x: jnp.ones((*x.shape[:-1], 3)) * jnp.zeros((x.shape[0], 1)),
    "of the size of the batch": lambda x: x / jnp.float32(2 * x.shape[0]),
    "numbered": lambda x: x + jax.lax.broadcasted_iota(jnp.float32, x.shape, 1),
    "products": lambda x: jnp.einsum("bi,ijk->bkj", x, WEIGHTS),
    "products world by world": lambda x: jax.vmap(lambda row: row @ row)(x),
    "recurrent": lambda x: nnx.GRUCell(6, 6, rngs=nnx.Rngs(0))(x, x)[0],
    "normalized": lambda x: nnx.LayerNorm(6, rngs=nnx.Rngs(0))(x),
    "a sum of nothing": lambda x: x[:, :0] @ jnp.zeros((0, 2)),
    "constants drawn": lambda x: x + jax.random.normal(jax.random.key(0), (6,)),
    "checkpointed": lambda x: jax.checkpoint(jnp.tanh)(x),
}


@pytest.mark.parametrize("name", OF_VECTORS)
def test_it_computes_what_jax_computes(name):
    compare(OF_VECTORS[name], x=X)


@pytest.mark.parametrize("function", [strided, pooled, patches])
def test_images(function):
    compare(function, x=IMAGE)


def test_two_inputs():
    compare(lambda x, y: jnp.einsum("bi,bj->bij", x, y), x=X, y=Y)
    compare(lambda n, x: jnp.where(n[:, None] > 2, x, 0.0), n=N, x=X)


def test_integers():
    compare(lambda n: (n + 1) % 3, n=N)
    compare(lambda n: (n - 2) // 2 + (n & 1) + (n ^ 3), n=N)
    compare(lambda n: jax.nn.one_hot(n, 3), n=N)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.slices(6), min_size=1, max_size=3))
def test_any_parts_of_a_vector(slices):
    compare(lambda x: jnp.concatenate([x[:, part] for part in slices] + [x], -1), x=X)


def test_what_the_outputs_do_not_need_is_left_out():
    def function(_, x):
        return {"a": jax.jit(lambda y: (y + 1, jnp.sort(x["z"])))(x["y"])[0], "b": x["z"]}

    specs = {"is_first": ArraySpec((), "bool"), "y": Y, "z": X}
    found = Traced.of(function, (), str, specs)
    assert found.reads(["a"]) == {"y"}
    assert found.reads(["a", "b"]) == {"y", "z"}
    model = found.model(["is_first", "y"], ["a"])
    assert [node.op_type for node in model.graph.node] == ["Add", "Identity"]


def test_parameters_keep_their_names(tmp_path):
    layer = {"kernel": np.ones((6, 2), np.float32), "unused": np.ones(3, np.float32)}
    inputs = {"is_first": ArraySpec((), "bool"), "x": X}
    name = lambda path: jax.tree_util.keystr(path, simple=True)  # noqa: E731
    found = Traced.of(lambda layer, x: {"out": x["x"] @ layer["kernel"]}, layer, name, inputs)
    model = found.model(["is_first", "x"], ["out"])
    assert [tensor.name for tensor in model.graph.initializer] == ["kernel"]
    save(model, {"said": "so"}, tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"said": "so"}
    assert [x.shape for x in session.get_inputs()] == [["batch"], ["batch", 6]]


def mine(x):
    return jax.lax.erf_inv(x)


REFUSED = {
    "erf_inv": mine,
    "sort": lambda x: jnp.sort(x, -1),
    "(gather|dynamic_slice), .* that are not constant": lambda x: x[:, jnp.argmax(x[0])],
    "while": lambda x: jax.lax.fori_loop(0, x.shape[0], lambda i, y: y + 1, x),
    "Python code that asks how many worlds": lambda x: x if x.shape[0] > 3 else -x,
    "iota, over the worlds": lambda x: x[:, 0] + jnp.arange(x.shape[0]),
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_onnx_cannot_express_is_named(told):
    with pytest.raises(UserError, match=f"^ONNX cannot express: {told}") as caught:
        traced(REFUSED[told], {"x": X}).model(["is_first", "x"], ["out"])
    assert "\n" not in str(caught.value)


def test_it_says_whose_code_it_is():
    with pytest.raises(UserError, match=r"erf_inv \(experiments/test_onnx_graph.py, mine\)"):
        traced(mine, {"x": X}).model(["is_first", "x"], ["out"])
