"""FastTD3's algorithm (Seo et al. 2025, arXiv:2505.22642) as one jitted program, for peers.py.

Its authors' program is PyTorch and no port of it to JAX is on PyPI, so it is written anew here, by the paper
and with the numbers of its authors' program where a setting does not say otherwise: many worlds, each with an
exploration noise of its own; twin critics that give distributions over returns (C51), of which the one with
the lesser mean counts; large batches; normalized observations; AdamW.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


@dataclasses.dataclass(frozen=True)
class Settings:
    """Its numbers; a batch is of transitions, and so many updates follow each step of all worlds."""

    actor_sizes: tuple[int, ...] = (512, 256, 128)
    critic_sizes: tuple[int, ...] = (1024, 512, 256)
    batch_size: int = 32768
    updates: int = 2
    capacity: int = 51_200  # transitions of each world
    discount: float = 0.99
    n_step: int = 1  # rewards in a return before it is bootstrapped
    learning_rate: float = 3e-4
    weight_decay: float = 0.1
    target_rate: float = 0.1
    policy_delay: int = 2  # updates of the critics for each of the actor
    noise: tuple[float, float] = (0.001, 0.4)  # least and greatest standard deviation of exploration
    target_noise: float = 0.001
    target_noise_clip: float = 0.5
    num_atoms: int = 51  # of C51; their 101 take a CPU twice the time
    values: tuple[float, float] = (-10.0, 70.0)  # the shipped worlds' greatest reward is 60
    warmup: int = 10  # steps of all worlds before the first update


class Network(linen.Module):
    """An MLP with ReLU; the actor's last layer begins near zero."""

    sizes: tuple[int, ...]
    out: int
    last_scale: float | None = None

    @linen.compact
    def __call__(self, *x: Array) -> Array:
        """What the last layer gives for inputs joined."""
        y = jnp.concatenate(x, axis=-1)
        for size in self.sizes:
            y = linen.relu(linen.Dense(size)(y))
        if self.last_scale is None:
            return linen.Dense(self.out)(y)
        return linen.Dense(self.out, kernel_init=linen.initializers.normal(self.last_scale))(y)


@flax.struct.dataclass
class Transitions:
    """What replay holds, newest overwriting oldest: leading axes time, world."""

    observation: Float[Array, "time envs n"]
    action: Float[Array, "time envs m"]
    reward: Float[Array, "time envs"]
    going_on: Bool[Array, "time envs"]
    last: Bool[Array, "time envs"]  # of its episode, for whatever reason
    following: Float[Array, "time envs n"]


@flax.struct.dataclass
class Batch:
    """What an update learns from: returns of n steps, and the observation and discount after them."""

    observation: Float[Array, "batch n"]
    action: Float[Array, "batch m"]
    reward: Float[Array, " batch"]
    discount: Float[Array, " batch"]
    following: Float[Array, "batch n"]


