"""Encoders of single observation groups, and how a module joins all that it sees."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Shaped

from mjx_hkl.config import Positive, PositiveFloat, Sizes
from mjx_hkl.errors import UserError
from mjx_hkl.kinds import Kinds
from mjx_hkl.models.images import ConvEncoder, ResNetEncoder
from mjx_hkl.models.modules import LATENT, PREVIOUS_LATENT, Module, Observation, Place
from mjx_hkl.models.networks import MLP
from mjx_hkl.models.statistics import Statistic
from mjx_hkl.specs import ArraySpec


@dataclasses.dataclass(frozen=True)
class EncoderFields:
    """What every kind of encoder has: a table `[encoders.GROUP]` of a recipe."""

    shared: bool = False
    """One encoder for all modules that see the group, moved by the losses of policy and critic."""

    def build(self, spec: ArraySpec, rngs: nnx.Rngs) -> Module:
        """A module from arrays of this spec, with any batch axes in front, to vectors of its `size`."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class MLPEncoderFields(EncoderFields):
    """Linear layers with ELU after each (Appendix G); an image is read as one long vector."""

    sizes: Sizes = (50,)
    """Layer sizes; the last one is the number of features that the modules see."""

    def __post_init__(self):
        if not self.sizes:
            raise ValueError("sizes needs at least one layer")

    def build(self, spec: ArraySpec, rngs: nnx.Rngs) -> Module:
        """See `EncoderFields.build`."""
        return MLPEncoder(spec, self.sizes, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class NormalizedFields(EncoderFields):
    """The group less its mean, over its standard deviation, of all that the worlds have shown in training."""

    bound: PositiveFloat = 10.0
    """Normalized numbers are clipped to [-bound, bound]."""

    def build(self, spec: ArraySpec, rngs: nnx.Rngs) -> Module:
        """See `EncoderFields.build`."""
        if not spec.is_vector:
            raise UserError(f"[encoders]: normalized takes vectors of numbers, not {spec}")
        return NormalizedEncoder(spec.size, self.bound)


@dataclasses.dataclass(frozen=True)
class AsItIsFields(EncoderFields):
    """The group as the world gives it, for worlds whose groups are normalized where a recipe does not say."""

    def build(self, spec: ArraySpec, rngs: nnx.Rngs) -> Module:
        """See `EncoderFields.build`."""
        if not spec.is_vector:
            raise UserError(f"[encoders]: as_it_is takes vectors of numbers, not {spec}")
        return AsItIs(spec.size)


@dataclasses.dataclass(frozen=True)
class ConvFields(EncoderFields):
    """Few convolutions, for small images and a CPU: fastest where strides equal kernels."""

    channels: Sizes = (16, 32)
    """Of each convolution."""
    kernel: Sizes = (4, 2)
    """Height and width of each convolution's kernel."""
    stride: Sizes = (4, 2)
    """Of each convolution."""
    embedding: Positive = 64
    """Features that the modules see."""

    def __post_init__(self):
        if not len(self.channels) == len(self.kernel) == len(self.stride) > 0:
            raise ValueError("channels, kernel and stride need one number each for every convolution")

    def build(self, spec: ArraySpec, rngs: nnx.Rngs) -> Module:
        """See `EncoderFields.build`."""
        return ConvEncoder(spec, self.channels, self.kernel, self.stride, self.embedding, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class ResNetFields(EncoderFields):
    """IMPALA's residual network (Espeholt et al. 2018), with the embedding of Appendix G.2."""

    channels: Sizes = (16, 32, 32)
    """Of each section, which halves height and width."""
    embedding: Positive = 256
    """Features that the modules see."""

    def __post_init__(self):
        if not self.channels:
            raise ValueError("channels needs at least one section")

    def build(self, spec: ArraySpec, rngs: nnx.Rngs) -> Module:
        """See `EncoderFields.build`."""
        return ResNetEncoder(spec, self.channels, self.embedding, rngs=rngs)


ENCODERS = Kinds(
    "[encoders]",
    {
        "mlp": MLPEncoderFields,
        "normalized": NormalizedFields,
        "as_it_is": AsItIsFields,
        "conv": ConvFields,
        "resnet": ResNetFields,
    },
    default="mlp",
    base=EncoderFields,
)
EVERY_VECTOR = "all"
"""Stands in `[encoders]` for every group that is a vector and has no encoder named after it."""


class MLPEncoder(Module):
    """An MLP on a group; integers are first divided by the greatest value of their type."""

    def __init__(self, spec: ArraySpec, sizes: tuple[int, ...], *, rngs: nnx.Rngs):
        dtype = np.dtype(spec.dtype)
        self.axes = len(spec.shape)
        self.unit = float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0
        self.mlp = MLP(spec.size, sizes, rngs=rngs)
        self.size = sizes[-1]

    def __call__(self, x: Shaped[Array, "..."]) -> Float[Array, "*batch n"]:
        """Features of the group."""
        batch = x.shape[: x.ndim - self.axes]
        x = x.reshape(*batch, -1)
        return self.mlp(x if self.unit == 1.0 else x.astype(jnp.float32) / self.unit)


class NormalizedEncoder(Module):
    """(x − mean) / standard deviation, by running statistics; before there are any it gives x."""

    def __init__(self, size: int, bound: float):
        self.size = size
        self.bound = bound
        self.count = Statistic(jnp.zeros(()))
        self.mean = Statistic(jnp.zeros(size))
        self.variance = Statistic(jnp.ones(size))

    def __call__(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """The group, normalized."""
        deviation = jnp.maximum(jnp.sqrt(self.variance[...]), _LEAST_DEVIATION)
        return jnp.clip((x - self.mean[...]) / deviation, -self.bound, self.bound)

    def observed(self, x: Float[Array, "*batch n"]) -> "NormalizedEncoder":
        """See `Module.observed`: the statistics of two sets joined (Chan, Golub and LeVeque 1979)."""
        batch = tuple(range(x.ndim - 1))
        mean, variance, fresh_count = x.mean(batch), x.var(batch), math.prod(x.shape[:-1])
        count = self.count[...] + fresh_count
        share = fresh_count / count
        away = mean - self.mean[...]
        after = jax.tree.map(lambda x: x, self)
        after.count[...] = count
        after.mean[...] = self.mean[...] + share * away
        # As a weighted mean it is exact where all is new, and never negative.
        fresh = variance + (1.0 - share) * jnp.square(away)
        after.variance[...] = (1.0 - share) * self.variance[...] + share * fresh
        return after

    def fits(self) -> dict[str, Any]:
        """See `Module.fits`."""
        return {"bound": self.bound}


class AsItIs(Module):
    """Gives what it is given."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """The group."""
        return x


_LEAST_DEVIATION = 1e-4  # what never changes has the rounding of its mean


class Inputs(nnx.Module):
    """Joins what a module sees to one vector: its groups, encoded where they have an encoder, and more.

    Raises:
      UserError: a group that is no vector has no encoder.
    """

    def __init__(self, place: Place, *more: tuple[str, int]):
        """`more` are names and sizes of what is joined after the groups."""
        self.groups = place.groups
        self.encoders = nnx.Dict(
            {
                name: place.encoders[name].build(place.observation[name], place.rngs)
                for name in place.groups
                if name in place.encoders
            }
        )
        for name in place.groups:
            if name not in self.encoders and not place.observation[name].is_vector:
                kind = ' with kind = "conv" or "resnet"' if place.observation[name].is_image else ""
                raise UserError(
                    f"observation group {name!r} is {place.observation[name]}, no vector of numbers: give it"
                    f" an encoder, [encoders.{name}]{kind}, or leave it out of [information]"
                )
        given = [(name, size) for name, size in more if size]
        self.sees = (*place.groups, *(name for name, _ in given))
        self.size = sum(self._size(place, name) for name in place.groups) + sum(size for _, size in given)

    def _size(self, place: Place, name: str) -> int:
        return self.encoders[name].size if name in self.encoders else place.observation[name].size

    def __call__(self, observation: Observation, *more: Array) -> Float[Array, "*batch n"]:
        """The groups in their order, then `more`."""
        seen = [
            self.encoders[name](observation[name]) if name in self.encoders else observation[name]
            for name in self.groups
        ]
        return jnp.concatenate([*seen, *more], axis=-1)


def observed(module: Any, observation: Observation) -> Any:
    """The module whose own encoders have seen fresh observations; see `Module.observed`."""

    def see(x: Any) -> Any:
        if not isinstance(x, Inputs):
            return x
        after = jax.tree.map(lambda x: x, x)
        for name, encoder in x.encoders.items():
            after.encoders[name] = encoder.observed(observation[name])
        return after

    return jax.tree.map(see, module, is_leaf=lambda x: isinstance(x, Inputs))


def latent_input(place: Place) -> tuple[str, int]:
    """z_t as an input."""
    return LATENT, place.latent_size


def history_input(place: Place) -> tuple[str, int]:
    """z_{t−1} as an input, where the prior depends on it."""
    return PREVIOUS_LATENT, place.latent_size * place.sees_latent


def encode(encoders: Any, observation: Observation) -> Observation:
    """The observation with the groups of shared encoders encoded."""
    return {**observation, **{name: encoder(observation[name]) for name, encoder in encoders.items()}}
