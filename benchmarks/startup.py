"""Start-up: seconds from the command `mjx-hkl train RECIPE` to the end of its first update.

    python benchmarks/startup.py ball-go-to-target [--num-envs 256]

The same command twice, with an empty compilation cache and with the one the first left. The run is the
recipe's, with a first log interval that ends with the first update after `min_replay` steps.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mjx_hkl.config import to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import make_loop, resolve
from mjx_hkl.experiments.recipe import load_recipe, recipe_from_table


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--num-envs", type=int)
    options = parser.parse_args()
    as_found = dict(os.environ)
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # a GPU is shared with the command
    given = {} if options.num_envs is None else {"num_envs": options.num_envs}
    try:
        recipe = recipe_from_table({**to_table(load_recipe(options.recipe)), **given}, "command line")
        recipe = resolve(recipe)
        step = make_loop(recipe).schedule.train_step
    except UserError as error:
        parser.error(str(error))
    interval = (step.warmup + 1) * step.environment_steps
    command = [sys.executable, "-c", "from mjx_hkl.cli.main import main; main()", "train", options.recipe]
    command += ["--num-envs", str(recipe.num_envs), "--log-interval", str(interval)]
    with tempfile.TemporaryDirectory() as folder:
        env = {**as_found, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        seconds = {
            f"{name}_seconds": first_update([*command, "--out", f"{folder}/{name}"], env, Path(folder, name))
            for name in ("cold", "warm")
        }
    print(json.dumps({"recipe": recipe.name, "num_envs": recipe.num_envs, **seconds}))


def first_update(command: list[str], env: dict[str, str], run: Path) -> float:
    """Seconds until the run has written its first row of metrics."""
    begin = time.monotonic()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    metrics = run / "metrics.jsonl"
    try:
        while not (metrics.is_file() and metrics.stat().st_size):
            if process.poll() is not None:
                raise SystemExit(f"the run ended before its first update, exit code {process.returncode}")
            time.sleep(0.02)
        return round(time.monotonic() - begin, 1)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
