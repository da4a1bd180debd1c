"""Checkpoints of the full training state, by Orbax: written atomically, restored bit for bit or refused."""

import contextlib
import hashlib
import inspect
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding
from jaxtyping import Array, UInt32

from mjx_hkl.errors import UserError, tells_no_memory
from mjx_hkl.training import processes
from mjx_hkl.training.sharding import replicated
from mjx_hkl.training.step import TrainState

FORMAT_VERSION = 2  # of what is kept beside the state: 2 has digests, 1 had none and is read without


_T = TypeVar("_T")


class DamagedError(UserError):
    """A checkpoint that cannot be read, or is not what was written; it is left untouched."""


class Restored(NamedTuple):
    """A state, the environment steps that name its checkpoint, and newer checkpoints that are damaged."""

    state: TrainState
    environment_steps: int
    damaged: dict[int, str]  # what is wrong, by environment steps, newest first


def save(folder: Path, state: TrainState, environment_steps: int, about: dict[str, Any], keep: int) -> None:
    """Writes a checkpoint, and only then removes older ones. A stop in between loses none.

    What an earlier stop left half-written is removed first.

    Args:
      folder: of all checkpoints of a run.
      state: to save.
      environment_steps: names the checkpoint.
      about: JSON kept beside it, for whoever restores.
      keep: so many of the newest.

    Raises:
      UserError: the disk or memory is full; those from before are untouched.
    """
    leaves = _named_leaves(state)
    about = about | {"format_version": FORMAT_VERSION, "shapes": _shapes(leaves), "digests": _digests(leaves)}
    about = about | {"sha256": _sha256(about)}
    args = ocp.args.Composite(state=ocp.args.StandardSave(leaves), about=ocp.args.JsonSave(about))
    with writing(f"a checkpoint in {folder}"), _manager(folder, keep) as manager:
        manager.save(environment_steps, args=args)
        manager.wait_until_finished()


_NO_ROOM = ("No space left on device", "Disk quota exceeded", "RESOURCE_EXHAUSTED")


def about(folder: Path, step: int | None = None) -> dict[str, Any]:
    """What `save` was told about a complete checkpoint.

    Args:
      folder: of all checkpoints of a run.
      step: environment steps that name it; by default the newest.

    Raises:
      UserError: there is none, it cannot be read or has changed, or a later version wrote it.
    """
    step = newest(folder) if step is None else step
    try:
        with reading(), _manager(folder) as manager:
            told = manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
        version, digest = told.get("format_version", 1), told.pop("sha256", None)
    except Exception as error:
        raise _damaged(folder, step, error) from error
    if (version != 1 or "digests" in told) and digest != _sha256(told):
        raise _damaged(folder, step, "what is kept beside its arrays has changed")
    if version not in (1, FORMAT_VERSION):
        raise UserError(
            f"checkpoint {folder / str(step)} has format version {version!r}; this mjx-hkl reads"
            f" {FORMAT_VERSION}: use a newer mjx-hkl"
        )
    return told


def complete(folder: Path) -> list[int]:
    """Environment steps of the complete checkpoints, newest first; others have no such names."""
    return sorted((int(path.name) for path in folder.glob("*") if path.name.isdigit()), reverse=True)


def newest(folder: Path) -> int:
    """Environment steps of the newest complete checkpoint.

    Raises:
      UserError: there is none.
    """
    steps = complete(folder)
    if not steps:
        raise UserError(f"{folder} holds no complete checkpoint")
    return steps[0]


