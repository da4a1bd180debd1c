"""A window: K consecutive steps of one environment and the step after, the unit of experience."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped


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
      latent_tm1: z before step 0; at an episode's start a draw from N(0, 1).
      episode_step: steps of the episode before step 0.
      action: before clipping, or the choice of a discrete one.
      behaviour_log_prob: log μ(a_t | x_t) at the behaviour's latent.
      reward: of step t.
      discount: 0 where the episode terminated with step t, else 1.
      is_last: 1 where the episode ended with step t, by termination or truncation.
      valid: 0 where the simulator failed in step t.
    """

    observation: dict[str, Float[Array, "..."]]
    latent_tm1: Float[Array, "*batch latent"]
    episode_step: Int[Array, "*batch"]
    action: Shaped[Array, "..."]
    behaviour_log_prob: Float[Array, "..."]
    reward: Float[Array, "..."]
    discount: Shaped[Array, "..."]
    is_last: Shaped[Array, "..."]
    valid: Shaped[Array, "..."]


def time_major(windows: Window) -> Window:
    """What replay holds, for the learner: batch and time swapped, flags as numbers.

    What belongs to a window's start has no time.
    """

    def swap(x: Array) -> Array:
        x = x.astype(jnp.float32) if x.dtype == bool else x
        return jnp.swapaxes(x, 0, 1) if x.ndim > 1 else x

    return jax.tree.map(swap, windows).replace(latent_tm1=windows.latent_tm1)


def cut_inside(window: Window) -> Float[Array, "time batch"]:
    """1 where a truncation before the last step makes the last observation the one that follows.

    Time-major.
    """
    truncated = window.is_last * window.discount * window.valid
    return truncated.at[-1].set(0.0)


def following(values: Float[Array, "time+2 batch"], window: Window) -> Float[Array, "time batch"]:
    """Of values at all observations, those at the state each step truly led to. Time-major."""
    return jnp.where(cut_inside(window) > 0, values[-1], values[1:-1])


def episode_steps(window: Window) -> Int[Array, "time+2 batch"]:
    """Steps of its episode before each observation. Time-major."""

    def count(step: Array, is_last: Array) -> tuple[Array, Array]:
        return jnp.where(is_last > 0, 0, step + 1), step

    _, steps = jax.lax.scan(count, window.episode_step, window.is_last)
    at_cut = ((steps + 1) * cut_inside(window).astype(steps.dtype)).max(0)
    return jnp.concatenate([steps, steps[-1:] + 1, at_cut[None]])
