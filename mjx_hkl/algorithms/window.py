"""A window: K consecutive steps of one environment and the step after, the unit of experience."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


class LatentNoise(NamedTuple):
    """What latents are drawn from, standard normal; see `Noise`.

    Attributes:
      latent: ε of z = f^H(x, ε).
      start: z before an episode's first step; () for a policy that does not remember.
    """

    latent: Float[Array, "*batch latent"]
    start: Any


@flax.struct.dataclass
class Window:
    """Experience as it is stored and learned from, time on the axis after the batch, or before it.

    Flags are bool in replay, and numbers for the learner (`time_major`).

    An episode may end inside a window and the next one start. The state that a truncation at step j
    led to is then not observation j+1, which belongs to the next episode; it is kept as the very last
    observation. There is at most one such, as an episode is no shorter than a window.

    Attributes:
      observation: groups at steps 0..K−1, the state after step K−1, and the state a truncation before
        step K−1 led to (else anything finite).
      carry: what the agent remembered before step 0.
      is_first: 1 where an episode began with step 0.
      action: before clipping, or the choice of a discrete one.
      behaviour_log_prob: log μ(a_t | x_t) at the behaviour's latent, or as a mean over further ones.
      reward: of step t.
      discount: 0 where the episode terminated with step t, else 1.
      is_last: 1 where the episode ended with step t, by termination or truncation.
      valid: 0 where the simulator failed in step t.
      noise: the `LatentNoise` of steps 0..K−1 as the behaviour drew it; () where it is not kept.
    """

    observation: dict[str, Shaped[Array, "..."]]
    carry: Any
    is_first: Shaped[Array, "*batch"]
    action: Shaped[Array, "..."]
    behaviour_log_prob: Float[Array, "..."]
    reward: Float[Array, "..."]
    discount: Shaped[Array, "..."]
    is_last: Shaped[Array, "..."]
    valid: Shaped[Array, "..."]
    noise: Any = ()


def time_major(windows: Window) -> Window:
    """What replay holds, for the learner: batch and time swapped, flags as numbers.

    What belongs to a window's start, the carry, has no time.
    """

    def swap(x: Array) -> Array:
        x = x.astype(jnp.float32) if x.dtype == bool else x
        return jnp.swapaxes(x, 0, 1) if x.ndim > 1 else x

    return jax.tree.map(swap, windows.replace(carry=())).replace(carry=windows.carry)


def cut_inside(window: Window) -> Float[Array, "time batch"]:
    """1 where a truncation before the last step makes the last observation the one that follows.

    Time-major.
    """
    truncated = window.is_last * window.discount * window.valid
    return truncated.at[-1].set(0.0)


def following(values: Float[Array, "time+2 batch"], window: Window) -> Float[Array, "time batch"]:
    """Picks, of values at all observations, the one at the state that each step led to. Time-major."""
    return jnp.where(cut_inside(window) > 0, values[-1], values[1:-1])


def first_steps(window: Window) -> Float[Array, "time+1 batch"]:
    """1 where an observation begins an episode, for all observations but the last one. Time-major.

    The observation after the last step never begins one: it is the true state that this step led to.
    """
    first = jnp.concatenate([window.is_first[None], window.is_last])
    return first.at[-1].set(0.0)


def in_order(
    step: Callable[..., tuple[Any, Any]], start: Any, window: Window, inputs: Any, *more: Any, unroll: int = 1
) -> Any:
    """Runs a function that remembers along a window; its outputs at all observations. Time-major.

    Args:
      step: of the carry, whether an episode begins, a step's part of `inputs`, and those of `more`; gives the
        carry after the step and its output.
      start: the carry before step 0.
      window: tells where episodes begin and are cut. The last observation follows the step that was cut.
      inputs: a pytree with one entry for each of the K + 2 observations.
      more: like `inputs`.
      unroll: steps that are compiled as one.
    """
    cut = jnp.concatenate([cut_inside(window), jnp.zeros_like(window.is_last[:1])])

    def follow(carries: tuple[Any, Any], x: Any) -> tuple[tuple[Any, Any], Any]:
        carry, at_cut = carries
        is_first, is_cut, given = x
        carry, out = step(carry, is_first > 0, *given)
        at_cut = jax.tree.map(lambda new, old: jnp.where(over(is_cut > 0, new), new, old), carry, at_cut)
        return (carry, at_cut), out

    given = (inputs, *more)
    before_last = jax.tree.map(lambda x: x[:-1], given)
    (_, at_cut), outputs = jax.lax.scan(
        follow, (start, start), (first_steps(window), cut, before_last), unroll=unroll
    )
    last = jax.tree.map(lambda x: x[-1], given)
    _, final = step(at_cut, jnp.zeros_like(window.is_first) > 0, *last)
    return jax.tree.map(lambda many, one: jnp.concatenate([many, one[None]]), outputs, final)


def over(condition: Array, x: Array) -> Array:
    """The condition with axes for all of `x` after the batch."""
    return condition.reshape(*condition.shape, *(1,) * (x.ndim - condition.ndim))
