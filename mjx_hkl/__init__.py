"""Hierarchical KL-regularized reinforcement learning on MuJoCo MJX.

From Python: `load_recipe`, `change`, `train`, `load_agent`, `make_worlds`, `evaluate`. An agent acts by its
`start` and `step`; a `Display` shows its training. Each name is imported when it is first used, so that
`import mjx_hkl` stays cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mjx_hkl.cli.progress import Display
    from mjx_hkl.environments import make_worlds
    from mjx_hkl.errors import UserError
    from mjx_hkl.experiments.agents import load_agent
    from mjx_hkl.experiments.evaluation import evaluate
    from mjx_hkl.experiments.recipe import change, load_recipe
    from mjx_hkl.experiments.training_run import train

__all__ = ["Display", "UserError", "change", "evaluate", "load_agent", "load_recipe", "make_worlds", "train"]

_PLACES = {
    "Display": "mjx_hkl.cli.progress",
    "UserError": "mjx_hkl.errors",
    "change": "mjx_hkl.experiments.recipe",
    "evaluate": "mjx_hkl.experiments.evaluation",
    "load_agent": "mjx_hkl.experiments.agents",
    "load_recipe": "mjx_hkl.experiments.recipe",
    "make_worlds": "mjx_hkl.environments",
    "train": "mjx_hkl.experiments.training_run",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'mjx_hkl' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
