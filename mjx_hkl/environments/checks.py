"""What a new world is asked before training: whether its task fits, and whether its body starts free."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import mujoco
import numpy as np
from jaxtyping import PRNGKeyArray

from mjx_hkl.environments.mistakes import is_ours, told_of
from mjx_hkl.environments.physics import no_log_file
from mjx_hkl.errors import UserError
from mjx_hkl.specs import ArraySpec

_STARTS = 16
_DEEPEST_START = 0.01  # metres; contacts are soft, and a body on the ground is a little inside it


def require_groups(senses: Mapping[str, Any], asked: Any) -> None:
    """Raises UserError where a task's groups are not named arrays beside the body's senses."""
    if not isinstance(asked, Mapping):
        raise UserError(f"[task]: observe must give a dict of named groups, not {_what(asked)}")
    for name, group in asked.items():
        if not _is_a_name(name):
            raise UserError(f"[task]: an observation group must have a name like 'targets', not {name!r}")
        if name in senses:
            raise UserError(
                f"[task]: observation group {name!r} is what the body feels; give the task's another name"
            )
        if not _is_array(group):
            raise UserError(f"[task]: observation group {name!r} is no array of numbers")


def require_start(start: Any, num_boxes: int, num_mocap: int) -> None:
    """Raises UserError where a task's start does not say a place for everything, each of the right shape."""
    wanted = {"position": (2,), "heading": (), "boxes": (num_boxes, 2), "mocap_pos": (num_mocap, 3)}
    if any(not hasattr(start, name) for name in ("state", *wanted)):
        raise UserError(f"[task]: reset must give a Start, not {_what(start)}")
    if num_boxes and start.boxes is None:
        raise UserError("there are [boxes], but the task does not place any")
    for name, shape in wanted.items():
        _require_shape(f"reset gives {name}", getattr(start, name), shape, optional=name != "position")


def few_keys() -> PRNGKeyArray:
    """Of the starts that are looked at before training."""
    return jax.random.split(jax.random.key(0), _STARTS)


def require_outcomes(task: Any, first: Callable[[PRNGKeyArray], tuple[Any, Any]]) -> Any:
    """The outcome of a task at a start, as shapes; that of a user's own task is also computed, at a few.

    Args:
      task: of a world.
      first: from a key to a start, which has the task's own state as `task`, and its scene.

    Raises:
      UserError: its method fails, or gives no outcome, or one that is not finite.
    """

    def outcome_at(key: PRNGKeyArray) -> Any:
        start, scene = first(key)
        with told_of(task, "reward"):
            outcome = task.reward(start.task, scene)
            _require_outcome(outcome, start.task)
        return outcome._replace(state=None, terms=dict(outcome.terms))

    shapes = jax.eval_shape(outcome_at, jax.random.key(0))
    if not is_ours(type(task)):
        outcomes = jax.jit(jax.vmap(outcome_at))(few_keys())
        with told_of(task, "reward"):
            _require_finite(outcomes)
    return shapes


def _require_outcome(outcome: Any, state: Any) -> None:
    """Raises UserError where reward or success is not one number, or the task's state changes shape."""
    if any(not hasattr(outcome, name) for name in ("reward", "success", "state", "failure", "terms")):
        raise UserError(f"[task]: reward must give an Outcome, not {_what(outcome)}")
    _require_shape("reward gives a reward", outcome.reward, ())
    _require_shape("reward gives a success", outcome.success, ())
    if outcome.state is not None and _shapes(outcome.state) != _shapes(state):
        raise UserError(
            f"[task]: reward gives a state {_shapes(outcome.state)}, not {_shapes(state)} as reset does"
        )
    _require_shape("reward gives a failure", outcome.failure, (), optional=True)
    if not isinstance(outcome.terms, Mapping) or not all(map(_is_a_name, outcome.terms)):
        raise UserError("[task]: reward gives terms that are no dict of numbers by names like 'upright'")
    for name, term in outcome.terms.items():
        _require_shape(f"reward gives a term {name!r}", term, ())


def _require_finite(outcomes: Any) -> None:
    """Raises UserError where what some starts earn is not finite."""
    for name, value in {"reward": outcomes.reward, **outcomes.terms}.items():
        wrong = next(iter(np.asarray(value)[~np.isfinite(value)]), None)
        if wrong is not None:
            raise UserError(
                f"[task]: {name} is {wrong} at an episode's start; look for a division by 0 or a root or"
                " logarithm of a negative number"
            )


