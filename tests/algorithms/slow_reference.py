"""One update, from Algorithm 2 and B.3 as they are written: plain loops over steps, and Adam by hand.

Three losses as functions of the parameters they move, with nothing else differentiated, so that no
gradient has to be stopped but that of z as history and as Q's own input.
"""

import jax
import jax.numpy as jnp
import numpy as np
from small import action_of, at, default_action_of, next_index


def kl(p, q):
    """KL(p‖q) of diagonal Gaussians, or of categorical distributions."""
    if hasattr(p, "logits"):
        p, q = jax.nn.softmax(p.logits), jax.nn.softmax(q.logits)
        return sum(p[i] * jnp.log(p[i] / q[i]) for i in range(len(p)))
    return jnp.sum(
        jnp.log(q.scale / p.scale) + (p.scale**2 + (p.mean - q.mean) ** 2) / (2 * q.scale**2) - 0.5
    )


def log_density(x, p):
    """Log N(x; μ, σ²)."""
    return jnp.sum(-0.5 * ((x - p.mean) / p.scale) ** 2 - jnp.log(p.scale * np.sqrt(2 * np.pi)))


class SlowReference:
    """Losses of one batch: `noise` and `starts` are of its latents, `action_noise` of its actions."""

    def __init__(self, target, window, noise, starts, action_noise, config):
        self.target, self.window, self.config = target, window, config
        self.noise, self.starts, self.action_noise = noise, starts, action_noise
        self.steps, self.batch = window.reward.shape
        self.cells = [(t, b) for b in range(self.batch) for t in range(self.steps) if window.valid[t, b]]

    def latents(self, policy, b):
        """For each observation π^H, z, z_{t−1} and whether z was drawn there; None where no step leads."""
        w, last = self.window, self.steps + 1
        found = [None] * (self.steps + 2)
        kept, step = w.carry.latent[b], int(w.carry.age[b])

        def visit(index, kept, step):
            history = jax.lax.stop_gradient(kept)
            distribution = policy.high_level(at(self.window.observation, index, b), history)
            drawn = step % policy.latent_period == 0
            z = distribution.mean + distribution.scale * self.noise[index, b] if drawn else kept
            found[index] = (distribution, z, history, drawn)
            return z

        for t in range(self.steps + 1):
            if w.is_first[b] if t == 0 else t < self.steps and w.is_last[t - 1, b]:
                kept, step = self.starts[t, b], 0
            kept = visit(t, kept, step)
            step += 1
            if t < self.steps and next_index(self.window, t, b) == last:
                visit(last, kept, step)
        return found

    def divergence(self, agent, default_policy, x, latent):
        """KL_t = KL(π^H‖π0^H) + KL(π^L‖π0^L), the first at steps that draw."""
        distribution, z, z_tm1, drawn = latent
        total = kl(distribution, default_policy.high_level(z_tm1)) if drawn else 0.0
        default_action = default_action_of(agent, default_policy, x, z)
        return total if default_action is None else total + kl(action_of(agent, x, z), default_action)

    def expected_q(self, agent, x, z, index, b):
        """V̂ = E_π Q_ψ'(a, z, x)."""
        a = action_of(agent, x, z)
        samples = [
            self.target.critic(x, jax.lax.stop_gradient(z), a.mean + a.scale * noise[index, b])
            for noise in self.action_noise
        ]
        return sum(samples) / len(samples)

    def policy_loss(self, agent):
        """−Σ E_π Q − α KL + α_H H."""
        total = 0.0
        for b in range(self.batch):
            latents = self.latents(agent.policy, b)
            for t in [t for t, column in self.cells if column == b]:
                x, z = at(self.window.observation, t, b), latents[t][1]
                entropy = jnp.sum(0.5 * jnp.log(2 * np.pi * np.e * action_of(agent, x, z).scale ** 2))
                regularizer = self.divergence(agent, self.target.default_policy, x, latents[t])
                total -= self.expected_q(agent, x, z, t, b) - self.config.kl_cost * regularizer
                total -= self.config.entropy_cost * entropy
        return total / len(self.cells)

    def default_policy_loss(self, agent, default_policy):
        """Σ KL^D_t."""
        total = 0.0
        for b in range(self.batch):
            latents = self.latents(agent.policy, b)
            for t in [t for t, column in self.cells if column == b]:
                total += self.divergence(agent, default_policy, at(self.window.observation, t, b), latents[t])
        return total / len(self.cells)

    def critic_loss(self, agent, critic):
        """Σ (Q̂_t − Q_ψ)², of every critic."""
        total = 0.0
        for b in range(self.batch):
            latents = self.latents(agent.policy, b)
            for t in [t for t, column in self.cells if column == b]:
                z, a = latents[t][1], self.window.action[t, b]
                target = self.q_target(agent, latents, t, b)
                total += jnp.sum((target - critic.each(at(self.window.observation, t, b), z, a)) ** 2)
        return total / len(self.cells)

    def q_target(self, agent, latents, t, b):
        """Q̂_t, by Retrace (eq. 19) or as an n-step return (Algorithm 1)."""
        w, config = self.window, self.config

        def step(s):
            n = next_index(self.window, s, b)
            discount = config.discount * w.discount[s, b]
            if discount == 0:
                return config.reward_scale * w.reward[s, b], 0.0, 0.0, 0.0
            x, latent = at(self.window.observation, n, b), latents[n]
            penalty = config.kl_cost * self.divergence(agent, self.target.default_policy, x, latent)
            return (
                config.reward_scale * w.reward[s, b],
                discount,
                self.expected_q(agent, x, latent[1], n, b),
                penalty,
            )

        if config.returns == "n_step":
            reward, discount, value, penalty = step(t)
            ends = t == self.steps - 1 or w.is_last[t, b] or not w.valid[t + 1, b]
            return reward + discount * (
                (value if ends else self.q_target(agent, latents, t + 1, b)) - penalty
            )

        def q(s):
            return self.target.critic(at(self.window.observation, s, b), latents[s][1], w.action[s, b])

        total, product = q(t), 1.0
        for s in range(t, self.steps):
            if s > t:
                if w.is_last[s - 1, b]:
                    break
                pi = action_of(agent, at(self.window.observation, s, b), latents[s][1])
                ratio = jnp.exp(log_density(w.action[s, b], pi) - w.behaviour_log_prob[s, b])
                product *= config.discount * config.retrace_lambda * jnp.minimum(1.0, ratio)
            if w.valid[s, b]:
                reward, discount, value, penalty = step(s)
                total += product * (reward + discount * (value - penalty) - q(s))
        return total


