"""Networks that encode images (height, width, channels), after any batch axes."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Shaped

from mjx_hkl.errors import UserError
from mjx_hkl.models.modules import Module
from mjx_hkl.models.networks import elu
from mjx_hkl.specs import ArraySpec


class ConvEncoder(Module):
    """Convolutions without padding, then a linear layer; ELU after each."""

    def __init__(
        self,
        spec: ArraySpec,
        channels: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        embedding: int,
        *,
        rngs: nnx.Rngs,
    ):
        height, width, before = _image(spec, "conv")
        self.strides = stride
        layers = []
        for after, side, step in zip(channels, kernel, stride, strict=True):
            if min(height, width) < side:
                raise UserError(
                    f"[encoders]: conv: layer {len(layers) + 1} has a kernel of {side}, but images of"
                    f" {spec} come to it as {height}x{width}: take smaller kernels or strides"
                )
            layers.append(nnx.Conv(before, after, (side, side), step, padding="VALID", rngs=rngs))
            height, width, before = (height - side) // step + 1, (width - side) // step + 1, after
        self.layers = nnx.List(layers)
        self.last = nnx.Linear(height * width * before, embedding, rngs=rngs)
        self.size = embedding

    def __call__(self, x: Shaped[Array, "*batch height width channels"]) -> Float[Array, "*batch n"]:
        """Features of the images."""
        batch, x = x.shape[:-3], _numbers(x)
        for layer, stride in zip(self.layers, self.strides, strict=True):
            x = elu(_of_patches(layer, x) if stride == layer.kernel_size[0] else layer(x))
        return elu(self.last(x.reshape(*batch, -1)))


class ResNetEncoder(Module):
    """IMPALA's large network (Espeholt et al. 2018, figure 3) up to its embedding, one for each image."""

    def __init__(self, spec: ArraySpec, channels: tuple[int, ...], embedding: int, *, rngs: nnx.Rngs):
        height, width, before = _image(spec, "resnet")
        self.sections = nnx.List(
            _Section(*sizes, rngs=rngs) for sizes in itertools.pairwise((before, *channels))
        )
        for _ in channels:
            height, width = -(-height // 2), -(-width // 2)
        self.last = nnx.Linear(height * width * channels[-1], embedding, rngs=rngs)
        self.size = embedding

    def __call__(self, x: Shaped[Array, "*batch height width channels"]) -> Float[Array, "*batch n"]:
        """Features of the images."""
        batch, x = x.shape[:-3], _numbers(x)
        for section in self.sections:
            x = section(x)
        return jax.nn.relu(self.last(jax.nn.relu(x).reshape(*batch, -1)))


class _Section(nnx.Module):
    """A convolution, a maximum over 3 x 3 that halves height and width, and two residual blocks."""

    def __init__(self, before: int, after: int, *, rngs: nnx.Rngs):
        self.first = nnx.Conv(before, after, (3, 3), rngs=rngs)
        self.blocks = nnx.List(
            nnx.List(nnx.Conv(after, after, (3, 3), rngs=rngs) for _ in range(2)) for _ in range(2)
        )

    def __call__(
        self, x: Float[Array, "n height width before"]
    ) -> Float[Array, "n half_height half_width after"]:
        x = nnx.max_pool(self.first(x), (3, 3), (2, 2), "SAME")
        for one, two in self.blocks:
            x = x + two(jax.nn.relu(one(jax.nn.relu(x))))
        return x


def _image(spec: ArraySpec, kind: str) -> tuple[int, ...]:
    if len(spec.shape) != 3:
        raise UserError(f"[encoders]: {kind} takes images (height, width, channels), not {spec}")
    return spec.shape


def _numbers(x: Array) -> Float[Array, "n height width channels"]:
    """The images on one batch axis; bytes as numbers from 0 to 1."""
    x = x.reshape(-1, *x.shape[-3:])
    return x.astype(jnp.float32) / 255.0 if x.dtype == jnp.uint8 else x


def _of_patches(
    layer: nnx.Conv, x: Float[Array, "n height width before"]
) -> Float[Array, "n rows columns after"]:
    """A convolution whose patches do not overlap, as one product.

    On a CPU with its gradients it takes a quarter of the time of XLA's convolution, of several seeds too.
    """
    side = layer.kernel_size[0]
    rows, columns = x.shape[1] // side, x.shape[2] // side
    x = x[:, : rows * side, : columns * side].reshape(-1, rows, side, columns, side, x.shape[-1])
    patches = jnp.swapaxes(x, 2, 3).reshape(-1, rows, columns, side * side * x.shape[-1])
    assert layer.bias is not None, "made with one"
    return patches @ layer.kernel[...].reshape(-1, layer.out_features) + layer.bias[...]
