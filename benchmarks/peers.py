"""Other trainers beside mjx-hkl, on the same world, in turn on one machine.

    pip install ".[benchmarks]"
    python benchmarks/peers.py ball-go-to-target --out peers.json
    python benchmarks/peers.py grid-1-step --out grid.json
    python benchmarks/peers.py brax-reacher --tries benchmarks/published.toml --out reacher.json
    python benchmarks/peers.py ball-go-to-target --tries benchmarks/tries.toml --out tries.json

Continuous actions: Brax's SAC and PPO, and FastTD3's algorithm (`fast_td3.py`). Discrete actions: rejax,
whose PPO follows PureJaxRL's, and the same with one pass over its data (A2C). Each trains in a process of its
own with as many worlds, the physics engine, the budget and the network sizes of the recipe; SAC and FastTD3
also with its batch, replay and replay ratio; the others go on beyond the budget until they have had three
times the seconds that mjx-hkl took to 80 %, and as many as its whole budget took. Of each: environment steps
per second with learning, and training seconds until 50 and 80 % success, evaluations and compilation apart.
Success is that of `--episodes`, `--evaluations` times in the budget, under the mean policy (with discrete
actions: the sampled one). Where nothing can succeed the others train for mjx-hkl's seconds alone, and mean
returns after half of these and after all of them are compared. With `--tries` each peer trains with each of
the settings that the file, or the file's table of the recipe, has for it. One JSON object, and a table by
seconds to 80 % or by return.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tomllib
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from peer_trainers import OURS, PEERS, PEERS_BY_ACTIONS, Plan, Point

THRESHOLDS = (0.5, 0.8)
FIELDS = ("num_envs", "total_env_steps")  # of the recipe, that may be given
AHEAD = 3.0  # times our seconds to 80 % that a peer is given


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
    for field in FIELDS:
        parser.add_argument("--" + field.replace("_", "-"), type=int, help="instead of the recipe's")
    parser.add_argument(
        "--seconds", type=float, help="of training that peers get at least, beyond their budget"
    )
    parser.add_argument("--evaluations", type=int, default=40, help="in the budget (default 40)")
    parser.add_argument("--episodes", type=int, default=128, help="of an evaluation (default 128)")
    parser.add_argument("--tries", type=Path, help="TOML: for each peer, settings by the name of the try")
    parser.add_argument("--settings", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.add_argument("--only-run", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU is shared with the child
    if options.evaluations < 2:
        parser.error("--evaluations must be at least 2: steps per second are those between them")
    if options.episodes < 1:
        parser.error("--episodes must be at least 1")
    recipe = prepare(parser, options)
    if options.only_run:
        train = PEERS[options.only_run]
        print(json.dumps(train(recipe, plan_of(recipe, options), options.settings)))
        return
    runs: list[dict[str, Any]] = []
    result = {"recipe": options.recipe, **about(recipe), "runs": runs}
    peers: list[str] = options.peers
    tries = read_tries(parser, options)
    runs_of = [(peer, name) for peer in peers for name in tries.get(peer, {"": {}})]
    for seed, (peer, name) in itertools.product(range(options.repeats), runs_of):
        seconds = options.seconds or seconds_for_peers([run for run in runs if run["seed"] == seed])
        settings = tries.get(peer, {}).get(name, {})
        shown = {"try": name, "settings": settings} if name else {}
        runs.append({**run(peer, seed, seconds, options, settings), **shown})
        if options.out:  # after each: hours may be lost else
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    done = [run for run in runs if "error" not in run]
    print(table(done) if result["tells_success"] else table_of_returns(done))
    if any("error" in run for run in runs):
        sys.exit(1)


def plan_of(recipe: Any, options: argparse.Namespace) -> Plan:
    """Of one run: no fewer steps than the recipe's, but where returns are compared after so many seconds."""
    by_seconds = options.seconds and not can_succeed(recipe)
    steps = 0 if by_seconds else recipe.total_env_steps
    return Plan(options.seed, options.evaluations, options.episodes, steps, options.seconds or 0.0)


