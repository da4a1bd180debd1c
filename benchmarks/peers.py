"""Other trainers beside mjx-hkl, on the same world, in turn on one machine.

    pip install ".[benchmarks]"
    python benchmarks/peers.py ball-go-to-target --out peers.json
    python benchmarks/peers.py grid-1-step --out grid.json

Continuous actions: Brax's SAC and PPO. Discrete actions: rejax, whose PPO follows PureJaxRL's, and the same
with one pass over its data (A2C). Each trains in a process of its own with as many worlds, the physics
engine, the budget and the network sizes of the recipe; SAC also with its batch, replay and replay ratio; the
others go on beyond the budget until they have had three times the seconds that mjx-hkl took to 80 %. Of each:
environment steps per second with learning, and training seconds until 50 and 80 % success, evaluations and
compilation apart. Success is that of 128 episodes, forty times in the budget, under the mean policy (with
discrete actions: the sampled one). One JSON object, and a table.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

THRESHOLDS = (0.5, 0.8)
EVALUATIONS = 40
EVALUATION_EPISODES = 128
LONGER = 8  # times the budget, at the most, that a peer goes on
AHEAD = 3.0  # times our seconds to 80 % that a peer is given

Point = tuple[float, float, float]  # environment steps, training seconds, success rate


def main() -> None:
    """Runs all peers, or with --only-run the one, and prints what they achieved."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--peers", nargs="+", choices=PEERS, help="all that have the recipe's kind of actions"
    )
    parser.add_argument("--repeats", type=int, default=1, help="seeds, each peer in turn")
    parser.add_argument("--total-env-steps", type=int)
    parser.add_argument(
        "--seconds", type=float, help="of training that peers get at least, beyond their budget"
    )
    parser.add_argument("--only-run", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU is shared with the child
    recipe = prepare(parser, options)
    if options.only_run:
        print(json.dumps(PEERS[options.only_run](recipe, options.seed, options.seconds or 0.0)))
        return
    runs: list[dict[str, Any]] = []
    result = {"recipe": options.recipe, **about(recipe), "runs": runs}
    for seed, peer in itertools.product(range(options.repeats), options.peers):
        seconds = options.seconds or AHEAD * max(
            (run["seconds_to_80%"] or 0.0 for run in runs if run["peer"] == OURS and run["seed"] == seed),
            default=0.0,
        )
        runs.append(run(peer, seed, seconds, options))
        if options.out:  # after each: hours may be lost else
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table([run for run in runs if "error" not in run]))
    if any("error" in run for run in runs):
        sys.exit(1)


