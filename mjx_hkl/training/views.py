"""What windows from replay could have been as well: seen through a symmetry, or under another instruction.

And their images: shifted, or drawn again where replay does not keep them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from mjx_hkl.algorithms.window import Window, over
from mjx_hkl.environments import AnyWorld
from mjx_hkl.environments.world import VISION
from mjx_hkl.models.modules import Observation
from mjx_hkl.specs import ArraySpec


@jax.named_scope("replay")
def through_symmetries(world: AnyWorld, windows: Window, key: PRNGKeyArray) -> Window:
    """Windows, batch first, each seen through a random symmetry of the world, one for all its observations.

    What was done stays: actions, their probabilities μ, latents that the behaviour carried, rewards.
    """
    assert world.symmetry is not None, "make_environment refuses a world without any"
    keys = jax.random.split(key, windows.reward.shape[0])
    return windows.replace(observation=jax.vmap(world.symmetry)(keys, windows.observation))


@jax.named_scope("replay")
def under_other_instructions(world: AnyWorld, windows: Window, key: PRNGKeyArray, share: float) -> Window:
    """Windows, batch first; a share of them as if an instruction had been given that is drawn anew.

    What was done stays. Where an episode truly terminated nobody knows what another instruction would have
    made of it: such a step is not learned from.
    """
    relabel = world.relabelling
    assert relabel is not None, "make_environment refuses a world without any"

    def relabelled(window: Window, key: PRNGKeyArray) -> Window:
        observation, *arrival = relabel(key, window.observation)
        terminated = window.is_last & ~window.discount
        # Where an episode was cut, the next observation is of another one, and the last is where it led.
        cut = (window.is_last & window.discount).at[-1].set(False)
        reward, success = (jnp.where(cut, x[-1], x[1:-1]) for x in arrival)
        solved = (success > 0) & ~terminated
        return window.replace(
            observation=observation,
            reward=jnp.where(terminated, 0.0, reward),
            discount=window.discount & ~solved,
            is_last=window.is_last | solved,
            valid=window.valid & ~terminated,
        )

    batch = windows.reward.shape[0]
    chosen_key, key = jax.random.split(key)
    other = jax.vmap(relabelled)(windows, jax.random.split(key, batch))
    chosen = jax.random.uniform(chosen_key, (batch,)) < share
    chosen &= ~jax.vmap(_equal)(other.observation, windows.observation)
    return jax.tree.map(lambda new, old: jnp.where(over(chosen, new), new, old), other, windows)


@jax.named_scope("replay")
def with_images(world: AnyWorld, observation: Observation) -> dict[str, Array]:
    """Observation groups with the images that are drawn from `vision_state`."""
    assert world.drawing is not None, "make_environment refuses a world without any"
    return {**observation, VISION: world.drawing(observation)}


@jax.named_scope("replay")
def shifted(windows: Window, key: PRNGKeyArray, pixels: int) -> Window:
    """Windows, batch first, their images shifted at random by up to so many pixels each way (DrQ).

    What comes in at an edge repeats it (Yarats et al. 2021, arXiv:2107.09645). All images of a window are
    shifted alike: what moves from one to the next is then the world, and values along a window, which
    targets join, are of one view.
    """

    def of_window(key: PRNGKeyArray, group: Array) -> Array:
        by = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
        padded = jnp.pad(group, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), "edge")
        return jax.lax.dynamic_slice(padded, (0, *by, 0), group.shape)

    keys = jax.random.split(key, windows.reward.shape[0])
    images = {
        name: jax.vmap(of_window)(keys, group)
        for name, group in windows.observation.items()
        if ArraySpec(group.shape[2:], group.dtype.name).is_image
    }
    return windows.replace(observation={**windows.observation, **images})


def _equal(a: Observation, b: Observation) -> Bool[Array, ""]:
    return jnp.stack([(a[name] == b[name]).all() for name in a]).all()
