"""Retrace(λ) targets over a window (Munos et al. 2016), with ends of episodes inside it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mjx_hkl.math.recursion import corrections


def traces(
    log_prob_t: Float[Array, "time *batch"],
    behaviour_log_prob_t: Float[Array, "time *batch"],
    lambda_: float,
) -> Float[Array, "time *batch"]:
    """c_t = λ min(1, π(a_t|x_t) / μ(a_t|x_t))."""
    return lambda_ * jnp.minimum(1.0, jnp.exp(log_prob_t - behaviour_log_prob_t))


@jax.named_scope("targets")
def retrace(
    q_t: Float[Array, "time *batch"],
    reward_t: Float[Array, "time *batch"],
    discount_t: Float[Array, "time *batch"],
    value_tp1: Float[Array, "time *batch"],
    trace_t: Float[Array, "time *batch"],
    is_last_t: Float[Array, "time *batch"],
    valid_t: Float[Array, "time *batch"],
) -> Float[Array, "time *batch"]:
    """Corrected action values (eq. 19): Q̂_t = Q_t + Σ_{s≥t} (Π_{i=t+1..s} γ_{i−1} c_i) δ_s.

    δ_s = r_s + γ_s V_{s+1} − Q_s. The product starts at t+1, as in Munos et al. 2016; it ends with the
    episode. A step that is not valid adds nothing, and its own target means nothing.

    Args:
      q_t: target critic's Q(a_t, z_t, x_t).
      reward_t: rewards of the steps.
      discount_t: γ, or 0 where the episode terminated.
      value_tp1: V̂_{t+1} − α KL_{t+1} at the state the step truly led to.
      trace_t: c_t of `traces`.
      is_last_t: 1 where the episode ended with the step, by termination or truncation.
      valid_t: 0 where the step must not be learned from.
    """
    delta_t = valid_t * (reward_t + discount_t * value_tp1 - q_t)
    # c_{t+1}; what follows an episode's last step is another episode
    trace_tp1 = jnp.concatenate([trace_t[1:], jnp.zeros_like(trace_t[:1])])
    decay_t = discount_t * trace_tp1 * (1.0 - is_last_t)

    return q_t + corrections(delta_t, decay_t)