def restore(
    folder: Path, abstract: TrainState, check: Callable[[dict[str, Any]], None] = lambda about: None
) -> Restored:
    """The newest checkpoint that is whole, on the device.

    Args:
      folder: of all checkpoints of a run.
      abstract: shapes and types of the state it must hold, as of `jax.eval_shape`.
      check: raises UserError where what is kept beside a state is of something else.

    Raises:
      UserError: there is none, all are damaged, or it holds something else; all are left untouched.
    """
    newest(folder)
    damaged: dict[int, str] = {}
    for step in complete(folder):
        try:
            told = _together(lambda step=step: about(folder, step))
            check(told)
            state = _restore(folder, step, abstract, told, ocp.args.StandardRestore)
        except DamagedError as error:  # without what it refers to: arrays of this checkpoint
            damaged[step] = str(error)
            continue
        if damaged:  # reads of these may still end
            logging.getLogger("asyncio").addFilter(_is_not_orbaxs)
        return Restored(state, step, damaged)
    raise DamagedError("; ".join(damaged.values()))


def restore_part(folder: Path, abstract: Any, step: int) -> Any:
    """A part of a complete checkpoint; nothing else of it is read.

    Args:
      folder: of all checkpoints of a run.
      abstract: shapes and types of the part, its paths as in a `TrainState`.
      step: environment steps that name it.

    Raises:
      UserError: there is none, it is damaged, or it does not hold that.
    """
    told, wanted = about(folder, step), _named_leaves(abstract)
    part = {name: shape for name, shape in told.get("shapes", {}).items() if name in wanted}
    return _restore(folder, step, abstract, told | {"shapes": part}, _partial)


def _partial(leaves: dict[str, Any]) -> Any:
    """Orbax's arguments to read these arrays of a checkpoint, and no others."""
    restore_args = ocp.checkpoint_utils.construct_restore_args(leaves)
    return ocp.args.PyTreeRestore(leaves, restore_args=restore_args, partial_restore=True)


def _restore(
    folder: Path, step: int, abstract: Any, about: dict[str, Any], arguments: Callable[[dict[str, Any]], Any]
) -> Any:
    """What `abstract` says of a checkpoint.

    Args:
      folder: of all checkpoints of a run.
      step: environment steps that name it.
      abstract: shapes and types.
      about: what is kept beside it, its shapes those of `abstract` where it fits.
      arguments: Orbax's, for shapes by name.
    """
    leaves = {name: on_this_device(leaf) for name, leaf in _named_leaves(abstract).items()}
    saved, expected = about.get("shapes"), _shapes(leaves)
    if saved != expected:
        raise UserError(
            f"checkpoint {folder / str(step)} does not fit this run: {_difference(saved, expected)}"
        )

    def read() -> dict[str, jax.Array]:
        try:
            with reading(), _manager(folder) as manager:
                found = manager.restore(step, args=ocp.args.Composite(state=arguments(leaves)))["state"]
            return {name: found[name] for name in leaves}
        except Exception as error:
            raise _damaged(folder, step, error) from error

    restored = _together(read)
    stated = about.get("digests", {})
    found = _digests(restored) if stated else {}
    changed = [name for name, digest in found.items() if stated.get(name) != digest]
    if changed:
        raise _damaged(folder, step, f"{changed[0]} has changed")
    flat, structure = jax.tree.flatten(abstract)

    def array(name: str, leaf: Any) -> jax.Array:
        if not leaf.size:
            return jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
        return jax.random.wrap_key_data(restored[name]) if _is_key(leaf) else restored[name]

    arrays = [array(name, leaf) for name, leaf in zip(_names(abstract), flat, strict=True)]
    return jax.tree.unflatten(structure, arrays)


def _digests(leaves: dict[str, jax.Array]) -> dict[str, str]:
    """A digest of each array, the same however its devices share it; one changed bit always changes it."""
    sharding = next(iter(leaves.values())).sharding
    everywhere = replicated(sharding) if isinstance(sharding, NamedSharding) else sharding
    sums = jax.jit(_sums, out_shardings=everywhere)(leaves)
    return {name: f"{number:08x}" for name, number in zip(sorted(leaves), np.asarray(sums), strict=True)}


def _sums(leaves: dict[str, jax.Array]) -> UInt32[Array, " leaves"]:
    """Of each array, in the order of their names."""
    return jnp.stack([_sum_of_hashes(leaves[name]) for name in sorted(leaves)])


