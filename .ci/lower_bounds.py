"""Prints the oldest versions that pyproject.toml allows, as pip's constraints: `jax>=0.10` is `jax==0.10`."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
for requirement in project["dependencies"]:
    print(re.sub(r"^([\w-]+)>=([\d.]+).*$", r"\1==\2", requirement))
