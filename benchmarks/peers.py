"""Other trainers beside mjx-hkl, on the same world, in turn on one machine.

    pip install ".[benchmarks]"
    python benchmarks/peers.py ball-go-to-target --out peers.json
    python benchmarks/peers.py grid-1-step --out grid.json

Continuous actions: Brax's SAC and PPO. Discrete actions: rejax, whose PPO follows PureJaxRL's, and the same
with one pass over its data (A2C). Each trains in a process of its own with as many worlds, the physics
engine, the budget and the network sizes of the recipe; SAC also with its batch, replay and replay ratio. Of
each: environment steps per second with learning (evaluations and compilation apart), and training seconds
until 50 and 80 % success. Peers measure success by 128 evaluation episodes (Brax: of the mean policy),
mjx-hkl by the episodes it trains on. One JSON object, and a table.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

THRESHOLDS = (0.5, 0.8)
EVALUATIONS = 40
EVALUATION_EPISODES = 128
SMOOTH = 3  # log intervals of training episodes in a running mean

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
    parser.add_argument("--only-run", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_run:
        points = PEERS[options.only_run](options.recipe, options.seed, options.total_env_steps)
        print(json.dumps(points))
        return
    from mjx_hkl.errors import UserError

    try:
        recipe = load(options.recipe, None)
    except UserError as error:
        parser.error(str(error))
    peers = options.peers or ["mjx-hkl", *PEERS_BY_ACTIONS[recipe.policy.actions]]
    runs: list[dict[str, Any]] = []
    result = {"recipe": options.recipe, "cores": os.cpu_count(), "versions": versions(), "runs": runs}
    for seed, peer in itertools.product(range(options.repeats), peers):
        runs.append(run(peer, seed, options))
        if options.out:  # after each: hours may be lost else
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(runs))


def run(peer: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One peer in a process of its own."""
    command = [sys.executable, __file__, options.recipe, "--only-run", peer, "--seed", str(seed)]
    if options.total_env_steps:
        command += ["--total-env-steps", str(options.total_env_steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    points: list[Point] = json.loads(done.stdout.splitlines()[-1])
    first, last = points[0], points[-1]
    found = {
        "peer": peer,
        "seed": seed,
        # the first part has the warm-up in it
        "environment_steps_per_second": (last[0] - first[0]) / (last[1] - first[1]),
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


def train_ours(name: str, seed: int, steps: int | None) -> list[Point]:
    """`mjx-hkl train`, its success smoothed over the episodes of a few log intervals."""
    from mjx_hkl.cli.main import run as command
    from mjx_hkl.experiments.curves import read_curves

    recipe = load(name, steps)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        budget = ["--total-env-steps", str(recipe.total_env_steps)]
        assert command(["train", name, "--seed", str(seed), "--out", str(out), *budget]) == 0
        (curve,) = read_curves([out], "success_rate", SMOOTH)[recipe.name]
    return list(zip(curve.axes["environment_steps"], curve.axes["seconds"], curve.value, strict=True))


def train_sac(name: str, seed: int, steps: int | None) -> list[Point]:
    """Brax's SAC with the recipe's batch, replay ratio, sizes of networks and learning rate; two critics."""
    from brax.training.agents.sac import networks
    from brax.training.agents.sac import train as sac

    recipe = load(name, steps)
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
        batch_size=round(ratio * recipe.num_envs / updates),  # the nearest of the same ratio
        grad_updates_per_step=updates,
        learning_rate=algorithm.policy_learning_rate,
        min_replay_size=recipe.min_replay,
        max_replay_size=recipe.replay_capacity,
        network_factory=make_networks,
    )


def train_ppo(name: str, seed: int, steps: int | None) -> list[Point]:
    """Brax's PPO as its authors train legged bodies, with the recipe's network sizes."""
    from brax.training.agents.ppo import networks
    from brax.training.agents.ppo import train as ppo

    recipe = load(name, steps)
    return train_brax(
        ppo.train,
        recipe,
        seed,
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


def train_brax(train: Any, recipe: Any, seed: int, **settings: Any) -> list[Point]:
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
        seconds = float(metrics.get("training/walltime", 0.0))
        points.append((int(steps), seconds, float(metrics["eval/episode_success"])))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(
            environment=FlatWorld(world),
            num_timesteps=recipe.total_env_steps,
            episode_length=world.episode_length,
            num_envs=recipe.num_envs,
            num_eval_envs=EVALUATION_EPISODES,
            num_evals=EVALUATIONS + 1,
            discounting=recipe.algorithm.discount,
            normalize_observations=True,
            deterministic_eval=True,
            seed=seed,
            progress_fn=progress,
            **settings,
        )
    return points[1:]  # the first is before training


def train_rejax(name: str, seed: int, steps: int | None, passes: int) -> list[Point]:
    """PPO of rejax with PureJaxRL's settings, or with one pass over the data of each unroll."""
    import jax
    from flax import linen
    from rejax import PPO
    from rejax.evaluate import evaluate
    from rejax.networks import VNetwork

    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    recipe = load(name, steps)
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
    state = train(agent.init_state(jax.random.key(seed)))  # the first has compilation in it
    points: list[Point] = []
    seconds = 0.0
    while int(state.global_step) < recipe.total_env_steps:
        start = time.perf_counter()
        state = jax.block_until_ready(train(state))
        seconds += time.perf_counter() - start
        lengths = play(state, jax.random.key(len(points)))
        success = float((lengths < world.episode_length).mean())
        points.append((int(state.global_step), seconds, success))
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


def load(name: str, steps: int | None) -> Any:
    """The recipe, resolved, with another budget where one is given."""
    import dataclasses

    from mjx_hkl.experiments.build import resolve
    from mjx_hkl.experiments.recipe import load_recipe

    recipe = resolve(load_recipe(name))
    return dataclasses.replace(recipe, total_env_steps=steps) if steps else recipe


def versions() -> dict[str, str]:
    """Of what is compared."""
    from importlib.metadata import version

    return {name: version(name) for name in ("mjx-hkl", "brax", "jax", "mujoco", "mujoco-mjx")}


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


PEERS = {
    "mjx-hkl": train_ours,
    "brax-sac": train_sac,
    "brax-ppo": train_ppo,
    "rejax-ppo": partial(train_rejax, passes=4),
    "rejax-a2c": partial(train_rejax, passes=1),
}
PEERS_BY_ACTIONS = {"gaussian": ["brax-sac", "brax-ppo"], "categorical": ["rejax-ppo", "rejax-a2c"]}


if __name__ == "__main__":
    main()
