"""What an accelerator does with all of it, in one go: tests, throughput, memory, start-up, a training.

    python benchmarks/accelerator.py OUT [--for h100] [--minutes 20] [--quick] [--bodies ball] [--num-envs 64]

With --for, a device that `mjx-hkl bench compile` knows, it begins with what the compiled programs allow
there, and ends with what was measured beside it. Runs the tests marked `gpu` or `accelerator`, `mjx-hkl bench
env` and `bench train` for every body, engine and number of worlds, `bench train` over seeds for the first
body, memory.py, startup.py and a training that gets beyond 80 % success, each in a process of its own, the
most telling first. What is done is kept in OUT/results.json at once: called again it goes on, tries again
what failed, and names at the end what no time is left for. Draws OUT/throughput.png. --quick takes few
worlds, a CPU's engines and a short run.
"""

import argparse
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mjx_hkl.experiments.run_directory import RunDirectory

BODIES = ("ball", "ant", "quadruped", "humanoid")
NUM_ENVS = (4096, 1024, 16384, 256)  # the run follows the first
QUICK_NUM_ENVS = (128, 64)
NUM_SEEDS = (2, 4, 8)
QUICK_NUM_SEEDS = (2,)
QUICK_RUN = ("--num-envs", "16", "--total-env-steps", "12800", "--min-replay", "3200")
MJX_HKL = (sys.executable, "-c", "from mjx_hkl.cli.main import main; main()")

MARKED = ("environments/test_engines.py", "training/test_step.py", "algorithms/test_replay.py")
STOPPING = 60.0  # seconds

Task = tuple[str, list[str]]  # its name, and the command


def main() -> None:
    """Runs what is not yet done until the time is up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--for", dest="device")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bodies", nargs="+", choices=BODIES, default=BODIES)
    parser.add_argument("--num-envs", nargs="+", type=int)
    parser.add_argument("--num-seeds", nargs="*", type=int)
    options = parser.parse_args()
    file = options.out / "results.json"
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    except (OSError, ValueError) as error:
        parser.error(f"cannot go on with {file}: {error}")
    if not options.quick and not has_accelerator():
        parser.error(
            "JAX finds no accelerator here (python -c 'import jax; jax.devices()'); a CPU wants --quick"
        )
    deadline, left = time.monotonic() + 60 * options.minutes, []
    for name, command in tasks(options):
        if name in results and "error" not in results[name]:
            continue
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            left.append(name)
            continue
        print(name, flush=True)
        results[name] = run(command, remaining)
        if results[name].get("out_of_time"):
            left.append(name)
            del results[name]
        part = file.with_suffix(".part")
        part.write_text(json.dumps(results, indent=1) + "\n")
        part.replace(file)
    draw(results, options.out / "throughput.png")
    for line in beside_bound(results):
        print(line)
    failed = [name for name, result in results.items() if "error" in result]
    print(f"{file}: {len(results)} done; failed: {', '.join(failed) or 'none'}")
    if left:
        print(f"no time left for {', '.join(left)}; call it again")


def tasks(options: argparse.Namespace) -> Iterator[Task]:
    """All there is to do, the most telling first."""
    first, *others = options.num_envs or (QUICK_NUM_ENVS if options.quick else NUM_ENVS)
    for body in options.bodies if options.device else ():
        what = [f"{body}-go-to-target", "--num-envs", str(first), "--for", options.device]
        yield f"bound {body} {first}", [*MJX_HKL, "bench", "compile", *what, "--json"]
    # The suite compiles without optimizations, which is for what runs once on a CPU.
    tests = Path(__file__).parents[1] / "tests"
    marked = [str(tests / name) for name in MARKED]
    suite = [sys.executable, "-m", "pytest", "-q", "-m", "gpu or accelerator", *marked]
    yield "tests", ["env", "XLA_FLAGS=", *suite]
    engines = ["mujoco", "mjx"] if options.quick else ["mjx", *_if_installed("warp")]
    recipe, *budget = ["ball-go-to-target", *QUICK_RUN] if options.quick else ["ant-go-to-near-target"]
    yield from benches(options.bodies, first, engines)
    yield "training", training(recipe, options.out, budget)
    picture = str(options.out / "success_rate.png")
    yield "curve", [*MJX_HKL, "plot", str(options.out / "run"), "--out", picture, "--json"]
    for what in ("memory", "startup"):
        script = str(Path(__file__).with_name(f"{what}.py"))
        yield what, [sys.executable, script, recipe, "--num-envs", str(first)]
    for num_envs in others:
        yield from benches(options.bodies, num_envs, engines)
    body = options.bodies[0]
    default_seeds = QUICK_NUM_SEEDS if options.quick else NUM_SEEDS
    for num_seeds in default_seeds if options.num_seeds is None else options.num_seeds:
        what = [f"{body}-go-to-target", "--num-envs", str(first), "--num-seeds", str(num_seeds)]
        yield f"seeds {body} {num_seeds}", [*MJX_HKL, "bench", "train", *what, "--json"]


def benches(bodies: Sequence[str], num_envs: int, engines: list[str]) -> Iterator[Task]:
    """Simulation on all engines in turn, and the train step on each."""
    for body in bodies:
        of_body = [f"{body}-go-to-target", "--num-envs", str(num_envs), "--json", "--engine"]
        yield f"env {body} {num_envs}", [*MJX_HKL, "bench", "env", *of_body, *engines]
        for engine in engines:
            yield f"train {body} {num_envs} {engine}", [*MJX_HKL, "bench", "train", *of_body, engine]


def has_accelerator() -> bool:
    """Whether JAX uses one, in a process of its own: this one must not hold its memory."""
    program = "import jax, sys; sys.exit(jax.default_backend() == 'cpu')"
    return subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def _if_installed(module: str) -> list[str]:
    return [module] if importlib.util.find_spec(module) else []


def training(recipe: str, out: Path, budget: list[str]) -> list[str]:
    """A run that can be gone on with; one that was killed before its first checkpoint begins anew."""
    run = out / "run"
    resume = ["--resume"] if RunDirectory(run).has_checkpoint else []
    if not resume:
        shutil.rmtree(run, ignore_errors=True)
    return [*MJX_HKL, "train", recipe, "--out", str(run), *resume, *budget]


def run(command: list[str], seconds: float) -> dict[str, Any]:
    """What a command printed as JSON, or its last lines; how long it took."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # a training saves itself
        try:
            process.communicate(timeout=STOPPING)
        except subprocess.TimeoutExpired:  # a compilation does not listen
            process.kill()
            process.communicate()
        return {"out_of_time": True}
    took = {"wall_seconds": round(time.monotonic() - begin, 1)}
    lines = out.strip().splitlines()
    no_tests = 5  # pytest's code where none was selected
    if process.returncode not in (0, no_tests):
        said = [*lines, *err.strip().splitlines()] or ["?"]
        return {"error": said[-1], "last_lines": said[-30:], **took}
    if lines and lines[-1].startswith("{"):
        return {**json.loads(lines[-1]), **took}
    return {"last_lines": lines[-3:], **took}