def can_succeed(recipe: Any) -> bool:
    """Whether its world tells of success."""
    from mjx_hkl.environments import make_world

    return make_world(recipe.environment, recipe.engine).can_succeed


def seconds_for_peers(runs: list[dict[str, Any]]) -> float:
    """How long a peer trains at least, by our runs with its seed."""
    ours = [run for run in runs if run["peer"] == OURS and "error" not in run]
    there = [AHEAD * (run["seconds_to_80%"] or 0.0) for run in ours]
    return max([*there, *(run["points"][-1].seconds for run in ours)], default=0.0)


def prepare(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Any:
    """The recipe, resolved, with the fields given; ends with one line where a peer cannot run."""
    from mjx_hkl.config import to_table
    from mjx_hkl.environments import is_foreign
    from mjx_hkl.errors import UserError
    from mjx_hkl.experiments.build import resolve
    from mjx_hkl.experiments.recipe import load_recipe, recipe_from_table

    try:
        given = {field: getattr(options, field) for field in FIELDS if getattr(options, field) is not None}
        table = to_table(load_recipe(options.recipe)) | given
        recipe = recipe_from_table(table, "command line")
        if len(recipe.environments) > 1:
            parser.error(f"{options.recipe} has several environments; a peer trains in one")
        recipe = resolve(recipe)
    except UserError as error:
        parser.error(str(error))
    if recipe.transfer.agents:
        parser.error(f"{options.recipe} starts from another agent, which no peer can")
    able = [OURS, *PEERS_BY_ACTIONS[recipe.policy.actions]]
    # FastTD3's distribution of values spans those of our worlds; for others a file of tries says the range.
    tries = {options.only_run: {"": options.settings}} if options.only_run else read_tries(parser, options)
    of_fast = tries.get("fast-td3", {"": {}}).values()
    is_blind = is_foreign(recipe.environments[0]) and not all("values" in settings for settings in of_fast)
    by_default = [peer for peer in able if not (is_blind and peer == "fast-td3")]
    asked = [options.only_run] if options.only_run else options.peers or by_default
    for peer in asked:
        if peer not in able:
            parser.error(f"{peer} does not have {recipe.policy.actions} actions; {', '.join(able)} do")
        if peer == "fast-td3" and is_blind:
            parser.error(
                "fast-td3 needs --tries FILE with the `values` of such a world; or leave it out by --peers"
            )
        package = "flax" if peer == "fast-td3" else peer.partition("-")[0]
        if peer != OURS and importlib.util.find_spec(package) is None:
            parser.error(f"{peer} needs {package}: pip install '.[benchmarks]'")
    options.peers = [peer for peer in able if peer in asked]  # ours first: the others' measure
    try:
        if options.out and not options.only_run:
            options.out.touch()
    except OSError as error:
        parser.error(f"cannot write {options.out}: {error.strerror}")
    return recipe


def read_tries(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, Any]:
    """Settings of each peer by name; ends with one line where the file does not say that."""
    if not options.tries:
        return {}
    try:
        tries = tomllib.loads(options.tries.read_text())
    except (OSError, ValueError) as error:
        parser.error(f"cannot read {options.tries}: {error}")
    tries = tries.get(options.recipe, tries)
    for peer, named in tries.items():
        if peer not in PEERS:
            names = ", ".join(PEERS)
            parser.error(f"{options.tries}: there is no peer {peer}; there are {names}, or {options.recipe}")
        if not named or not all(isinstance(settings, dict) for settings in named.values()):
            parser.error(f"{options.tries}: [{peer}] needs a table of settings for each name")
    return tries


def run(
    peer: str, seed: int, seconds: float, options: argparse.Namespace, settings: dict[str, Any]
) -> dict[str, Any]:
    """One peer in a process of its own; `error` where it failed."""
    command = [sys.executable, __file__, options.recipe, "--only-run", peer]
    command += ["--seed", str(seed), "--seconds", str(seconds)]
    command += ["--evaluations", str(options.evaluations), "--episodes", str(options.episodes)]
    command += ["--settings", json.dumps(settings)]
    for field in FIELDS:
        if getattr(options, field) is not None:
            command += ["--" + field.replace("_", "-"), str(getattr(options, field))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = {"peer": peer, "seed": seed}
    if done.returncode:
        return found | {"error": f"exit status {done.returncode}"}
    points = [Point(*point) for point in json.loads(done.stdout.splitlines()[-1])]
    first, last = points[0], points[-1]
    found |= {
        # the first part has the warm-up in it
        "environment_steps_per_second": (last.steps - first.steps) / max(last.seconds - first.seconds, 1e-9),
        "final_success_rate": last.success,
        "best_success_rate": max(point.success for point in points),
        "final_mean_return": last.mean_return,
        "points": points,
    }
    for threshold in THRESHOLDS:
        there = next((point for point in points if point.success >= threshold), None)
        found[f"seconds_to_{threshold:.0%}"] = there and there.seconds
        found[f"environment_steps_to_{threshold:.0%}"] = there and there.steps
    print(json.dumps(settings | {k: x for k, x in found.items() if k != "points"}), file=sys.stderr)
    return found


def about(recipe: Any) -> dict[str, Any]:
    """What the numbers are of."""
    from importlib.metadata import PackageNotFoundError, version

    from mjx_hkl.training import devices

    versions = {}
    for name in ("mjx-hkl", "brax", "rejax", "jax", "mujoco", "mujoco-mjx", "playground"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    budget = {"num_envs": recipe.num_envs, "total_env_steps": recipe.total_env_steps}
    tells = {"tells_success": can_succeed(recipe)}
    return {**budget, **tells, "device": devices.describe(1), "cores": os.cpu_count(), "versions": versions}


def table(runs: list[dict[str, Any]]) -> str:
    """Medians over seeds, in Markdown, by seconds to 80 %.

    Where most seeds never had the success, the seconds they were given.
    """
    rows = []
    for title, mine in by_title(runs).items():
        speed = median(run["environment_steps_per_second"] for run in mine)
        seconds = [median(run[f"seconds_to_{t:.0%}"] or inf for run in mine) for t in THRESHOLDS]
        given = median(run["points"][-1].seconds for run in mine)
        shown = [
            f"not in {given:.0f}" if x == inf else f"{x:.0f}" if x >= 10 else f"{x:.1f}" for x in seconds
        ]
        final = median(run["final_success_rate"] for run in mine)
        line = f"| {title} | {len(mine)} | {speed:,.0f} | {shown[0]} | {shown[1]} | {final:.1%} |"
        rows.append(((*reversed(seconds), -final), line))
    lines = [
        "| | seeds | steps/s with learning | seconds to 50 % | to 80 % | success at the end |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(line for _, line in sorted(rows))])


def table_of_returns(runs: list[dict[str, Any]]) -> str:
    """Medians over seeds, in Markdown, by the return after the seconds that our budget (else theirs) took."""
    ours = [run for run in runs if run["peer"] == OURS]
    whole = median(run["points"][-1].seconds for run in ours or runs) if runs else 0.0
    moments = whole / 2, whole
    rows = []
    for title, mine in by_title(runs).items():
        speed = median(run["environment_steps_per_second"] for run in mine)
        returns = [median(return_after(run["points"], moment) for run in mine) for moment in moments]
        shown = " | ".join(f"{x:.1f}" for x in returns)
        rows.append((-returns[-1], f"| {title} | {len(mine)} | {speed:,.0f} | {shown} |"))
    lines = [
        f"| | seeds | steps/s with learning | return after {moments[0]:.0f} s | after {moments[1]:.0f} s |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(line for _, line in sorted(rows))])


def return_after(points: list[Point], seconds: float) -> float:
    """Mean return of the last evaluation by then, a twentieth more allowed, or of the first one."""
    return [points[0], *(point for point in points if point.seconds <= 1.05 * seconds)][-1].mean_return


def by_title(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The seeds of each peer and try."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        peer, name = run["peer"], run.get("try", "")
        found.setdefault(f"{peer}: {name}" if name else peer, []).append(run)
    return found


if __name__ == "__main__":
    main()
