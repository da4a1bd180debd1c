"""V-trace targets over a window (Espeholt et al. 2018), with a KL cost and ends of episodes inside it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mjx_hkl.math.recursion import corrections


class VTrace(NamedTuple):
    """What V(z, x) is moved to, and what weighs the policy gradient."""

    target: Float[Array, "time *batch"]
    advantage: Float[Array, "time *batch"]


@jax.named_scope("targets")
def v_trace(
    value_t: Float[Array, "time *batch"],
    reward_t: Float[Array, "time *batch"],
    discount_t: Float[Array, "time *batch"],
    value_tp1: Float[Array, "time *batch"],
    cost_tp1: Float[Array, "time *batch"],
    ratio_t: Float[Array, "time *batch"],
    is_last_t: Float[Array, "time *batch"],
    valid_t: Float[Array, "time *batch"],
    rho_clip: float,
    trace_clip: float,
) -> VTrace:
    """State values corrected for the behaviour (eq. 21), and advantages (eq. 22).

    v_s = V_s + Σ_{t≥s} (Π_{i=s..t−1} γ_i c_i) δ_t with δ_t = ρ_t (r_t + γ_t (V_{t+1} − cost_{t+1}) − V_t);
    the advantage is ρ_t (r_t + γ_t (v_{t+1} − cost_{t+1}) − V_t). The product ends with the episode. A step
    that is not valid adds nothing, its own target means nothing, and what precedes it bootstraps.

    Args:
      value_t: V(z_t, x_t).
      reward_t: rewards of the steps.
      discount_t: γ, or 0 where the episode terminated.
      value_tp1: V at the state the step truly led to.
      cost_tp1: α KL there, 0 where no latent is drawn (eq. 20).
      ratio_t: w_t = π(a_t|z_t, x_t) / μ(a_t|x_t).
      is_last_t: 1 where the episode ended with the step, by termination or truncation.
      valid_t: 0 where the step must not be learned from.
      rho_clip: ρ̄; ρ_t = min(ρ̄, w_t).
      trace_clip: c̄; c_t = min(c̄, w_t).
    """
    rho_t = valid_t * jnp.minimum(rho_clip, ratio_t)
    delta_t = rho_t * (reward_t + discount_t * (value_tp1 - cost_tp1) - value_t)
    decay_t = discount_t * jnp.minimum(trace_clip, ratio_t) * (1.0 - is_last_t)

    correction_t = corrections(delta_t, decay_t)
    # v_{t+1} − V_{t+1} of the next step, where the window and the episode go on
    correction_tp1 = jnp.concatenate([correction_t[1:], jnp.zeros_like(correction_t[:1])]) * (1.0 - is_last_t)
    advantage_t = delta_t + rho_t * discount_t * correction_tp1
    return VTrace(value_t + correction_t, advantage_t)
