"""The building blocks: multi-layer perceptrons, and heads that give distributions."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx_hkl.math.categorical import Categorical
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.modules import Place


@jax.custom_jvp
def elu(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """ELU, as `jax.nn.elu` to 1e-7 and cheaper: exp(x) − 1 for expm1; the slope is 1 or the output + 1."""
    return jnp.where(x > 0, x, jnp.exp(jnp.minimum(x, 0.0)) - 1.0)


@elu.defjvp
def _elu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = elu(*primals)
    return y, tangents[0] * (jnp.minimum(y, 0.0) + 1.0)


@jax.custom_vjp
def layer_norm(
    x: Float[Array, "*batch n"], scale: Float[Array, " n"], bias: Float[Array, " n"]
) -> Float[Array, "*batch n"]:
    """LayerNorm (Ba et al. 2016): as flax's to 1e-6, and cheaper forwards and backwards.

    All sums are matrix products: on a CPU, XLA's reductions take several times as long.
    """
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    centred = x - _row_mean(x)
    inverse_deviation = jax.lax.rsqrt(_row_mean(jnp.square(centred)) + 1e-6)
    normal = centred * inverse_deviation
    return normal * scale + bias, (normal, inverse_deviation, scale)


def _layer_norm_backward(kept: tuple[Array, ...], dy: Array) -> tuple[Array, Array, Array]:
    normal, inverse_deviation, scale = kept
    d_normal = dy * scale
    along = d_normal - _row_mean(d_normal) - normal * _row_mean(d_normal * normal)
    return inverse_deviation * along, _column_sum(dy * normal), _column_sum(dy)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def tanh_layer_norm(
    x: Float[Array, "batch n"], scale: Float[Array, " n"], bias: Float[Array, " n"]
) -> Float[Array, "batch n"]:
    """The tanh of `layer_norm`, whose slope is had from the output."""
    return _tanh_layer_norm_forward(x, scale, bias)[0]


def _tanh_layer_norm_forward(x: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Any, Array]]:
    before_tanh, kept = _layer_norm_forward(x, scale, bias)
    y = jnp.tanh(before_tanh)
    return y, (kept, y)


def _tanh_layer_norm_backward(kept: tuple[Any, Array], dy: Array) -> tuple[Array, Array, Array]:
    of_norm, y = kept
    return _layer_norm_backward(of_norm, dy * (1.0 - jnp.square(y)))


tanh_layer_norm.defvjp(_tanh_layer_norm_forward, _tanh_layer_norm_backward)


def _row_mean(x: Array) -> Array:
    return jnp.matmul(x, jnp.full((x.shape[-1], 1), 1.0 / x.shape[-1]), precision="highest")


def _column_sum(x: Array) -> Array:
    return jnp.tensordot(jnp.ones(x.shape[:-1]), x, x.ndim - 1, precision="highest")


class GatedLinear(nnx.Module):
    """A linear map, each of whose outputs is multiplied by 1 + tanh of another (after Dauphin et al. 2017).

    An instruction that selects one of several things asks for products of what it says and where they are.
    """

    def __init__(self, inputs: int, size: int, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(inputs, 2 * size, rngs=rngs)

    def __call__(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
        """The gated outputs."""
        value, gate = jnp.split(self.linear(x), 2, axis=-1)
        return value * (1.0 + jnp.tanh(gate))


def first_layer(inputs: int, size: int, gated: bool, *, rngs: nnx.Rngs) -> nnx.Linear | GatedLinear:
    """What a network's inputs go into."""
    return (GatedLinear if gated else nnx.Linear)(inputs, size, rngs=rngs)


class MLP(nnx.Module):
    """Linear layers with ELU after each (Appendix G), and LayerNorm between the two if `layer_norm`."""

    def __init__(
        self,
        inputs: int,
        sizes: tuple[int, ...],
        layer_norm: bool = False,
        gated: bool = False,
        *,
        rngs: nnx.Rngs,
    ):
        widths = (inputs, *sizes)
        self.layers = nnx.List(
            first_layer(n_in, n_out, gated and not i, rngs=rngs)
            for i, (n_in, n_out) in enumerate(itertools.pairwise(widths))
        )
        self.norms = nnx.List(nnx.LayerNorm(n, rngs=rngs) for n in sizes if layer_norm)
        self.size = widths[-1]

    def __call__(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
        """The last layer's features."""
        for layer, norm in itertools.zip_longest(self.layers, self.norms):
            x = layer(x)
            x = elu(x if norm is None else layer_norm(x, *scale_and_bias(norm)))
        return x


def scale_and_bias(norm: nnx.LayerNorm) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """The parameters that `layer_norm` takes."""
    assert norm.scale is not None, "made with one"
    assert norm.bias is not None, "likewise"
    return norm.scale[...], norm.bias[...]


HEAD_GAIN = 0.1


def head_kernel(gain: float) -> nnx.Initializer:
    """Initial weights of a head: LeCun's (truncated normal, variance 1 / inputs), times the gain."""
    return nnx.initializers.variance_scaling(gain**2, "fan_in", "truncated_normal")


class GaussianHead(nnx.Module):
    """A linear map to a mean and a standard deviation inside fixed bounds.

    With a small gain it starts near mean 0 and the middle of the bounds. Unbounded scales collapse or blow up
    under a critic that knows nothing yet.
    """

    distribution = Gaussian

    def __init__(
        self,
        inputs: int,
        size: int,
        scale_range: tuple[float, float],
        gain: float = HEAD_GAIN,
        *,
        rngs: nnx.Rngs,
    ):
        self.scale_range = scale_range
        self.linear = nnx.Linear(inputs, 2 * size, kernel_init=head_kernel(gain), rngs=rngs)

    def __call__(self, x: Float[Array, "*batch n"]) -> Gaussian:
        """The distribution for each input."""
        return self.bounded(self.linear(x))

    def bounded(self, raw: Float[Array, "*batch raw"]) -> Gaussian:
        """The distribution that outputs of the linear map stand for."""
        mean, raw_scale = jnp.split(raw, 2, axis=-1)
        least, greatest = self.scale_range
        return Gaussian(mean, least + (greatest - least) * jax.nn.sigmoid(raw_scale))


class SquashedHead(GaussianHead):
    """A Gaussian head whose mean is squashed by tanh."""

    def bounded(self, raw: Float[Array, "*batch raw"]) -> Gaussian:
        """The distribution that outputs of the linear map stand for."""
        action = super().bounded(raw)
        return Gaussian(jnp.tanh(action.mean), action.scale)


class CategoricalHead(nnx.Module):
    """A linear map to the logits of discrete actions; with a small gain it starts near the uniform one."""

    distribution = Categorical

    def __init__(self, inputs: int, size: int, gain: float = HEAD_GAIN, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(inputs, size, kernel_init=head_kernel(gain), rngs=rngs)

    def __call__(self, x: Float[Array, "*batch n"]) -> Categorical:
        """The distribution for each input."""
        return self.bounded(self.linear(x))

    def bounded(self, raw: Float[Array, "*batch raw"]) -> Categorical:
        """The distribution that outputs of the linear map stand for."""
        return Categorical(raw)


ActionHead = SquashedHead | CategoricalHead


def action_head(
    inputs: int, place: Place, scale_range: tuple[float, float], gain: float = HEAD_GAIN
) -> ActionHead:
    """The head that suits the world's actions; discrete ones have no scale."""
    if place.action_kind == "categorical":
        return CategoricalHead(inputs, place.action_size, gain, rngs=place.rngs)
    return SquashedHead(inputs, place.action_size, scale_range, gain, rngs=place.rngs)