def beside_bound(results: dict[str, Any]) -> Iterator[str]:
    """Of each train step that was compiled and run: the steps per second measured, and the bound."""
    for name, result in results.items():
        kind, *of = name.split()
        measured = results.get(" ".join(["train", *of, "mjx"]), {}).get("environment_steps_per_second")
        if kind == "bound" and "bound" in result and measured:
            allowed = result["bound"]["environment_steps_per_second"]
            yield (
                f"{' '.join(of)}: {measured:,.0f} steps/s measured, {allowed:,.0f} at most by"
                f" {result['bound']['binds']}: {measured / allowed:.0%}"
            )


def draw(results: dict[str, Any], path: Path) -> None:
    """Steps per second over worlds, of each engine's simulation and with learning, and over seeds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    over_worlds = {"xlabel": "worlds", "ylabel": "environment steps / s"}
    plots = {
        "env": {"title": "simulation", **over_worlds},
        "train": {"title": "simulation and learning", **over_worlds},
        "seeds": {"title": "seeds side by side", "xlabel": "seeds", "ylabel": "steps / s, to one seed's"},
    }
    lines: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for kind, label, number, value in points(results):
        lines[kind, label][number] = value
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    for plot, (kind, texts) in zip(figure.subplots(1, len(plots)), plots.items(), strict=True):
        plot.set(xscale="log", **texts)
        plot.grid(alpha=0.3)
        drawn = {label: line for (of, label), line in lines.items() if of == kind}
        for label, line in drawn.items():
            plot.plot(*zip(*sorted(line.items()), strict=True), marker="o", label=label)
            plot.set_xticks(sorted(line), map(str, sorted(line)))
        plot.minorticks_off()
        plot.set_ylim(bottom=0)
        if kind != "seeds":
            plot.yaxis.set_major_formatter(EngFormatter(sep=""))
        if drawn:
            plot.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def points(results: dict[str, Any]) -> Iterator[tuple[str, str, int, float]]:
    """Of each bench its kind, whose it is, how many worlds or seeds, and the steps per second."""
    for name, result in results.items():
        kind, *where = name.split()
        if kind not in ("env", "train", "seeds") or "error" in result:
            continue
        body, number, *learns_on = where
        if kind == "env":
            for engine, numbers in result["engines"].items():
                yield kind, f"{body} {engine}", int(number), numbers["environment_steps_per_second"]
        elif kind == "train":
            yield kind, " ".join([body, *learns_on]), int(number), result["environment_steps_per_second"]
        else:  # timed in turn with one seed
            yield kind, body, 1, 1.0
            yield kind, body, int(number), result[f"{number}_seeds"]["ratio_to_one_seed"]


if __name__ == "__main__":
    main()
