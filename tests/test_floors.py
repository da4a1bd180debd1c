"""The house stands on its floors: a module imports from floors below its own only."""

import ast
from pathlib import Path

import pytest

import mjx_hkl

PACKAGE = Path(mjx_hkl.__file__).parent
FLOORS = ("cli", "analysis", "experiments", "training", "algorithms", "models", "environments", "math")
GROUND = ("config", "errors", "kinds", "resources", "specs", "tables", "user_code")
TOP = "__init__"


def level(part):
    """How high a folder or module of the package lies: 0 is the ground."""
    if part in GROUND:
        return 0
    return len(FLOORS) + 1 if part == TOP else len(FLOORS) - FLOORS.index(part)


def part_of(file, package):
    return file.relative_to(package).parts[0].removesuffix(".py")


def imported_names(file, package):
    """Full names of everything that a file imports, also inside functions: `mjx_hkl.math.retrace.f`."""
    here = (package.name, *file.relative_to(package).with_suffix("").parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            module = (*base, *([node.module] if node.module else []))
            yield from (".".join((*module, alias.name)) for alias in node.names)


def breaches(file, package):
    """What a file imports from its own height or above, other than from its own floor."""
    part = part_of(file, package)
    for name in imported_names(file, package):
        root, _, rest = name.partition(".")
        if root != package.name or rest == "__version__":
            continue
        target = rest.split(".")[0] if rest.split(".")[0] in (*FLOORS, *GROUND) else TOP
        same = target == part or {target, part} <= set(GROUND)
        if not same and level(target) >= level(part):
            yield f"{part} ({file.name}) imports {name}"


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_a_module_imports_from_floors_below_only(file):
    assert list(breaches(file, PACKAGE)) == []


def test_every_folder_and_module_of_the_package_has_its_floor():
    found = {part_of(file, PACKAGE) for file in PACKAGE.rglob("*.py")}
    assert found == {*FLOORS, *GROUND, TOP}


BAD = (
    "import mjx_hkl.experiments.recipe",
    "from mjx_hkl.experiments import recipe",
    "from mjx_hkl import experiments",
    "from ..experiments.recipe import Recipe",
    "from .. import experiments",
    "from mjx_hkl import train",
    "import mjx_hkl",
    "def f():\n    from mjx_hkl.training.step import TrainStep",
)
GOOD = (
    "from mjx_hkl import __version__",
    "from mjx_hkl import errors",
    "from mjx_hkl.math.retrace import retrace",
    "from ..math import retrace",
    "from . import priors",
    "from mjx_hkl.models.priors import Prior",
    "import jax",
)


@pytest.mark.parametrize(("code", "count"), [(code, 1) for code in BAD] + [(code, 0) for code in GOOD])
def test_the_rule_sees_every_way_to_import(code, count, tmp_path):
    file = tmp_path / "mjx_hkl" / "models" / "agent.py"
    file.parent.mkdir(parents=True)
    file.write_text(code)
    assert len(list(breaches(file, tmp_path / "mjx_hkl"))) == count
