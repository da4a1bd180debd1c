"""What an algorithm is: a kind of a recipe's `[algorithm]`, with the numbers that all of them share."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mjx_hkl.algorithms.hierarchy import Target, divergence, log_marginal, policy_change, window_mean
from mjx_hkl.algorithms.window import Window
from mjx_hkl.config import FiniteFloat, Fraction, Many, NonNegative, NonNegativeFloat, Positive, PositiveFloat
from mjx_hkl.errors import UserError
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.modules import Distribution, Observation
from mjx_hkl.models.steps import Latents

Loss = tuple[Float[Array, ""], dict[str, Float[Array, ""]]]
Factor = Annotated[float, Ge(0.01), Le(100)]


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """The numbers of Algorithm 2 that all algorithms share; defaults are Appendix G's where it has one.

    But learning rates are ten times its (the critic's twenty), and targets move four times as often: with its
    own, half a million steps in a world that nobody has tuned end below random actions.

    Attributes:
      state_values: whether the critic is V(z, x) instead of Q(a, z, x).
      action_kinds: distributions of actions that it can learn.
      acts_in_latents: whether the latent is the action that is stored, and the critic is Q(z, x).
    """

    state_values: ClassVar[bool] = False
    acts_in_latents: ClassVar[bool] = False
    action_kinds: ClassVar[tuple[str, ...]] = ("gaussian", "categorical")

    discount: Fraction = 0.99
    """γ; not in the paper."""
    kl_cost: NonNegativeFloat = 1e-3
    """α, the weight of the KL to the default policy."""
    kl_schedule: tuple[tuple[Fraction, NonNegativeFloat], ...] | None = None
    """Points (share of the run's updates, factor), two or more: α is kl_cost times the factor, which goes in
    straight lines from point to point, and is constant before the first and after the last."""
    kl_level_factors: tuple[NonNegativeFloat, NonNegativeFloat] | None = None
    """Of the high and the low level: the KL of each costs α times its factor."""
    entropy_cost: NonNegativeFloat = 1e-4
    """α_H, the weight of the low level's entropy."""
    target_kl: PositiveFloat | None = None
    """Nats per step. α becomes a dual variable that starts at kl_cost, rises while the mean KL is above this,
    and falls while it is below."""
    target_entropy: FiniteFloat | None = None
    """Nats per step. α_H becomes a dual variable that starts at entropy_cost, rises while the mean entropy of
    the low level is below this, and falls while it is above."""
    dual_learning_rate: PositiveFloat = 1e-3
    """Of the logarithms of α and α_H, where learned. They swing if they change faster than the policy."""
    trust_region: NonNegativeFloat = 0.0
    """β, the weight of KL(π_old ‖ π) of both levels in the policy's loss. π_old is a target policy, which
    moves as the other targets do; 0: there is none."""
    reward_scale: PositiveFloat = 1.0
    """Multiplies rewards before they are learned from; returns are reported without it."""
    policy_learning_rate: PositiveFloat = 1e-3
    """β_π; 1e-4 in Appendix G."""
    critic_learning_rate: PositiveFloat = 2e-3
    """β_Q; 1e-4 in Appendix G. The policy waits for the critic."""
    default_policy_learning_rate: PositiveFloat = 1e-3
    """β_π0, where the default policy learns."""
    learning_rate_decay: Fraction = 0.0
    """Share of the run's updates over which all learning rates fall linearly to a tenth; 0: they do not fall.
    A policy that still changes fast at the end is worse than its average, whenever it is stopped."""
    learning_rate_factors: tuple[str, ...] | None = None
    """Modules that learn at the rate of their part of the agent times a factor: policy.low_level=0.1. The
    innermost counts where they lie in one another."""
    distillation_cost: PositiveFloat = 1.0
    """Weight of distillation, the default policy's loss. It matters only where another loss moves the same
    parameters, as the policy's loss does with two columns."""
    optimizer: str = "adam"
    """Name of an optax optimizer, used with its defaults but for the learning rate."""
    max_gradient_norm: PositiveFloat = 40.0
    """Each optimizer's gradients are clipped to this norm; not in the paper."""
    target_update_period: Positive = 25
    """Updates between moves of the target parameters; 100 in Appendix G."""
    target_update_rate: Annotated[float, Gt(0), Le(1)] = 1.0
    """Each move takes the target parameters this share of the way to the online ones: 1 copies them; a Polyak
    average has period 1 and a rate like 0.005."""
    policy_average_updates: NonNegative = 0
    """Updates over which the agent that is evaluated and exported is a moving average, of its policy and
    default policy (Polyak averaging): between updates a policy swings more than its average does. Acting and
    learning do not see it. 0: it is the last."""
    unroll_length: Many = 10
    """K: steps of a window."""
    burn_in: NonNegative = 0
    """Steps at a window's start whose losses do not count: they bring memories up to date, which replay keeps
    as they were when the window was new (after Kapturowski et al. 2019, but later losses reach back through
    these memories)."""
    batch_size: NonNegative = 512
    """Windows per update; 0: as many as environments, which with replay_capacity 0 is on-policy."""
    replay_ratio: Annotated[float, Gt(0), Le(10_000)] = 16.0
    """Transitions learned from for each environment step. Where Algorithm 2 updates once after each K steps,
    replay_ratio x num_envs / batch_size updates follow an unroll of all worlds, as a whole number."""
    recency: PositiveFloat = 1.0
    """A sampled window's age, as a share of what replay holds, is u^recency with u uniform. 1: all windows
    are as likely; 2: half of a batch is from the newest quarter of replay."""
    latents: Literal["redrawn", "stored_noise"] = "redrawn"
    """Latents of a window come from the policy as it is now and fresh noise (B.2), or the noise that the
    behaviour drew, which replay then keeps: so a stored action and its latent belong together."""
    behaviour_samples: Annotated[int, Ge(0), Le(1000)] = 0
    """Further latents that μ(a|x) and π(a|x) of the ratios π/μ are means over, beside the behaviour's own and
    the redrawn one; 0: the ratio of π(a|z', x) and μ(a|z, x), of two latents that have nothing in common."""
    symmetries: bool = False
    """Whether each window of a batch is seen through a random symmetry that the world declares: its targets
    in another order, and the instruction with them."""
    image_shift: NonNegative = 0
    """Images of each window of a batch are shifted at random by up to so many pixels each way, all of a
    window alike (DrQ-v2, Yarats et al. 2021: 4 of 84)."""
    exploration_scale: tuple[Factor, Factor] = (1.0, 1.0)
    """While training acts, worlds multiply the standard deviation of their actions: the first world by the
    first number, the last by the second, those between in equal ratios. Gaussian actions only."""
    exploration_correlation: Annotated[float, Ge(0), Lt(1)] = 0.0
    """While training acts, the correlation of an action's noise with that of the step before, in the same
    episode. Gaussian actions only."""
    relabelled: Fraction = 0.0
    """Share of the windows of each batch that are seen as if the world had given another instruction
    (Andrychowicz et al. 2017)."""

    def __post_init__(self):
        for target, cost in (("target_kl", "kl_cost"), ("target_entropy", "entropy_cost")):
            if getattr(self, target) is not None and getattr(self, cost) == 0:
                raise ValueError(f"{cost} must be above 0 with {target}: the learned cost starts there")
        if self.target_kl is not None and (self.kl_schedule or self.kl_level_factors):
            raise ValueError(
                "target_kl learns one cost for both levels: leave kl_schedule and kl_level_factors out"
            )
        shares = [share for share, _ in self.kl_schedule or ()]
        if self.kl_schedule is not None and (len(shares) < 2 or shares != sorted(set(shares))):
            raise ValueError(
                "kl_schedule needs two points (share of the run, factor) or more, and shares that rise"
            )
        for entry in self.learning_rate_factors or ():
            if not 0 < _number_after(entry) < math.inf:
                raise ValueError(f"learning_rate_factors: {entry!r} is no MODULE=FACTOR, a factor above 0")
        if len(self.rate_factors) < len(self.learning_rate_factors or ()):
            raise ValueError("learning_rate_factors: a module has two factors; name it once")
        if self.burn_in >= self.unroll_length:
            raise ValueError(
                f"burn_in {self.burn_in} leaves nothing of an unroll_length of {self.unroll_length}"
            )
        if self.behaviour_samples and self.latents == "stored_noise":
            raise ValueError(
                "behaviour_samples needs latents 'redrawn': with stored noise ratios are at one latent"
            )
        if self.behaviour_samples and self.exploration_scale != (1.0, 1.0):
            raise ValueError("behaviour_samples needs exploration_scale (1, 1): its means are of the policy")
        if self.trust_region and self.target_update_period == self.target_update_rate == 1:
            raise ValueError(
                "trust_region needs a target_update_period above 1 or a target_update_rate below 1"
            )

    def parameters(self, agent: Agent, key: PRNGKeyArray) -> dict[str, Any]:
        """What the algorithm learns beside the agent, by name: pytrees of arrays, such as a temperature.

        Args:
          agent: as it is drawn, before it takes modules from other agents.
          key: random.

        Raises:
          UserError: the agent has no KL that a cost could hold at its target or that falls into levels, or no
            latents to sample.
        """
        for name in ("target_kl", "kl_schedule", "kl_level_factors"):
            if getattr(self, name) is not None and not agent.pays_kl:
                raise UserError(
                    f"algorithm.{name}: this policy has no default policy, and so no KL; leave it out"
                )
        if self.kl_level_factors is not None and not agent.pays_kl_of_levels:
            raise UserError(
                "algorithm.kl_level_factors: the KL of this agent has one part; leave it out, change kl_cost"
            )
        if self.behaviour_samples and not agent.policy.latent_size:
            raise UserError("algorithm.behaviour_samples: a flat policy has no latents; leave it 0")
        if self.exploration_scale != (1.0, 1.0) and agent.default_policy.low_level.noise_size:
            raise UserError(
                "algorithm.exploration_scale: this default policy remembers the policy's own actions, and not"
                " scaled ones; leave it out"
            )
        starts = {}
        if self.target_kl is not None:
            starts["log_kl_cost"] = jnp.log(jnp.float32(self.kl_cost))
        if self.target_entropy is not None:
            starts["log_entropy_cost"] = jnp.log(jnp.float32(self.entropy_cost))
        return starts

    def learning_rates(self) -> dict[str, float]:
        """Of each part of the agent and each of `parameters`, which have an optimizer of their own."""
        return {
            "policy": self.policy_learning_rate,
            "default_policy": self.default_policy_learning_rate,
            "critic": self.critic_learning_rate,
            "encoders": self.critic_learning_rate,
            "log_kl_cost": self.dual_learning_rate,
            "log_entropy_cost": self.dual_learning_rate,
        }

    @property
    def rate_factors(self) -> dict[str, float]:
        """`learning_rate_factors` by module."""
        return {entry.partition("=")[0]: _number_after(entry) for entry in self.learning_rate_factors or ()}

    def scheduled(self, count: Int[Array, ""], total_updates: int) -> dict[str, Any]:
        """What changes as the run goes on; `loss` finds it in `own`, beside the `parameters`.

        Args:
          count: updates made, this one included.
          total_updates: of the whole run.
        """
        if self.kl_schedule is None:
            return {}
        shares, factors = zip(*self.kl_schedule, strict=True)
        points = [round(share * total_updates) for share in shares]
        spans = zip(itertools.pairwise(factors), itertools.pairwise(points), strict=True)
        lines = [optax.linear_schedule(a, b, max(1, end - begin)) for (a, b), (begin, end) in spans]
        pieces = [optax.constant_schedule(factors[0]), *lines]
        return {"kl_factor": optax.join_schedules(pieces, points[:-1])(count - 1)}

    def costs(self, own: Mapping[str, Any]) -> tuple[Any, Any]:
        """α and α_H, the weights of KL and entropy, constants; `own` is what `loss` is given."""
        kl_cost, entropy_cost = self.kl_cost, self.entropy_cost
        if self.kl_schedule is not None:
            kl_cost = kl_cost * own["kl_factor"]
        if self.target_kl is not None:
            kl_cost = _cost(own["log_kl_cost"])
        if self.target_entropy is not None:
            entropy_cost = _cost(own["log_entropy_cost"])
        return kl_cost, entropy_cost

    def kl_of_levels(
        self, high: Float[Array, "time batch"], low: Float[Array, "time batch"]
    ) -> Float[Array, "time batch"]:
        """What α is multiplied with: the KL of both levels, each times its factor where they have some."""
        if self.kl_level_factors is None:
            return high + low
        of_high, of_low = self.kl_level_factors
        return of_high * high + of_low * low

    def of_ratio(
        self,
        log_prob_t: Float[Array, "time batch"],
        agent: Agent,
        observation: Observation,
        window: Window,
        latents: Latents,
        key: PRNGKeyArray,
    ) -> Float[Array, "time batch"]:
        """Log π(a|x) for the ratios π/μ: that at the redrawn latents, or with `behaviour_samples` more.

        Args:
          log_prob_t: log π^L of the window's actions at the latents.
          agent: π.
          observation: of the window, shared encoders' groups encoded.
          window: time-major.
          latents: redrawn.
          key: of the loss.
        """
        if not self.behaviour_samples:
            return log_prob_t
        key = jax.random.fold_in(key, 2)  # 0 and 1 are those of the loss
        return log_marginal(agent, observation, window, latents, key, self.behaviour_samples)

    def with_trust_region(
        self,
        policy_loss: Float[Array, ""],
        agent: Agent,
        target: Target,
        observation: Observation,
        target_observation: Observation,
        window: Window,
        latents: Latents,
    ) -> Loss:
        """The policy's loss with β KL(π_old ‖ π), and the metric of that KL; see `policy_change`.

        As REPPO has it (Voelcker et al. 2025, arXiv:2507.11019), with a weight that a recipe gives.
        """
        if not self.trust_region:
            return policy_loss, {}
        with jax.named_scope("policy_loss"):
            change = policy_change(agent, target, observation, target_observation, window, latents)
            mean = self.mean(change, window)
        return policy_loss + self.trust_region * mean, {"policy_change": mean}

    def mean(self, x: Float[Array, "_ batch"], window: Window) -> Float[Array, ""]:
        """Over the steps of a window that are learned from; see `window_mean`."""
        return window_mean(x, window, self.burn_in)

    def with_distillation(
        self,
        policy_loss: Float[Array, ""],
        critic_loss: Float[Array, ""],
        agent: Agent,
        observation: Observation,
        window: Window,
        latents: Latents,
        action: Distribution,
        key: PRNGKeyArray,
    ) -> Loss:
        """The losses of policy and critic with that of distillation, which moves the default policy alone.

        Args:
          policy_loss: of the policy.
          critic_loss: of the critic.
          agent: whose default policy learns.
          observation: of the window, shared encoders' groups encoded.
          window: time-major.
          latents: of the window.
          action: the policy's.
          key: of the loss.

        Returns:
          The sum, and the metrics every algorithm has.
        """
        stop = jax.lax.stop_gradient
        with jax.named_scope("default_policy_loss"):
            cost = divergence(
                stop(agent), agent.default_policy, stop(observation), window, *stop((latents, action)), key
            )
        loss, scale = self.mean(cost.high + cost.low, window), latents.distribution.scale
        metrics = {name: self.mean(part, window) for name, part in cost.parts.items()} | {
            "policy_loss": policy_loss,
            "critic_loss": critic_loss,
            "default_policy_loss": loss,
            "entropy": self.mean(action.entropy(), window),
            "latent_scale": self.mean(scale.mean(-1), window) if scale.shape[-1] else jnp.zeros(()),
        }
        return policy_loss + critic_loss + self.distillation_cost * loss, metrics

    def with_duals(
        self, loss: Loss, own: Mapping[str, Any], kl: Float[Array, ""], entropy: Float[Array, ""]
    ) -> Loss:
        """The loss and metrics with those of the costs that are learned or scheduled.

        Gradient descent on log α (target − KL) and log α_H (H − target) is dual ascent: the gradient is how
        far off the target is, whatever the cost (temperature of Haarnoja et al. 2018, arXiv:1812.05905). The
        logarithm of a target that cannot be met ends at ±`_MOST_LOG`.

        Args:
          loss: without them.
          own: the algorithm's `parameters`.
          kl: mean per step, of both levels.
          entropy: mean of the low level's.
        """
        total, metrics = loss
        if self.target_kl is not None:
            total = total + _ascent(own["log_kl_cost"], self.target_kl - kl)
            metrics = metrics | {"kl_cost": _cost(own["log_kl_cost"])}
        if self.kl_schedule is not None:
            metrics = metrics | {"kl_cost": self.costs(own)[0]}
        if self.target_entropy is not None:
            total = total + _ascent(own["log_entropy_cost"], entropy - self.target_entropy)
            metrics = metrics | {"entropy_cost": _cost(own["log_entropy_cost"])}
        return total, metrics

    def loss(
        self, agent: Agent, target: Target, window: Window, key: PRNGKeyArray, own: Mapping[str, Any]
    ) -> Loss:
        """The loss that one update descends, and scalar metrics.

        Args:
          agent: θ, φ, ψ, differentiated.
          target: φ', ψ', and θ' where `trust_region` asks for it.
          window: a time-major batch.
          key: consumed.
          own: the algorithm's `parameters`, differentiated, and what is `scheduled`.
        """
        raise NotImplementedError


_MOST_LOG = 14.0  # e^14 is a million


def _cost(log_cost: Float[Array, ""]) -> Float[Array, ""]:
    """A learned cost, a constant."""
    return jax.lax.stop_gradient(jnp.exp(jnp.clip(log_cost, -_MOST_LOG, _MOST_LOG)))


def _ascent(log_cost: Float[Array, ""], slope: Float[Array, ""]) -> Float[Array, ""]:
    """What has this slope in the logarithm; 0 where descent would take that further beyond its bounds."""
    is_out = (log_cost * -slope > 0) & (jnp.abs(log_cost) > _MOST_LOG)
    return log_cost * jax.lax.stop_gradient(jnp.where(is_out, 0.0, slope))


def _number_after(entry: str) -> float:
    """The number of NAME=NUMBER; NaN where there is none."""
    name, _, number = entry.partition("=")
    try:
        return float(number) if name else math.nan
    except ValueError:
        return math.nan
