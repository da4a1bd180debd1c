import dataclasses
import itertools
import json
import logging
import shutil
import sys
import types
import warnings
from typing import Any

import jax
import numpy as np
import pytest

from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import make_loop, resolve
from mjx_hkl.experiments.recipe import change
from mjx_hkl.training import checkpoint
from mjx_hkl.training.loop import Loop

LOW = "policy.low_level"


@pytest.fixture(scope="module")
def loop(tiny_recipe):
    return make_loop(tiny_recipe)


def leaves(state):
    return {name: np.asarray(x) for name, x in checkpoint._named_leaves(state).items()}


@pytest.fixture(scope="module")
def exploring(tiny_recipe):
    """Two seeds whose actors remember the noise of actions."""
    explores = {"exploration_scale": [0.5, 2.0], "exploration_correlation": 0.9}
    return make_loop(change(tiny_recipe, num_seeds=2, algorithm=explores))


@pytest.fixture(scope="module")
def releasing(tiny_recipe):
    """A low level with statistics, released after the checkpoint and inside a log interval."""
    transfer = {"agent": "there", "released": [LOW], "release_after": 100}
    return make_loop(resolve(change(tiny_recipe, encoders={"all": "normalized"}, transfer=transfer)))


@pytest.mark.parametrize("which", ["loop", "exploring", "releasing"])
def test_2n_steps_are_n_then_stop_resume_and_n(which, request, tmp_path):
    loop = request.getfixturevalue(which)
    intervals = loop.intervals(loop.init())
    for _ in range(2):
        state, _ = next(intervals)
    checkpoint.save(tmp_path, state, 80, {}, keep=1)
    for state, straight_rows in intervals:
        pass
    straight = leaves(state)
    resumed = checkpoint.restore(tmp_path, loop.abstract).state
    for resumed, rows in loop.intervals(resumed):  # noqa: B020
        pass
    assert straight.keys() == leaves(resumed).keys()
    for name, x in leaves(resumed).items():
        np.testing.assert_array_equal(x, straight[name], err_msg=name)
    timed = ("interval_seconds", "environment_steps_per_second")
    for row, straight_row in zip(rows, straight_rows, strict=True):
        assert {k: v for k, v in row.items() if k not in timed} == {
            k: v for k, v in straight_row.items() if k not in timed
        }


def test_a_released_module_stays_as_it_is_until_then(releasing):
    """Of 160 steps the last 60 are learned from and measured, by updates that follow every 20."""
    state = releasing.init()

    def low_level():
        return [np.asarray(x.copy()) for x in jax.tree.leaves(state.learner.agent.policy.low_level)]

    before, told, kept = low_level(), [], []
    for state, rows in releasing.intervals(state):  # noqa: B020
        told.append(rows[0].get("released"))
        kept.append(all((a == b).all() for a, b in zip(before, low_level(), strict=True)))
    assert told == [None, 0.0, 0.5, 1.0]
    assert kept == [True, True, False, False]
    assert state.learner.agent.policy.low_level.inputs.encoders.proprioception.count[...] == 60
    assert state.learner.agent.critic.inputs.encoders.proprioception.count[...] == 160


def test_everything_is_in_it(loop, tmp_path):
    """Parameters, targets, optimizers, counters, keys, worlds and replay."""
    checkpoint.save(tmp_path, loop.init(), 0, {"recipe": "tiny"}, keep=1)
    about = checkpoint.about(tmp_path)
    assert about["recipe"] == "tiny"
    names = about["shapes"].keys()
    for part in (
        "learner.agent",
        "learner.target",
        "optimizer_state",
        "iteration",
        "key",
        "actor.env",
        "replay",
    ):
        assert any(part in name for name in names), part


