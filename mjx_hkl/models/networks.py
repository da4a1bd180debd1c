"""The building blocks: multi-layer perceptrons and Gaussian heads with bounded scales."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx_hkl.math.categorical import Categorical
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.config import ModelConfig

Observation = Mapping[str, Float[Array, "*batch _n"]]
Distribution = Gaussian | Categorical


@jax.custom_jvp
def elu(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """ELU, as `jax.nn.elu` to 1e-7 and cheaper: exp(x) − 1 for expm1; the slope is 1 or the output + 1."""
    return jnp.where(x > 0, x, jnp.exp(jnp.minimum(x, 0.0)) - 1.0)


@elu.defjvp
def _elu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = elu(*primals)
    return y, tangents[0] * (jnp.minimum(y, 0.0) + 1.0)


class MLP(nnx.Module):
    """Linear layers with ELU after each (Appendix G)."""

    def __init__(self, inputs: int, sizes: tuple[int, ...], *, rngs: nnx.Rngs):
        widths = (inputs, *sizes)
        self.layers = nnx.List(
            nnx.Linear(n_in, n_out, rngs=rngs) for n_in, n_out in zip(widths, sizes, strict=False)
        )

    def __call__(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
        """The last layer's features."""
        for layer in self.layers:
            x = elu(layer(x))
        return x


class Inputs(nnx.Module):
    """The observation groups a module sees, boxes through an encoder where there is one, and more, joined."""

    def __init__(
        self, sizes: Mapping[str, int], groups: tuple[str, ...], config: ModelConfig, *, rngs: nnx.Rngs
    ):
        self.groups = groups
        hidden = config.encoder.boxes if "boxes" in groups else ()
        self.boxes = MLP(sizes["boxes"], hidden, rngs=rngs) if hidden else None
        self.size = sum(hidden[-1] if hidden and name == "boxes" else sizes[name] for name in groups)

    def __call__(self, observation: Observation, *more: Array) -> Float[Array, "*batch n"]:
        """The groups in their order, then `more`."""
        encode = {} if self.boxes is None else {"boxes": self.boxes(observation["boxes"])}
        return jnp.concatenate([*({**observation, **encode}[name] for name in self.groups), *more], axis=-1)


small_kernel = nnx.initializers.variance_scaling(1e-2, "fan_in", "truncated_normal")


class GaussianHead(nnx.Module):
    """A linear map to a mean and a standard deviation inside fixed bounds.

    It starts near mean 0 and the middle of the bounds. Unbounded scales collapse or blow up under a
    critic that knows nothing yet.
    """

    def __init__(self, inputs: int, size: int, scale_range: tuple[float, float], *, rngs: nnx.Rngs):
        self._scale_range = scale_range
        self.linear = nnx.Linear(inputs, 2 * size, kernel_init=small_kernel, rngs=rngs)

    def __call__(self, x: Float[Array, "*batch n"]) -> Gaussian:
        """The distribution for each input."""
        return self.bounded(self.linear(x))

    def bounded(self, raw: Float[Array, "*batch raw"]) -> Gaussian:
        """The distribution that outputs of the linear map stand for."""
        mean, raw_scale = jnp.split(raw, 2, axis=-1)
        least, greatest = self._scale_range
        return Gaussian(mean, least + (greatest - least) * jax.nn.sigmoid(raw_scale))