class SlowActorCritic(SlowReference):
    """Losses of B.3, eq. 21 to 25; `self.latents` and the default policy's loss are Algorithm 2's."""

    def __init__(self, target, window, noise, starts, config):
        super().__init__(target, window, noise, starts, None, config)

    def policy_loss(self, agent):
        """−Σ ρ_t log π(a_t|z_t, x_t) δ̂_t v + α 1_p KL_t − α_H H."""
        total = 0.0
        for b in range(self.batch):
            latents = self.latents(agent.policy, b)
            for t in [t for t, column in self.cells if column == b]:
                x = at(self.window.observation, t, b)
                advantage = jax.lax.stop_gradient(self.advantage(agent, latents, t, b))
                total -= self.log_pi(agent, latents, t, b) * advantage
                total += self.config.kl_cost * self.divergence(
                    agent, self.target.default_policy, x, latents[t]
                )
                total -= self.config.entropy_cost * self.entropy(agent, latents, t, b)
        return total / len(self.cells)

    def critic_loss(self, agent, critic):
        """Σ ½ (v_t − V_ψ)²."""
        total = 0.0
        for b in range(self.batch):
            latents = self.latents(agent.policy, b)
            for t in [t for t, column in self.cells if column == b]:
                value = critic(at(self.window.observation, t, b), latents[t][1])
                total += 0.5 * (self.v(agent, latents, t, b) - value) ** 2
        return total / len(self.cells)

    def pi(self, agent, latents, t, b):
        """π(·|z_t, x_t): a Gaussian, or probabilities."""
        pi = action_of(agent, at(self.window.observation, t, b), latents[t][1])
        return jax.nn.softmax(pi.logits) if hasattr(pi, "logits") else pi

    def log_pi(self, agent, latents, t, b):
        """Log π(a_t|z_t, x_t)."""
        pi, action = self.pi(agent, latents, t, b), self.window.action[t, b]
        return log_density(action, pi) if hasattr(pi, "scale") else jnp.log(pi[action])

    def entropy(self, agent, latents, t, b):
        """H[π(·|z_t, x_t)]."""
        pi = self.pi(agent, latents, t, b)
        if hasattr(pi, "scale"):
            return jnp.sum(0.5 * jnp.log(2 * np.pi * np.e * pi.scale**2))
        return sum(-p * jnp.log(p) for p in pi)

    def ratio(self, agent, latents, t, b):
        """w_t = π(a_t|z_t, x_t) / μ(a_t|x_t)."""
        return jnp.exp(self.log_pi(agent, latents, t, b) - self.window.behaviour_log_prob[t, b])

    def value(self, latents, index, b):
        """V of the target critic."""
        z = jax.lax.stop_gradient(latents[index][1])
        return self.target.critic(at(self.window.observation, index, b), z)

    def backup(self, agent, latents, t, b, after):
        """r_t + γ (after(s_{t+1}) − α KL_{t+1}) − V_t."""
        w, config = self.window, self.config
        total = config.reward_scale * w.reward[t, b] - self.value(latents, t, b)
        if w.discount[t, b] == 0:
            return total
        n = next_index(w, t, b)
        x = at(w.observation, n, b)
        penalty = config.kl_cost * self.divergence(agent, self.target.default_policy, x, latents[n])
        return total + config.discount * (after(n) - penalty)

    def v(self, agent, latents, s, b):
        """v_s, eq. 21, as a sum of products."""
        total, product = self.value(latents, s, b), 1.0
        for t in range(s, self.steps):
            if not self.window.valid[t, b]:
                break
            rho = jnp.minimum(self.config.rho_clip, self.ratio(agent, latents, t, b))
            delta = rho * self.backup(agent, latents, t, b, lambda n: self.value(latents, n, b))
            total += product * delta
            if self.window.is_last[t, b]:
                break
            ratio = self.ratio(agent, latents, t, b)
            product *= self.config.discount * jnp.minimum(self.config.trace_clip, ratio)
        return total

    def advantage(self, agent, latents, t, b):
        """ρ_t δ̂_t v, eq. 22: the next state's v where it belongs to the window, else its V."""
        goes_on = t < self.steps - 1 and not self.window.is_last[t, b]

        def after(n):
            return self.v(agent, latents, n, b) if goes_on else self.value(latents, n, b)

        rho = jnp.minimum(self.config.rho_clip, self.ratio(agent, latents, t, b))
        return rho * self.backup(agent, latents, t, b, after)


def adam_first_step(gradient, rate, max_norm):
    """The change Adam makes at its first step, gradients clipped to a global norm."""
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient)))
    clipped = jax.tree.map(lambda g: g * min(1.0, max_norm / max(norm, 1e-30)), gradient)

    def change(g):
        first, second = 0.1 * g / (1 - 0.9), 0.001 * g**2 / (1 - 0.999)
        return -rate * first / (jnp.sqrt(second) + 1e-8)

    return jax.tree.map(change, clipped)
