"""An encoder of its own: convolutions over an observation group that is an image."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from mjx_hkl.config import Positive, Sizes
from mjx_hkl.models.encoders import EncoderFields
from mjx_hkl.models.modules import Module


@dataclasses.dataclass(frozen=True)
class Convolution(EncoderFields):
    """Its fields are a table of the recipe, [encoders.GROUP]."""

    channels: Sizes = (8, 16)
    """Of each layer; each halves height and width."""
    features: Positive = 32
    """Numbers that the modules see of the image."""

    def build(self, spec, rngs):
        """The module; `spec` says the image's shape and type."""
        return ConvolutionEncoder(spec, self, rngs)


class ConvolutionEncoder(Module):
    """It takes images of bytes, (height, width, channels), after any batch axes."""

    def __init__(self, spec, fields, rngs):
        height, width, channels = spec.shape
        sizes = (channels, *fields.channels)
        self.layers = nnx.List(
            nnx.Conv(before, after, (3, 3), strides=2, rngs=rngs)
            for before, after in itertools.pairwise(sizes)
        )
        shrink = 2 ** len(fields.channels)
        flat = -(-height // shrink) * -(-width // shrink) * sizes[-1]
        self.last = nnx.Linear(flat, fields.features, rngs=rngs)
        self.size = fields.features

    def __call__(self, image):
        """Features of the images."""
        batch = image.shape[:-3]
        x = image.astype(jnp.float32).reshape(-1, *image.shape[-3:]) / 255
        for layer in self.layers:
            x = jax.nn.elu(layer(x))
        return jax.nn.elu(self.last(x.reshape(*batch, -1)))