@flax.struct.dataclass
class Statistics:
    """Mean and variance of all observations so far."""

    count: Array
    mean: Array
    variance: Array

    def joined(self, x: Float[Array, "envs n"]) -> "Statistics":
        """With fresh observations (Chan, Golub and LeVeque 1979)."""
        count = self.count + len(x)
        away, share = x.mean(0) - self.mean, len(x) / count
        fresh = x.var(0) + (1.0 - share) * away**2
        return Statistics(count, self.mean + share * away, (1.0 - share) * self.variance + share * fresh)

    def normalized(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """Less the mean, over the standard deviation."""
        return (x - self.mean) / (jnp.sqrt(self.variance) + 1e-2)


@flax.struct.dataclass
class State:
    """All that training carries."""

    env: Any
    noise: Float[Array, "envs 1"]
    actor: Any
    critics: Any
    targets: Any
    actor_optimizer: Any
    critic_optimizer: Any
    seen: Statistics
    replay: Transitions
    steps: Array  # of each world
    key: PRNGKeyArray


def flat(observation: dict[str, Array]) -> Float[Array, "envs n"]:
    """All groups in one vector."""
    return jnp.concatenate([observation[name] for name in sorted(observation)], axis=-1)


def project(
    probabilities: Float[Array, "*batch atoms"],
    reward: Float[Array, "*batch"],
    discount: Float[Array, "*batch"],
    support: Float[Array, " atoms"],
) -> Float[Array, "*batch atoms"]:
    """The distribution of reward + discount * return on the atoms of `support` (Bellemare et al. 2017)."""
    moved = jnp.clip(reward[..., None] + discount[..., None] * support, support[0], support[-1])
    near = 1.0 - jnp.abs(moved[..., None, :] - support[:, None]) / (support[1] - support[0])
    return (probabilities[..., None, :] * jnp.maximum(near, 0.0)).sum(-1)


def n_step_return(
    reward: Float[Array, "n batch"], last: Bool[Array, "n batch"], discount: float
) -> tuple[Float[Array, " batch"], Int[Array, " batch"]]:
    """The discounted sum of rewards until the episode or the n steps end, and the index of its last step."""
    over = jnp.cumsum(last, axis=0) - last > 0  # an earlier step was the last
    powers = discount ** jnp.arange(len(reward))
    return (powers[:, None] * jnp.where(over, 0.0, reward)).sum(0), (~over).sum(0) - 1


@dataclasses.dataclass(frozen=True)
class FastTD3:
    """`init(key) -> state`, `run(state, steps) -> state`: pure; `environment` is a `VectorEnvironment`."""

    environment: Any
    settings: Settings

    def init(self, key: PRNGKeyArray) -> State:
        """Fresh networks and worlds, replay empty."""
        env_key, noise_key, actor_key, *critic_keys, key = jax.random.split(key, 6)
        env = self.environment.reset(env_key)
        observation = flat(env.observation)
        action = jnp.zeros((len(observation), self.environment.env.action_size))
        actor = self._actor.init(actor_key, observation)
        critics = jax.vmap(self._critic.init, (0, None, None))(jnp.stack(critic_keys), observation, action)
        size, zero = observation.shape[-1], jnp.zeros(len(observation))
        one = Transitions(observation, action, zero, zero > 0, zero > 0, observation)
        return State(
            env=env,
            noise=self._fresh_noise(noise_key),
            actor=actor,
            critics=critics,
            targets=critics,
            actor_optimizer=self._optimizer.init(actor),
            critic_optimizer=self._optimizer.init(critics),
            seen=Statistics(jnp.zeros(()), jnp.zeros(size), jnp.ones(size)),
            replay=jax.tree.map(lambda x: jnp.zeros((self.settings.capacity, *x.shape), x.dtype), one),
            steps=jnp.zeros((), jnp.int32),
            key=key,
        )

    def run(self, state: State, steps: int) -> State:
        """So many steps of every world, with the updates that follow each."""
        return jax.lax.scan(lambda state, _: (self._step(state), None), state, None, length=steps)[0]

    def act(self, state: State, observation: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
        """The policy's actions, without noise."""
        return self._policy(state.actor, state.seen.normalized(observation))

    def _step(self, state: State) -> State:
        act_key, env_key, noise_key, learn_key, key = jax.random.split(state.key, 5)
        observation = flat(state.env.observation)
        seen = state.seen.joined(observation)
        state = state.replace(seen=seen)
        mean = self.act(state, observation)
        action = mean + state.noise * jax.random.normal(act_key, mean.shape)
        env, timestep = self.environment.step(state.env, jnp.clip(action, -1.0, 1.0), env_key)
        last = timestep.is_last > 0
        fresh = Transitions(
            observation,
            action,
            timestep.reward,
            timestep.discount > 0,
            last,
            flat(timestep.next_observation),
        )
        place = state.steps % self.settings.capacity
        state = state.replace(
            env=env,
            noise=jnp.where(last[:, None], self._fresh_noise(noise_key), state.noise),
            replay=jax.tree.map(lambda ring, x: ring.at[place].set(x), state.replay, fresh),
            steps=state.steps + 1,
            key=key,
        )

        def learn(state: State) -> State:
            keys = jax.random.split(learn_key, self.settings.updates)
            counts = state.steps * self.settings.updates + jnp.arange(self.settings.updates)
            return jax.lax.scan(lambda s, x: (self._update(s, *x), None), state, (keys, counts))[0]

        return jax.lax.cond(
            state.steps > max(self.settings.warmup, self.settings.n_step), learn, lambda state: state, state
        )

    def _update(self, state: State, key: PRNGKeyArray, count: Array) -> State:
        settings, support = self.settings, jnp.linspace(*self.settings.values, self.settings.num_atoms)
        sample_key, noise_key = jax.random.split(key)
        batch = self._sample(state, sample_key)
        now, following = (state.seen.normalized(x) for x in (batch.observation, batch.following))
        noise = settings.target_noise * jax.random.normal(noise_key, batch.action.shape)
        noise = jnp.clip(noise, -settings.target_noise_clip, settings.target_noise_clip)
        next_action = jnp.clip(self._policy(state.actor, following) + noise, -1.0, 1.0)
        both = jax.nn.softmax(self._of_both(state.targets, following, next_action))
        values = both @ support
        least = jnp.where((values[0] < values[1])[:, None], both[0], both[1])
        target = project(least, batch.reward, batch.discount, support)

        def critic_loss(critics: Any) -> Array:
            logits = self._of_both(critics, now, batch.action)
            return -(target * jax.nn.log_softmax(logits)).sum(-1).mean(1).sum()

        gradients = jax.grad(critic_loss)(state.critics)
        moves, critic_optimizer = self._optimizer.update(gradients, state.critic_optimizer, state.critics)
        critics = optax.apply_updates(state.critics, moves)
        targets = optax.incremental_update(critics, state.targets, settings.target_rate)

        def actor_loss(actor: Any) -> Array:
            values = jax.nn.softmax(self._of_both(critics, now, self._policy(actor, now))) @ support
            return -values.min(0).mean()

        def improve(actor: Any, optimizer: Any) -> tuple[Any, Any]:
            moves, optimizer = self._optimizer.update(jax.grad(actor_loss)(actor), optimizer, actor)
            return optax.apply_updates(actor, moves), optimizer

        actor, actor_optimizer = jax.lax.cond(
            count % settings.policy_delay == 0,
            improve,
            lambda *kept: kept,
            state.actor,
            state.actor_optimizer,
        )
        return state.replace(
            actor=actor,
            critics=critics,
            targets=targets,
            actor_optimizer=actor_optimizer,
            critic_optimizer=critic_optimizer,
        )

    def _sample(self, state: State, key: PRNGKeyArray) -> Batch:
        settings, replay = self.settings, state.replay
        filled = jnp.minimum(state.steps, settings.capacity)
        starts, envs = jax.random.randint(
            key,
            (2, settings.batch_size),
            0,
            jnp.array([[filled - settings.n_step + 1], [self.environment.num_envs]]),
        )
        oldest = state.steps - filled  # no return crosses from the newest step to the oldest
        rows = (oldest + starts + jnp.arange(settings.n_step)[:, None]) % settings.capacity
        reward, end = n_step_return(replay.reward[rows, envs], replay.last[rows, envs], settings.discount)
        ends = (rows[0] + end) % settings.capacity
        return Batch(
            observation=replay.observation[rows[0], envs],
            action=replay.action[rows[0], envs],
            reward=reward,
            discount=settings.discount ** (end + 1) * replay.going_on[ends, envs],
            following=replay.following[ends, envs],
        )

    def _policy(self, actor: Any, normalized: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
        before: Any = self._actor.apply(actor, normalized)
        return jnp.tanh(before)

    def _of_both(self, critics: Any, observation: Array, action: Array) -> Float[Array, "two batch atoms"]:
        return jax.vmap(self._critic.apply, (0, None, None))(critics, observation, action)  # pyright: ignore

    def _fresh_noise(self, key: PRNGKeyArray) -> Float[Array, "envs 1"]:
        least, greatest = self.settings.noise
        return jax.random.uniform(key, (self.environment.num_envs, 1), minval=least, maxval=greatest)

    @property
    def _actor(self) -> Network:
        return Network(self.settings.actor_sizes, self.environment.env.action_size, last_scale=0.01)

    @property
    def _critic(self) -> Network:
        return Network(self.settings.critic_sizes, self.settings.num_atoms)

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.adamw(self.settings.learning_rate, weight_decay=self.settings.weight_decay)


@flax.struct.dataclass
class Player:
    """A trained policy as `mjx_hkl.experiments.evaluation` plays it; it has no noise."""

    learner: FastTD3 = flax.struct.field(pytree_node=False)
    state: State

    def start(self, batch: tuple[int, ...]) -> None:
        """It remembers nothing."""

    def no_noise(self, batch: tuple[int, ...]) -> None:
        """It needs none."""

    noise = no_noise

    def step(self, carry: None, observation: dict, is_first: Array, noise: Any) -> tuple[None, Any]:
        """The policy's actions."""
        return None, Acted(self.learner.act(self.state, flat(observation)))


@flax.struct.dataclass
class Acted:
    """What it does in a step."""

    action: Array
