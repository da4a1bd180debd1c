"""Checkpoints of the full training state, by Orbax: written atomically, restored bit for bit."""

import contextlib
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from mjx_hkl.errors import UserError
from mjx_hkl.training.step import TrainState


def save(folder: Path, state: TrainState, environment_steps: int, about: dict[str, Any]) -> None:
    """Writes a checkpoint, and only then removes the one before. A stop in between loses neither.

    Args:
      folder: of all checkpoints of a run.
      state: to save.
      environment_steps: names the checkpoint.
      about: JSON kept beside it, for whoever restores.
    """
    leaves = _named_leaves(state)
    about = about | {"shapes": _shapes(leaves)}
    with _manager(folder) as manager:
        manager.save(
            environment_steps,
            args=ocp.args.Composite(state=ocp.args.StandardSave(leaves), about=ocp.args.JsonSave(about)),
        )
        manager.wait_until_finished()


def about(folder: Path) -> dict[str, Any]:
    """What `save` was told about the newest complete checkpoint.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    step = newest(folder)
    try:
        with reading(), _manager(folder) as manager:
            return manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
    except Exception as error:
        raise _damaged(folder, step, error) from error


def newest(folder: Path) -> int:
    """Environment steps of the newest complete checkpoint.

    Raises:
      UserError: there is none.
    """
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    if not steps:
        raise UserError(f"{folder} holds no complete checkpoint")
    return max(steps)


def restore(folder: Path, abstract: TrainState) -> TrainState:
    """The newest complete checkpoint, on the device.

    Args:
      folder: of all checkpoints of a run.
      abstract: shapes and types of the state it must hold, as of `jax.eval_shape`.

    Raises:
      UserError: there is none, it is damaged, or it holds something else; it is left untouched.
    """
    return _restore(folder, abstract, about(folder).get("shapes"), ocp.args.StandardRestore)


def restore_part(folder: Path, abstract: Any) -> Any:
    """A part of the newest complete checkpoint; nothing else of it is read.

    Args:
      folder: of all checkpoints of a run.
      abstract: shapes and types of the part, its paths as in a `TrainState`.

    Raises:
      UserError: there is none, it is damaged, or it does not hold that.
    """
    saved, wanted = about(folder).get("shapes", {}), _named_leaves(abstract)
    part = {name: shape for name, shape in saved.items() if name in wanted}
    return _restore(folder, abstract, part, _partial)


def _partial(leaves: dict[str, Any]) -> Any:
    """Orbax's arguments to read these arrays of a checkpoint, and no others."""
    restore_args = ocp.checkpoint_utils.construct_restore_args(leaves)
    return ocp.args.PyTreeRestore(leaves, restore_args=restore_args, partial_restore=True)


def _restore(folder: Path, abstract: Any, saved: Any, arguments: Callable[[dict[str, Any]], Any]) -> Any:
    """What `abstract` says of the newest checkpoint.

    Args:
      folder: of all checkpoints of a run.
      abstract: shapes and types.
      saved: shapes and types of the same in the checkpoint.
      arguments: Orbax's, for shapes by name.
    """
    step = newest(folder)
    leaves = {name: on_this_device(leaf) for name, leaf in _named_leaves(abstract).items()}
    expected = _shapes(leaves)
    if saved != expected:
        raise UserError(
            f"checkpoint {folder / str(step)} does not fit this run: {_difference(saved, expected)}"
        )
    try:
        with reading(), _manager(folder) as manager:
            restored = manager.restore(step, args=ocp.args.Composite(state=arguments(leaves)))
    except Exception as error:
        raise _damaged(folder, step, error) from error
    restored = restored["state"]
    flat, structure = jax.tree.flatten(abstract)

    def array(name: str, leaf: Any) -> jax.Array:
        if not leaf.size:
            return jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
        return jax.random.wrap_key_data(restored[name]) if _is_key(leaf) else restored[name]

    arrays = [array(name, leaf) for name, leaf in zip(_names(abstract), flat, strict=True)]
    return jax.tree.unflatten(structure, arrays)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """For use around Orbax's restore: where it fails, only the error that it raises is shown.

    Reads of other arrays may end after it and print a traceback each: coroutines that nobody waits for,
    callbacks that find their event loop closed, or tasks in asyncio's log. So the hook and the filter stay
    where the restore fails.
    """
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        closed = isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == "Event loop is closed"
        if not (closed or inspect.iscoroutine(found.object)):
            before(found)

    sys.unraisablehook = hook
    log = logging.getLogger("asyncio")
    log.addFilter(_is_not_orbaxs)
    yield
    log.removeFilter(_is_not_orbaxs)
    sys.unraisablehook = before


def _is_not_orbaxs(record: logging.LogRecord) -> bool:
    """False for an exception that passed through Orbax and that nobody waits for any more."""
    frames = traceback.extract_tb(record.exc_info[2] if record.exc_info else None)
    return not any("orbax" in frame.filename for frame in frames)


def on_this_device(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape, with a device to restore to: its own sharding, or else this process's first device."""
    here = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)


def _manager(folder: Path) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
        folder.absolute(),
        options=ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False),
    )


def _named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by path; random keys as the integers they are made of.

    Empty ones, such as the latent of a flat policy, say nothing, and Orbax does not take them.
    """
    named = {}
    for name, leaf in zip(_names(tree), jax.tree.leaves(tree), strict=True):
        if _is_key(leaf):
            leaf = _key_data(leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else jax.random.key_data(leaf)
        if leaf.size:
            named[name] = leaf
    return named


def _key_data(key: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    data = jax.eval_shape(jax.random.key_data, key)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=key.sharding)


def _names(tree: Any) -> list[str]:
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _shapes(leaves: dict[str, Any]) -> dict[str, str]:
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}


def _difference(saved: Any, expected: dict[str, str]) -> str:
    if not isinstance(saved, dict):
        return "it does not say what it holds"
    for name in sorted(saved.keys() | expected.keys()):
        if saved.get(name) != expected.get(name):
            return f"{name} is {saved.get(name, 'absent')}, but {expected.get(name, 'nothing')} is needed"
    return "it is the same"


def _damaged(folder: Path, step: int, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    reason = reason.partition(" See full TensorStore details")[0]  # which it then does not give
    return UserError(
        f"checkpoint {folder / str(step)} is incomplete or damaged ({reason[:200]}); left untouched"
    )