def test_only_the_newest_is_kept(loop, tmp_path):
    state = loop.init()
    checkpoint.save(tmp_path, state, 40, {}, keep=1)
    checkpoint.save(tmp_path, state, 80, {}, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["80"]


def test_as_many_are_kept_as_asked(loop, tmp_path):
    state = loop.init()
    for steps in (40, 80, 120):
        checkpoint.save(tmp_path, state, steps, {}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["120", "80"]


def test_of_two_the_whole_one_is_restored(loop, tmp_path):
    """The newest is damaged, told, and left as it is; set aside, it is in nobody's way."""
    state = loop.init()
    before = leaves(state)
    checkpoint.save(tmp_path, state, 40, {}, keep=2)
    for state, _ in loop.intervals(state):  # noqa: B020
        break
    checkpoint.save(tmp_path, state, 80, {}, keep=2)
    for data in tmp_path.glob("80/state/ocdbt.process_*/d/*"):
        data.write_bytes(b"")
    files = _files(tmp_path)
    restored = checkpoint.restore(tmp_path, loop.abstract)
    assert (restored.environment_steps, list(restored.damaged)) == (40, [80])
    assert "80 is incomplete or damaged" in restored.damaged[80]
    assert all((x == before[name]).all() for name, x in leaves(restored.state).items())
    assert _files(tmp_path) == files
    (tmp_path / "80").rename(tmp_path / "80.damaged")
    checkpoint.save(tmp_path, state, 80, {}, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["80", "80.damaged"]


@pytest.mark.long
def test_no_flipped_bit_restores_other_numbers(loop, tmp_path):
    """Of each file 12 bits, at random: refused, or unharmed because nothing reads them."""
    state, random = loop.init(), np.random.default_rng(0)
    expected = leaves(state)
    checkpoint.save(tmp_path, state, 40, {"recipe": "tiny"}, keep=1)
    refused = 0
    for file, content in _files(tmp_path).items():
        for bit in random.integers(8 * len(content), size=12):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << (bit % 8)
            file.write_bytes(flipped)
            try:
                restored, about = (
                    checkpoint.restore(tmp_path, loop.abstract).state,
                    checkpoint.about(tmp_path),
                )
            except checkpoint.DamagedError:
                refused += 1
            else:
                assert all((x == expected[name]).all() for name, x in leaves(restored).items())
                assert about["recipe"] == "tiny"
        file.write_bytes(content)
    assert refused > 20


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_a_digest_tells_each_bit_and_each_place(dtype):
    zeros = jax.numpy.zeros((3, 2), dtype)
    bits = 1 if dtype == "bool" else 8 * zeros.itemsize
    changed = {"nothing": zeros}
    for place, bit in itertools.product(range(zeros.size), range(bits)):
        words = np.zeros(zeros.size, f"uint{8 * zeros.itemsize}")
        words[place] = 1 << bit
        changed[f"{place} {bit}"] = jax.numpy.asarray(words.view(zeros.dtype).reshape(zeros.shape))
    assert len(set(checkpoint._digests(changed).values())) == 1 + zeros.size * bits


@pytest.fixture
def saved(loop, tmp_path):
    checkpoint.save(tmp_path, loop.init(), 40, {}, keep=1)
    return tmp_path


def _files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_shape_is_refused_and_left_alone(saved, tiny_recipe):
    other = make_loop(dataclasses.replace(tiny_recipe, num_envs=8))
    before = _files(saved)
    with pytest.raises(UserError, match=r"does not fit this run: .* is .*, but .* is needed"):
        checkpoint.restore(saved, other.abstract)
    assert _files(saved) == before


def test_a_truncated_one_is_refused_and_left_alone(saved, loop):
    arrays = saved.glob("*/state/d/*")  # what they are read from
    data = max(arrays, key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    before = _files(saved)
    with pytest.raises(UserError, match="incomplete or damaged"):
        checkpoint.restore(saved, loop.abstract)
    assert _files(saved) == before


@pytest.mark.parametrize("name", ["state", "about", "_CHECKPOINT_METADATA"])
def test_a_missing_part_is_refused(saved, loop, name):
    path = saved / "40" / name
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        file.unlink()
    if name == "_CHECKPOINT_METADATA":  # Orbax's own notes are not needed
        checkpoint.restore(saved, loop.abstract)
        return
    with pytest.raises(UserError, match="incomplete or damaged"):
        checkpoint.restore(saved, loop.abstract)


def test_orbax_says_nothing_of_its_own_damaged_notes(saved, loop, caplog):
    (saved / "40" / "_CHECKPOINT_METADATA").write_bytes(b'{"item_handl')
    checkpoint.restore(saved, loop.abstract)
    assert not caplog.records


def test_a_foreign_or_missing_one_is_refused(tmp_path, loop):
    with pytest.raises(UserError, match="no complete checkpoint"):
        checkpoint.restore(tmp_path / "nothing", loop.abstract)
    (tmp_path / "40").mkdir()
    (tmp_path / "40" / "weights.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(UserError, match="incomplete or damaged"):
        checkpoint.restore(tmp_path, loop.abstract)


def test_keys_survive(loop, tmp_path):
    state = loop.init()
    expected = np.asarray(jax.random.key_data(state.key))
    checkpoint.save(tmp_path, state, 1, {}, keep=1)
    restored = checkpoint.restore(tmp_path, loop.abstract).state
    np.testing.assert_array_equal(jax.random.key_data(restored.key), expected)


def test_of_orbaxs_reads_that_fail_together_asyncios_log_has_none(caplog):
    def logged(filename):
        try:
            exec(compile("raise OSError('cannot read')", filename, "exec"))
        except OSError:
            logging.getLogger("asyncio").exception("Task exception was never retrieved: %s", filename)

    with pytest.raises(ValueError, match="damaged"), checkpoint.reading():
        raise ValueError("damaged")
    logged("orbax/serialization.py")
    logged("mine.py")
    with checkpoint.reading():
        pass
    logged("orbax/again.py")
    assert [record.args for record in caplog.records] == [("mine.py",), ("orbax/again.py",)]


def test_reads_that_a_failed_restore_never_began_are_not_warned_of():
    async def read():
        pass

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="damaged"), checkpoint.reading():
            raise ValueError("damaged")
        never_begun = read()
        del never_begun
    assert not warned


def test_reads_that_end_after_a_failed_restore_print_nothing(monkeypatch):
    """What Orbax's other reads raise then reaches nobody, whenever it comes; anything else still does."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with pytest.raises(ValueError, match="damaged"), checkpoint.reading():
        raise ValueError("damaged")

    @types.coroutine
    def wait():
        yield

    async def read():
        try:
            await wait()
        finally:
            raise OSError("cannot read")

    read().send(None)  # under way, and nobody waits for it any more
    late: Any = types.SimpleNamespace(object=None, exc_value=RuntimeError("Event loop is closed"))
    other: Any = types.SimpleNamespace(object=None, exc_value=RuntimeError("something else"))
    sys.unraisablehook(late)
    sys.unraisablehook(other)
    assert told == [other]
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with checkpoint.reading():
        pass
    sys.unraisablehook(late)
    read().send(None)
    assert [str(x.exc_value) for x in told] == ["something else", "Event loop is closed", "cannot read"]


def test_what_a_stop_left_half_written_is_removed_by_the_next_save(loop, tmp_path):
    state = loop.init()
    checkpoint.save(tmp_path, state, 40, {}, keep=2)
    half = tmp_path / "80.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "40", half)
    assert checkpoint.newest(tmp_path) == 40  # who reads leaves it: it may be being written
    assert half.is_dir()
    checkpoint.save(tmp_path, state, 120, {}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["120", "40"]


def test_a_compiler_that_finds_too_little_memory_is_told_in_a_line(loop, monkeypatch):
    """As XLA's for TPUs says it."""

    def program(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.\nMore")

    monkeypatch.setattr(Loop, "program", property(program))
    with pytest.raises(UserError, match=r"memory space hbm\.; lower num_envs"):
        loop.compile()
