"""Prints the oldest versions that pyproject.toml allows as constraints of pip: `jax>=0.10` becomes `jax==0.10`."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
for requirement in project["dependencies"]:
    print(re.sub(r"^([\w-]+)>=([\d.]+).*$", r"\1==\2", requirement))
