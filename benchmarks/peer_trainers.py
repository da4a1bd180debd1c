"""What peers.py runs: each trains on a recipe's world and returns how its success and return rose.

Every trainer takes a resolved recipe, a plan, and settings that replace its own.
"""

import contextlib
import itertools
import time
import warnings
from functools import partial
from statistics import median
from typing import Any, NamedTuple

LONGER = 8  # times the budget, at the most, that a peer goes on


class Plan(NamedTuple):
    """How long a peer trains and how it is evaluated."""

    seed: int
    evaluations: int  # in the budget of the recipe
    episodes: int  # of each evaluation
    steps: int  # of its worlds, at the least
    seconds: float  # of training, at the least


class Point(NamedTuple):
    """An evaluation: after how many environment steps and training seconds, and what it gave."""

    steps: float
    seconds: float
    success: float
    mean_return: float


Settings = dict[str, Any]


def train_ours(recipe: Any, plan: Plan, settings: Settings) -> list[Point]:
    """`mjx-hkl train`, its agent evaluated after every log interval; it has no settings but the recipe."""
    import dataclasses

    from mjx_hkl.experiments.build import make_environment, make_loop
    from mjx_hkl.experiments.evaluation import evaluate
    from mjx_hkl.experiments.snapshots import agent_of_seed
    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    interval = -(-recipe.total_env_steps // plan.evaluations)
    loop = make_loop(dataclasses.replace(recipe, seed=plan.seed, num_seeds=1, log_interval=interval))
    worlds = make_environment(recipe, plan.episodes)
    discrete = recipe.policy.actions == "categorical"  # rejax evaluates as it acts
    loop.compile()
    points: list[Point] = []
    spent = 0.0
    for state, (row,) in loop.intervals(loop.init()):
        metrics: dict[str, Any] = row
        spent += metrics["interval_seconds"]
        agent = agent_of_seed(state, 0)
        found = evaluate(worlds, agent, len(points), deterministic=not discrete)
        points.append(Point(metrics["environment_steps"], spent, found.success_rate, found.episode_return))
    return points


def train_sac(recipe: Any, plan: Plan, settings: Settings) -> list[Point]:
    """Brax's SAC with the recipe's batch, replay ratio, sizes of networks and learning rate; two critics.

    Settings are arguments of Brax's `train`, `cached_starts`, `replay_ratio`, `batch_size`, `policy_sizes`
    and `critic_sizes`.
    """
    from brax.training.agents.sac import networks
    from brax.training.agents.sac import train as sac

    algorithm, settings = recipe.algorithm, {**sizes_of(recipe), **settings}
    updates, batch = updates_of(
        recipe, settings.pop("replay_ratio", algorithm.replay_ratio), settings.pop("batch_size", None)
    )
    policy_sizes, critic_sizes = settings.pop("policy_sizes"), settings.pop("critic_sizes")

    def make_networks(*args: Any, **kwargs: Any) -> networks.SACNetworks:
        policy, critic = (
            networks.make_sac_networks(*args, **{**kwargs, "hidden_layer_sizes": sizes})
            for sizes in (policy_sizes, critic_sizes)
        )
        return critic.replace(policy_network=policy.policy_network)

    return train_brax(
        sac.train,
        recipe,
        plan,
        network_factory=make_networks,
        batch_size=batch,
        grad_updates_per_step=updates,
        **{
            "learning_rate": algorithm.policy_learning_rate,
            "min_replay_size": recipe.min_replay,
            "max_replay_size": recipe.replay_capacity,
            "discounting": algorithm.discount,
            **settings,
        },
    )


def train_ppo(recipe: Any, plan: Plan, settings: Settings) -> list[Point]:
    """Brax's PPO as its authors train legged bodies, with the recipe's network sizes.

    Settings are arguments of Brax's `train`, and `cached_starts`, `policy_sizes`, `critic_sizes`.
    """
    from brax.training.agents.ppo import networks
    from brax.training.agents.ppo import train as ppo

    settings = {
        "unroll_length": 20,
        "num_minibatches": 8,
        "num_updates_per_batch": 4,
        "learning_rate": 3e-4,
        "entropy_cost": 1e-2,
        "reward_scaling": 0.1,
        "discounting": recipe.algorithm.discount,
        **sizes_of(recipe),
        **settings,
    }
    sizes = {
        "policy_hidden_layer_sizes": settings.pop("policy_sizes"),
        "value_hidden_layer_sizes": settings.pop("critic_sizes"),
    }
    return train_brax(
        ppo.train,
        recipe,
        plan,
        network_factory=lambda *args, **kwargs: networks.make_ppo_networks(*args, **{**kwargs, **sizes}),
        batch_size=recipe.num_envs // settings["num_minibatches"],
        **settings,
    )


def sizes_of(recipe: Any) -> Settings:
    """Hidden layers of the recipe's low level and critic, for a peer's policy and critic."""
    return {"policy_sizes": recipe.policy.low_level.sizes, "critic_sizes": recipe.critic.sizes}


def updates_of(recipe: Any, ratio: float, batch: int | None = None) -> tuple[int, int]:
    """Updates after a step of all worlds, and transitions in each, at a replay ratio.

    The batch is the nearest to `batch`, or else to the recipe's, that keeps the ratio in whole updates.
    """
    wanted = batch or recipe.algorithm.batch_size * recipe.algorithm.unroll_length
    updates = max(1, round(ratio * recipe.num_envs / wanted))
    return updates, round(ratio * recipe.num_envs / updates)


class EnoughError(Exception):
    """Ends one of Brax's trainers, which know only a number of steps."""


def train_brax(
    train: Any, recipe: Any, plan: Plan, cached_starts: bool = False, **settings: Any
) -> list[Point]:
    """One of Brax's trainers on our world, its observation groups joined.

    Each episode has a start of its own; with `cached_starts`, as in Brax, that which its world had first.
    """
    import jax
    import jax.numpy as jnp

    from mjx_hkl.environments import FlatWorld, make_world
    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    if not hasattr(jax, "device_put_replicated"):  # gone from JAX; Brax still calls it
        jax.device_put_replicated = lambda x, places: jax.tree.map(lambda y: jnp.stack([y]), x)
    world: Any = make_world(recipe.environment, recipe.engine)
    points: list[Point] = []

    def progress(steps: int, metrics: dict[str, Any]) -> None:
        if "training/walltime" not in metrics:
            return  # before training
        success, reward = (float(metrics[f"eval/episode_{name}"]) for name in ("success", "reward"))
        points.append(Point(int(steps), metrics["training/walltime"], success, reward))
        if len(points) < 3:  # it has compiled in both parts so far
            return
        if steps >= plan.steps and without_compiling(points)[-1].seconds >= plan.seconds:
            raise EnoughError

    with warnings.catch_warnings(), contextlib.suppress(EnoughError):
        warnings.simplefilter("ignore")
        train(
            environment=FlatWorld(world),
            num_timesteps=LONGER * recipe.total_env_steps,
            episode_length=world.episode_length,
            num_envs=recipe.num_envs,
            num_eval_envs=plan.episodes,
            num_evals=LONGER * plan.evaluations + 1,
            normalize_observations=True,
            deterministic_eval=True,
            seed=plan.seed,
            progress_fn=progress,
            wrap_env_fn=wrapper_of(recipe.environment, cached_starts),
            **settings,
        )
    return without_compiling(points)


def wrapper_of(environment: str, cached_starts: bool) -> Any:
    """What begins episodes anew for Brax's trainers; None is what Brax has."""
    import fresh_starts

    if not cached_starts:
        return fresh_starts.wrap
    if not environment.startswith("playground:"):
        return None
    from mujoco_playground import wrapper

    return wrapper.wrap_for_brax_training


def without_compiling(points: list[Point]) -> list[Point]:
    """The first two parts, in which Brax compiles, no longer than the four after them are.

    Of fewer than three points nothing is known without compilation, and Brax is not stopped before.
    """
    seconds = [0.0, *(point.seconds for point in points)]
    parts = [after - before for before, after in itertools.pairwise(seconds)]
    typical = median(parts[2:6]) if parts[2:] else parts[-1]
    spent = itertools.accumulate([*(min(part, typical) for part in parts[:2]), *parts[2:]])
    return [point._replace(seconds=so_far) for point, so_far in zip(points, spent, strict=True)]


def train_fast_td3(recipe: Any, plan: Plan, settings: Settings) -> list[Point]:
    """FastTD3's algorithm with the recipe's batch, replay ratio and sizes of networks.

    Settings are fields of `fast_td3.Settings`; with a `batch_size` alone, the updates keep near the ratio.
    """
    import fast_td3
    import jax

    from mjx_hkl.experiments.build import make_environment
    from mjx_hkl.experiments.evaluation import evaluate
    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    algorithm, sizes = recipe.algorithm, sizes_of(recipe)
    updates, batch = updates_of(recipe, algorithm.replay_ratio, settings.get("batch_size"))
    learner = fast_td3.FastTD3(
        make_environment(recipe),
        fast_td3.Settings(
            **{
                "actor_sizes": sizes["policy_sizes"],
                "critic_sizes": sizes["critic_sizes"],
                "batch_size": batch,
                "updates": updates,
                "capacity": recipe.replay_capacity // recipe.num_envs,
                "discount": algorithm.discount,
                **settings,
            }
        ),
    )
    worlds = make_environment(recipe, plan.episodes)
    interval = -(-recipe.total_env_steps // plan.evaluations // recipe.num_envs)
    state = jax.jit(learner.init)(jax.random.key(plan.seed))
    run = jax.jit(lambda state: learner.run(state, interval), donate_argnums=0).lower(state).compile()
    points: list[Point] = []
    spent, steps, most = 0.0, 0, LONGER * recipe.total_env_steps
    while steps < (most if spent < plan.seconds else plan.steps):
        start = time.perf_counter()
        state = jax.block_until_ready(run(state))
        spent += time.perf_counter() - start
        steps += interval * recipe.num_envs
        player: Any = fast_td3.Player(learner, state)
        found = evaluate(worlds, player, len(points))
        points.append(Point(steps, spent, found.success_rate, found.episode_return))
    return points


def train_rejax(recipe: Any, plan: Plan, settings: Settings, passes: int) -> list[Point]:
    """PPO of rejax with PureJaxRL's settings, or with one pass over the data of each unroll.

    Settings are arguments of its `create`.
    """
    import jax
    from flax import linen
    from gymnax_world import GymnaxWorld
    from rejax import PPO  # pyright: ignore[reportMissingImports] - of the extra `benchmarks`
    from rejax.evaluate import evaluate  # pyright: ignore[reportMissingImports]
    from rejax.networks import VNetwork  # pyright: ignore[reportMissingImports]

    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    algorithm = recipe.algorithm
    world = GymnaxWorld(recipe.environment)
    interval = -(-recipe.total_env_steps // plan.evaluations)
    agent = PPO.create(
        env=world,
        agent_kwargs={"hidden_layer_sizes": sizes_of(recipe)["policy_sizes"], "activation": "elu"},
        total_timesteps=interval,
        eval_freq=interval,
        skip_initial_evaluation=True,
        num_envs=recipe.num_envs,
        **{
            "num_steps": algorithm.unroll_length,
            "num_epochs": passes,
            "num_minibatches": passes,
            "gamma": algorithm.discount,
            "learning_rate": algorithm.policy_learning_rate,
            "ent_coef": algorithm.entropy_cost,
            "max_grad_norm": 0.5,
            **settings,
        },
    ).replace(
        eval_callback=lambda agent, state, rng: (),
        critic=VNetwork(hidden_layer_sizes=recipe.critic.sizes, activation=linen.elu),
    )
    train = jax.jit(lambda state: agent.train(train_state=state)[0])
    play = jax.jit(
        lambda state, key: evaluate(agent.make_act(state), key, world, world.default_params, plan.episodes)
    )
    state = agent.init_state(jax.random.key(plan.seed))
    jax.block_until_ready(train(state))  # compiles
    points: list[Point] = []
    spent = 0.0
    most = LONGER * recipe.total_env_steps
    while int(state.global_step) < (most if spent < plan.seconds else plan.steps):
        start = time.perf_counter()
        state = jax.block_until_ready(train(state))
        spent += time.perf_counter() - start
        lengths, returns = play(state, jax.random.key(len(points)))
        success = float((lengths < world.episode_length).mean())
        points.append(Point(int(state.global_step), spent, success, float(returns.mean())))
    return points


OURS = "mjx-hkl"
PEERS = {
    OURS: train_ours,
    "brax-sac": train_sac,
    "brax-ppo": train_ppo,
    "fast-td3": train_fast_td3,
    "rejax-ppo": partial(train_rejax, passes=4),
    "rejax-a2c": partial(train_rejax, passes=1),
}
PEERS_BY_ACTIONS = {
    "gaussian": ["brax-sac", "brax-ppo", "fast-td3"],
    "categorical": ["rejax-ppo", "rejax-a2c"],
}
