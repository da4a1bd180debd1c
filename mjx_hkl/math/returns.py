"""n-step returns over a window, with ends of episodes inside it: targets without off-policy correction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mjx_hkl.math.recursion import UNROLL


@jax.named_scope("targets")
def n_step_returns(
    reward_t: Float[Array, "time *batch"],
    discount_t: Float[Array, "time *batch"],
    value_tp1: Float[Array, "time *batch"],
    cost_tp1: Float[Array, "time *batch"],
    is_last_t: Float[Array, "time *batch"],
    valid_t: Float[Array, "time *batch"],
) -> Float[Array, "time *batch"]:
    """Q̂_t = r_t + γ_t (Q̂_{t+1} − cost_{t+1}), and V̂_{t+1} for Q̂_{t+1} where the window or episode ends.

    This is Algorithm 1's target with discounts, and without −α KL_t of the action's own step. That KL is not
    the result of a_t (B.2), and a Q that held it would count it twice where it bootstraps.

    Args:
      reward_t: rewards of the steps.
      discount_t: γ, or 0 where the episode terminated.
      value_tp1: V̂_{t+1} at the state the step truly led to.
      cost_tp1: α KL_{t+1} there.
      is_last_t: 1 where the episode ended with the step, by termination or truncation.
      valid_t: 0 where the step must not be learned from; what precedes it bootstraps.
    """
    goes_on = jnp.concatenate([(1.0 - is_last_t[:-1]) * valid_t[1:], jnp.zeros_like(valid_t[:1])])

    def backwards(return_tp1: Array, step: tuple[Array, ...]) -> tuple[Array, Array]:
        reward, discount, value, cost, goes_on = step
        after = jnp.where(goes_on > 0, return_tp1, value)
        return_t = reward + discount * (after - cost)
        return return_t, return_t

    steps = (reward_t, discount_t, value_tp1, cost_tp1, goes_on)
    return jax.lax.scan(backwards, value_tp1[-1], steps, reverse=True, unroll=UNROLL)[1]