def prepare(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Any:
    """The recipe, resolved, in the budget asked for; ends with one line where a peer cannot run."""
    import dataclasses

    from mjx_hkl.errors import UserError
    from mjx_hkl.experiments.build import resolve
    from mjx_hkl.experiments.recipe import load_recipe

    try:
        recipe = resolve(load_recipe(options.recipe))
        if options.total_env_steps:
            recipe = dataclasses.replace(recipe, total_env_steps=options.total_env_steps)
    except UserError as error:
        parser.error(str(error))
    if recipe.transfer.checkpoint:
        parser.error(f"{options.recipe} starts from another agent, which no peer can")
    able = [OURS, *PEERS_BY_ACTIONS[recipe.policy.actions]]
    asked = [options.only_run] if options.only_run else options.peers or able
    for peer in asked:
        if peer not in able:
            parser.error(f"{peer} does not have {recipe.policy.actions} actions; {', '.join(able)} do")
        package = peer.partition("-")[0]
        if peer != OURS and importlib.util.find_spec(package) is None:
            parser.error(f"{peer} needs {package}: pip install '.[benchmarks]'")
    options.peers = [peer for peer in able if peer in asked]  # ours first: the others' measure
    try:
        if options.out and not options.only_run:
            options.out.touch()
    except OSError as error:
        parser.error(f"cannot write {options.out}: {error.strerror}")
    return recipe


def run(peer: str, seed: int, seconds: float, options: argparse.Namespace) -> dict[str, Any]:
    """One peer in a process of its own; `error` where it failed."""
    command = [sys.executable, __file__, options.recipe, "--only-run", peer]
    command += ["--seed", str(seed), "--seconds", str(seconds)]
    if options.total_env_steps:
        command += ["--total-env-steps", str(options.total_env_steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = {"peer": peer, "seed": seed}
    if done.returncode:
        return found | {"error": f"exit status {done.returncode}"}
    points: list[Point] = json.loads(done.stdout.splitlines()[-1])
    first, last = points[0], points[-1]
    found |= {
        # the first part has the warm-up in it
        "environment_steps_per_second": (last[0] - first[0]) / max(last[1] - first[1], 1e-9),
        "final_success_rate": last[2],
        "best_success_rate": max(point[2] for point in points),
        "points": points,
    }
    for threshold in THRESHOLDS:
        there = next((point for point in points if point[2] >= threshold), None)
        found[f"seconds_to_{threshold:.0%}"] = there and there[1]
        found[f"environment_steps_to_{threshold:.0%}"] = there and there[0]
    print(json.dumps({name: value for name, value in found.items() if name != "points"}), file=sys.stderr)
    return found


def train_ours(recipe: Any, seed: int, seconds: float) -> list[Point]:
    """`mjx-hkl train`, its agent evaluated after every log interval."""
    import dataclasses

    from mjx_hkl.experiments.build import make_environment, make_loop
    from mjx_hkl.experiments.evaluation import evaluate
    from mjx_hkl.experiments.training_run import agent_of_seed
    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    interval = -(-recipe.total_env_steps // EVALUATIONS)
    loop = make_loop(dataclasses.replace(recipe, seed=seed, num_seeds=1, log_interval=interval))
    worlds = make_environment(recipe, EVALUATION_EPISODES)
    discrete = recipe.policy.actions == "categorical"  # rejax evaluates as it acts
    loop.compile()
    points: list[Point] = []
    spent = 0.0
    for state, (row,) in loop.intervals(loop.init()):
        spent += row["interval_seconds"]
        agent = agent_of_seed(state, 0)
        success = evaluate(worlds, agent, len(points), deterministic=not discrete).success_rate
        points.append((row["environment_steps"], spent, success))
    return points


def train_sac(recipe: Any, seed: int, seconds: float) -> list[Point]:
    """Brax's SAC with the recipe's batch, replay ratio, sizes of networks and learning rate; two critics."""
    from brax.training.agents.sac import networks
    from brax.training.agents.sac import train as sac

    algorithm = recipe.algorithm
    batch = algorithm.batch_size * algorithm.unroll_length
    ratio = algorithm.updates_per_unroll * batch / (recipe.num_envs * algorithm.unroll_length)
    updates = max(1, round(ratio * recipe.num_envs / batch))

    def make_networks(*args: Any, **kwargs: Any) -> networks.SACNetworks:
        policy, critic = (
            networks.make_sac_networks(*args, **{**kwargs, "hidden_layer_sizes": sizes})
            for sizes in (recipe.policy.low_level, recipe.critic.sizes)
        )
        return critic.replace(policy_network=policy.policy_network)

    return train_brax(
        sac.train,
        recipe,
        seed,
        seconds,
        batch_size=round(ratio * recipe.num_envs / updates),  # the nearest of the same ratio
        grad_updates_per_step=updates,
        learning_rate=algorithm.policy_learning_rate,
        min_replay_size=recipe.min_replay,
        max_replay_size=recipe.replay_capacity,
        network_factory=make_networks,
    )


def train_ppo(recipe: Any, seed: int, seconds: float) -> list[Point]:
    """Brax's PPO as its authors train legged bodies, with the recipe's network sizes."""
    from brax.training.agents.ppo import networks
    from brax.training.agents.ppo import train as ppo

    return train_brax(
        ppo.train,
        recipe,
        seed,
        seconds,
        unroll_length=20,
        batch_size=recipe.num_envs // 8,
        num_minibatches=8,
        num_updates_per_batch=4,
        learning_rate=3e-4,
        entropy_cost=1e-2,
        reward_scaling=0.1,
        network_factory=lambda *args, **kwargs: networks.make_ppo_networks(
            *args,
            **{
                **kwargs,
                "policy_hidden_layer_sizes": recipe.policy.low_level,
                "value_hidden_layer_sizes": recipe.critic.sizes,
            },
        ),
    )


class EnoughError(Exception):
    """Ends one of Brax's trainers, which know only a number of steps."""


def train_brax(train: Any, recipe: Any, seed: int, seconds: float, **settings: Any) -> list[Point]:
    """One of Brax's trainers on our world, its observation groups joined."""
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
        points.append((int(steps), metrics["training/walltime"], float(metrics["eval/episode_success"])))
        if steps >= recipe.total_env_steps and without_compiling(points)[-1][1] >= seconds:
            raise EnoughError

    with warnings.catch_warnings(), contextlib.suppress(EnoughError):
        warnings.simplefilter("ignore")
        train(
            environment=FlatWorld(world),
            num_timesteps=LONGER * recipe.total_env_steps,
            episode_length=world.episode_length,
            num_envs=recipe.num_envs,
            num_eval_envs=EVALUATION_EPISODES,
            num_evals=LONGER * EVALUATIONS + 1,
            discounting=recipe.algorithm.discount,
            normalize_observations=True,
            deterministic_eval=True,
            seed=seed,
            progress_fn=progress,
            **settings,
        )
    return without_compiling(points)


def without_compiling(points: list[Point]) -> list[Point]:
    """The first two parts, in which Brax compiles, no longer than the four after them are."""
    seconds = [0.0, *(point[1] for point in points)]
    parts = [after - before for before, after in itertools.pairwise(seconds)]
    typical = median(parts[2:6]) if parts[2:] else parts[-1]
    spent = itertools.accumulate([*(min(part, typical) for part in parts[:2]), *parts[2:]])
    return [(steps, so_far, success) for (steps, _, success), so_far in zip(points, spent, strict=True)]


def train_rejax(recipe: Any, seed: int, seconds: float, passes: int) -> list[Point]:
    """PPO of rejax with PureJaxRL's settings, or with one pass over the data of each unroll."""
    import jax
    from flax import linen
    from rejax import PPO
    from rejax.evaluate import evaluate
    from rejax.networks import VNetwork

    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    algorithm = recipe.algorithm
    world = GymnaxWorld(recipe.environment)
    interval = -(-recipe.total_env_steps // EVALUATIONS)
    agent = PPO.create(
        env=world,
        agent_kwargs={"hidden_layer_sizes": recipe.policy.low_level, "activation": "elu"},
        total_timesteps=interval,
        eval_freq=interval,
        skip_initial_evaluation=True,
        num_envs=recipe.num_envs,
        num_steps=algorithm.unroll_length,
        num_epochs=passes,
        num_minibatches=passes,
        gamma=algorithm.discount,
        learning_rate=algorithm.policy_learning_rate,
        ent_coef=algorithm.entropy_cost,
        max_grad_norm=0.5,
    ).replace(
        eval_callback=lambda agent, state, rng: (),
        critic=VNetwork(hidden_layer_sizes=recipe.critic.sizes, activation=linen.elu),
    )
    train = jax.jit(lambda state: agent.train(train_state=state)[0])
    play = jax.jit(
        lambda state, key: evaluate(
            agent.make_act(state), key, world, world.default_params, EVALUATION_EPISODES
        )[0]
    )
    state = agent.init_state(jax.random.key(seed))
    jax.block_until_ready(train(state))  # compiles
    points: list[Point] = []
    spent = 0.0
    most = LONGER * recipe.total_env_steps
    while int(state.global_step) < (most if spent < seconds else recipe.total_env_steps):
        start = time.perf_counter()
        state = jax.block_until_ready(train(state))
        spent += time.perf_counter() - start
        lengths = play(state, jax.random.key(len(points)))
        success = float((lengths < world.episode_length).mean())
        points.append((int(state.global_step), spent, success))
    return points


class GymnaxParameters(NamedTuple):
    """What rejax reads of an environment's parameters."""

    max_steps_in_episode: int


class GymnaxWorld:
    """One of our grids behind the functions of gymnax that rejax calls."""

    def __init__(self, name: str):
        from mjx_hkl.environments import make_world

        self.world: Any = make_world(name)
        self.default_params = GymnaxParameters(self.episode_length)

    @property
    def episode_length(self) -> int:
        """Actions until truncation."""
        return self.world.episode_length

    def reset(self, key: Any, params: Any) -> tuple[Any, Any]:
        """A first observation and a state, with the actions since its reset."""
        import jax.numpy as jnp

        state = self.world.reset(key)
        return self.flat(state), (state, jnp.zeros((), jnp.int32))

    def step(self, key: Any, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        """One action; where the episode is over, the first observation of the next."""
        import jax
        import jax.numpy as jnp

        inner, age = state
        after = self.world.step(inner, action)
        done = (after.done > 0) | (age + 1 >= self.episode_length)
        first_seen, first = self.reset(key, params)
        seen, state = jax.tree.map(
            lambda x, y: jnp.where(done, x, y), (first_seen, first), (self.flat(after), (after, age + 1))
        )
        return seen, state, after.reward, done, {}

    def flat(self, state: Any) -> Any:
        """All observation groups in one vector."""
        import jax.numpy as jnp

        return jnp.concatenate([state.obs[name] for name in self.world.observation_size])

    def action_space(self, params: Any) -> Any:
        """The moves."""
        from gymnax.environments.spaces import Discrete

        return Discrete(self.world.action_size)

    def observation_space(self, params: Any) -> Any:
        """Of one vector."""
        from gymnax.environments.spaces import Box

        return Box(-1.0, 1.0, (sum(self.world.observation_size.values()),))


def about(recipe: Any) -> dict[str, Any]:
    """What the numbers are of."""
    from importlib.metadata import PackageNotFoundError, version

    from mjx_hkl.training import devices

    versions = {}
    for name in ("mjx-hkl", "brax", "rejax", "jax", "mujoco", "mujoco-mjx"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    budget = {"num_envs": recipe.num_envs, "total_env_steps": recipe.total_env_steps}
    return {**budget, "device": devices.describe(1), "cores": os.cpu_count(), "versions": versions}


def table(runs: list[dict[str, Any]]) -> str:
    """Medians over seeds, in Markdown."""
    lines = [
        "| | seeds | steps/s with learning | seconds to 50 % | to 80 % | success at the end |",
        "|---|---|---|---|---|---|",
    ]
    for peer in dict.fromkeys(run["peer"] for run in runs):
        mine = [run for run in runs if run["peer"] == peer]
        speed = median(run["environment_steps_per_second"] for run in mine)
        seconds = [median(run[f"seconds_to_{t:.0%}"] or float("inf") for run in mine) for t in THRESHOLDS]
        shown = ["never" if x == float("inf") else f"{x:.0f}" if x >= 10 else f"{x:.1f}" for x in seconds]
        final = median(run["final_success_rate"] for run in mine)
        lines.append(f"| {peer} | {len(mine)} | {speed:,.0f} | {shown[0]} | {shown[1]} | {final:.1%} |")
    return "\n".join(lines)


OURS = "mjx-hkl"
PEERS = {
    OURS: train_ours,
    "brax-sac": train_sac,
    "brax-ppo": train_ppo,
    "rejax-ppo": partial(train_rejax, passes=4),
    "rejax-a2c": partial(train_rejax, passes=1),
}
PEERS_BY_ACTIONS = {"gaussian": ["brax-sac", "brax-ppo"], "categorical": ["rejax-ppo", "rejax-a2c"]}


if __name__ == "__main__":
    main()