def require_symmetry(symmetry: Callable[..., Any], specs: Mapping[str, ArraySpec]) -> None:
    """Raises UserError where a task's symmetry does not keep the groups, or their leading axes."""
    for leading in ((), (2,)):
        given = _groups(specs, leading)
        found = jax.eval_shape(symmetry, jax.random.key(0), given)
        if found != given:
            raise UserError(
                f"[task]: symmetry of groups {_shapes(given)} gives {_shapes(found)}: it must keep all"
                " groups, their shapes and types, also with axes before them"
            )


def require_relabelling(relabel: Callable[..., Any], specs: Mapping[str, ArraySpec]) -> None:
    """Raises UserError where a task's relabelling does not keep the groups, or give two numbers for each."""
    for leading in ((), (2,)):
        given = _groups(specs, leading)
        found = jax.eval_shape(relabel, jax.random.key(0), given)
        of_each = jax.ShapeDtypeStruct(leading, np.float32)
        if found != (given, of_each, of_each):
            raise UserError(
                f"[task]: relabel of groups {_shapes(given)} gives {_shapes(found)}: it must keep all"
                " groups, their shapes and types, and give a reward and a success for each, also with axes"
                " before them"
            )


def _groups(specs: Mapping[str, ArraySpec], leading: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct((*leading, *spec.shape), spec.dtype) for name, spec in specs.items()}


def require_starts(
    body: str, model: mujoco.MjModel, qpos: Any, mocap_pos: Any, ground: tuple[str, ...], max_velocity: float
) -> None:
    """Looks at some starts: where the body is in the ground, and what the first physics step makes of it.

    Args:
      body: names it in the error.
      model: of the world.
      qpos: starts, (starts, nq).
      mocap_pos: of the mocap bodies at each, (starts, nmocap, 3), metres.
      ground: names of the arena's geoms.
      max_velocity: beyond which a state is a simulator fault.

    Raises:
      UserError: a geom of the body is deeper in the ground than a soft contact is, or the step fails.
    """
    data, below = mujoco.MjData(model), {model.geom(name).id for name in ground}
    data.ctrl[:] = np.where(model.actuator_ctrllimited, model.actuator_ctrlrange[:, 1], 1.0)
    deepest, pair = _DEEPEST_START, None
    for data.qpos[:], data.mocap_pos[:] in zip(np.asarray(qpos), np.asarray(mocap_pos), strict=True):
        with no_log_file():
            mujoco.mj_forward(model, data)
        if not (np.abs(data.qacc) * model.opt.timestep < max_velocity).all():  # NaN is not less either
            raise UserError(
                f"body {body!r} accelerates without bound where it starts: look for a number that is not"
                " finite or far too large or small in its masses, gears, damping or the timestep"
            )
        for contact in data.contact:
            if below & set(contact.geom) and -contact.dist > deepest:
                deepest, pair = -contact.dist, contact.geom.copy()
    if pair is not None:
        floor, geom = sorted(pair, key=lambda i: i not in below)
        raise UserError(
            f"body {body!r} starts {deepest:.3g} m deep in the ground: geom {model.geom(geom).name!r} in"
            f" {model.geom(floor).name!r}; raise the pos of its torso by {deepest:.3g} m"
        )


def _require_shape(what: str, value: Any, shape: tuple[int, ...], optional: bool = False) -> None:
    if optional and value is None:
        return
    if not _is_array(value):
        raise UserError(f"[task]: {what} that is no array of numbers")
    if np.shape(value) != shape:
        raise UserError(f"[task]: {what} of shape {np.shape(value)}, not {shape}")


def _what(x: Any) -> str:
    """What a method gave, for people."""
    if x is None:
        return "nothing: look for its return"
    return "an array" if _is_array(x) else type(x).__name__


def _is_a_name(x: Any) -> bool:
    return isinstance(x, str) and x.isidentifier() and not x.startswith("_")


def _is_array(x: Any) -> bool:
    return (
        hasattr(x, "shape")
        and hasattr(x, "dtype")
        and not jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)
    )


def _shapes(state: Any) -> Any:
    """Shape and type of each array of a task's state, for comparing and for people."""
    leaves, tree = jax.tree.flatten(state)
    return jax.tree.unflatten(tree, [_shape(x) for x in leaves])


def _shape(x: Any) -> str:
    x = x if hasattr(x, "dtype") else jax.numpy.asarray(x)
    return str(ArraySpec.of(x)) if _is_array(x) else f"{x.dtype}{list(x.shape)}"  # of keys
