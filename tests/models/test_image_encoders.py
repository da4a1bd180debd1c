"""Encoders of images against loops and against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.ndimage import maximum_filter
from scipy.signal import correlate

from mjx_hkl.errors import UserError
from mjx_hkl.models.encoders import ENCODERS
from mjx_hkl.specs import ArraySpec

BYTES = ArraySpec((13, 10, 3), "uint8")


def made(spec=BYTES, **fields):
    encoder = ENCODERS.build(fields).build(spec, nnx.Rngs(0))
    leaves, tree = jax.tree.flatten(encoder)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, leaves)


def images(*batch, spec=BYTES):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (*batch, *spec.shape), np.uint8)


def convolved(layer, x, mode="valid"):
    """By scipy, one output channel after the other; stride 1."""
    kernel, bias = np.asarray(layer.kernel[...], float), np.asarray(layer.bias[...], float)
    planes = [
        sum(correlate(x[..., c], kernel[..., c, out], mode) for c in range(x.shape[-1]))
        for out in range(kernel.shape[-1])
    ]
    return np.stack(planes, -1) + bias


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def relu(x):
    return np.maximum(x, 0)


def linear(layer, x):
    return x.reshape(-1) @ np.asarray(layer.kernel[...], float) + np.asarray(layer.bias[...], float)


@pytest.mark.parametrize(("kernel", "stride"), [((4, 2), (4, 2)), ((3, 2), (2, 1)), ((3, 3), (3, 1))])
def test_conv_is_that_of_scipy(kernel, stride):
    """Whether a layer's patches overlap or not, and where the image is no multiple of the stride."""
    encoder = made(kind="conv", channels=(4, 5), kernel=kernel, stride=stride, embedding=6)
    x = images(2, 3)
    found = encoder(jnp.asarray(x))
    assert found.shape == (2, 3, encoder.size)
    assert found.dtype == jnp.float32
    for place in np.ndindex(2, 3):
        expected = x[place] / 255.0
        for layer, step in zip(encoder.layers, stride, strict=True):
            expected = elu(convolved(layer, expected)[::step, ::step])
        np.testing.assert_allclose(found[place], elu(linear(encoder.last, expected)), atol=1e-5)


def test_patches_have_the_gradients_of_a_convolution():
    encoder, x = made(kind="conv", channels=(4,), kernel=(3,), stride=(3,)), jnp.asarray(images(4))

    def by_flax(encoder, x):
        hidden = jax.nn.elu(encoder.layers[0](x / 255.0))
        return jax.nn.elu(encoder.last(hidden.reshape(len(x), -1)))

    ours, theirs = (
        jax.grad(lambda e, f=f: jnp.sin(f(e, x)).sum())(encoder) for f in (type(encoder).__call__, by_flax)
    )
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def halved(x):
    """Maximum over 3 x 3 with stride 2; what lies outside an image is never the greatest."""
    middle = [(-(-n // 2) - 1) * 2 + 3 - n for n in x.shape[:2]]  # padding in all; the lesser half before
    whole = maximum_filter(x, (3, 3, 1), mode="constant", cval=-np.inf)
    return whole[1 - middle[0] // 2 :: 2, 1 - middle[1] // 2 :: 2]


def test_resnet_is_impalas():
    encoder, x = made(kind="resnet", channels=(4, 5), embedding=7), images(2)
    found = encoder(jnp.asarray(x))
    for one, got in zip(x / 255.0, found, strict=True):
        for section in encoder.sections:
            one = halved(convolved(section.first, one, "same"))
            for first, second in section.blocks:
                one = one + convolved(second, relu(convolved(first, relu(one), "same")), "same")
        np.testing.assert_allclose(got, relu(linear(encoder.last, relu(one))), atol=1e-4)


def test_the_papers_resnet_has_impalas_parameters():
    """Three sections of 16, 32, 32 channels; 64 x 64 comes to the linear layer as 8 x 8 x 32 (G.2: 256)."""
    encoder = ENCODERS.build("resnet").build(ArraySpec((64, 64, 3), "uint8"), nnx.Rngs(0))

    def section(before, after):
        return 9 * before * after + after + 4 * (9 * after * after + after)

    expected = section(3, 16) + section(16, 32) + section(32, 32) + (8 * 8 * 32 + 1) * 256
    assert sum(x.size for x in jax.tree.leaves(encoder)) == expected


def test_numbers_are_taken_as_they_are():
    encoder, x = made(ArraySpec(BYTES.shape), kind="conv"), images(2)
    np.testing.assert_allclose(
        encoder(jnp.asarray(x)), encoder(jnp.asarray(x / 255.0, jnp.float32)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("spec", "fields", "told"),
    [
        (ArraySpec((17,)), {"kind": "conv"}, "conv takes images (height, width, channels), not 17"),
        (
            ArraySpec((4, 4), "uint8"),
            {"kind": "resnet"},
            "resnet takes images (height, width, channels), not 4x4 uint8",
        ),
        (
            ArraySpec((6, 6, 3), "uint8"),
            {"kind": "conv"},
            "layer 2 has a kernel of 2, but images of 6x6x3 uint8 come to it as 1x1",
        ),
        (BYTES, {"kind": "conv", "stride": [4]}, "channels, kernel and stride need one number each"),
        (BYTES, {"kind": "resnet", "channels": []}, "channels needs at least one section"),
    ],
)
def test_what_cannot_be_encoded_is_told_in_a_line(spec, fields, told):
    with pytest.raises(UserError) as error:
        made(spec, **fields)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