def _sum_of_hashes(x: jax.Array) -> UInt32[Array, ""]:
    """Each word hashed with its place, by MurmurHash3's last step, which is one to one; their sum mod 2³²."""
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    bits = jax.lax.bitcast_convert_type(x, f"uint{min(32, 8 * x.dtype.itemsize)}").astype(jnp.uint32)
    place, stride = jnp.uint32(0), 1
    for axis in reversed(range(bits.ndim)):  # not by reshaping, which moves what devices share
        place += jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        stride *= bits.shape[axis]
    hashes = bits + jnp.uint32(0x9E3779B9) * place
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hashes = (hashes ^ (hashes >> shift)) * jnp.uint32(factor)
    return jnp.sum(hashes ^ (hashes >> 16), dtype=jnp.uint32)


def _sha256(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _together(read: Callable[[], _T]) -> _T:
    """What it reads; where it is damaged for one process it is so for all, who go on together."""
    found, damage = None, None
    try:
        found = read()
    except DamagedError as error:
        damage = error
    if processes.any_of(damage is not None):
        raise damage or DamagedError("a checkpoint is damaged for another process")
    return cast(_T, found)


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """For use around what Orbax writes: raises UserError where the disk is full, or memory."""
    try:
        with reading():
            yield
    except Exception as error:
        missing = "memory" if tells_no_memory(error) else "room"
        if missing == "room" and not any(words in str(error) for words in _NO_ROOM):
            raise
        raise UserError(
            f"no {missing} for {what}; what was there before is untouched: make room, and try again, a run"
            " with --resume"
        ) from error


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """For use around what Orbax does: where it fails, only the error that it raises is shown.

    Other arrays may fail after it and print a traceback or a warning each: coroutines that nobody waits for,
    callbacks that find their event loop closed, tasks in asyncio's log, threads in Orbax's own. So the hook,
    the filters and the level stay where it fails.
    """
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        closed = isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == "Event loop is closed"
        if not (closed or inspect.iscoroutine(found.object)):
            before(found)

    sys.unraisablehook = hook
    caught = warnings.catch_warnings()
    caught.__enter__()
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    log, orbaxs = logging.getLogger("asyncio"), logging.getLogger("absl")
    level = orbaxs.level
    log.addFilter(_is_not_orbaxs)
    orbaxs.setLevel(logging.CRITICAL)  # it logs each error of its threads, and of notes that it does not need
    yield
    orbaxs.setLevel(level)
    log.removeFilter(_is_not_orbaxs)
    caught.__exit__(None, None, None)
    sys.unraisablehook = before


def _is_not_orbaxs(record: logging.LogRecord) -> bool:
    """False for an exception of Orbax's or TensorStore's that nobody waits for any more."""
    _, error, trace = record.exc_info or (None, None, None)
    return "OCDBT" not in str(error) and not any(
        "orbax" in frame.filename for frame in traceback.extract_tb(trace)
    )


def on_this_device(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape, with a device to restore to: its own sharding, or else this process's first device."""
    here = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)


def _manager(folder: Path, keep: int | None = None) -> ocp.CheckpointManager:
    # Who writes holds the run: what a stop left half-written is then nobody's.
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=keep is not None
    )
    return ocp.CheckpointManager(folder.absolute(), options=options)


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


_NOT_ITS_FAULT = (
    "RESOURCE_EXHAUSTED",
    "Permission denied",
    "Too many open files",
    "Input/output error",
    "Stale file handle",
)


def _damaged(folder: Path, step: int, cause: Exception | str) -> UserError:
    """The error for a checkpoint that is damaged, or that the machine cannot read now."""
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    reason = reason.partition(" See full TensorStore details")[0]  # which it then does not give
    unlucky = isinstance(cause, Exception) and tells_no_memory(cause)
    if unlucky or any(words in str(cause) for words in _NOT_ITS_FAULT):
        return UserError(f"checkpoint {folder / str(step)} cannot be read: {reason[:200]}")
    return DamagedError(
        f"checkpoint {folder / str(step)} is incomplete or damaged ({reason[:200]}); left untouched"
    )
