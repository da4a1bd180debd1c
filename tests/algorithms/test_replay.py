import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mjx_hkl.algorithms import replay
from mjx_hkl.algorithms.window import Window

ENVS, STEPS = 3, 4


def windows(value):
    """Windows of all environments, every number telling which insert and which environment it is from."""
    mark = 10.0 * value + jnp.arange(ENVS, dtype=jnp.float32)
    per_step = jnp.tile(mark[:, None], (1, STEPS))
    return Window(
        observation={"x": jnp.tile(mark[:, None, None], (1, STEPS + 2, 2))},
        carry=mark[:, None],
        is_first=mark.astype(jnp.int32),
        action=per_step[..., None],
        behaviour_log_prob=per_step,
        reward=per_step,
        discount=per_step,
        is_last=per_step,
        valid=per_step,
    )


def test_ring_keeps_the_newest_and_overwrites_the_oldest():
    slots = replay.num_slots(capacity=25, num_envs=ENVS, unroll_length=STEPS)
    assert slots == 3  # 3 x 12 transitions hold 25
    ring = replay.empty(windows(0), slots)
    insert = jax.jit(replay.insert, donate_argnums=0)
    for count in range(5):
        ring = insert(ring, windows(count), jnp.int32(count))
    kept = ring.windows
    held = sorted({int(x) // 10 for x in np.asarray(kept.reward).ravel()})
    assert held == [2, 3, 4]
    for row in np.ndindex(ENVS, slots):
        marks = {float(np.asarray(x[row]).ravel()[0]) for x in jax.tree.leaves(kept)}
        assert len(marks) == 1  # all parts of a window stay together


def test_samples_come_only_from_what_is_filled_and_cover_it():
    ring = replay.empty(windows(0), 4)
    for count in range(2):
        ring = replay.insert(ring, windows(count + 1), jnp.int32(count))
    batch = replay.sample(ring, jax.random.key(0), 500, jnp.int32(2))
    marks, counts = np.unique(np.asarray(batch.reward[:, 0]), return_counts=True)
    assert marks.tolist() == [10, 11, 12, 20, 21, 22]
    assert counts.min() > 50  # uniform: 83 expected


def test_a_batch_of_everything_is_each_window_once():
    ring = replay.insert(replay.empty(windows(0), 1), windows(1), jnp.int32(0))
    batch = replay.sample(ring, jax.random.key(0), ENVS, jnp.int32(1))
    assert sorted(np.asarray(batch.reward[:, 0]).tolist()) == [10, 11, 12]


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_every_window_is_as_likely_as_any_other(batch_size):
    """Where a part is some worlds, and where the parts cannot all be equally large."""
    ring = replay.empty(windows(0), 3)
    for count in range(3):
        ring = replay.insert(ring, windows(count), jnp.int32(count))
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: replay.sample(ring, key, batch_size, jnp.int32(3)).reward[:, 0])(keys)
    _, counts = np.unique(np.asarray(drawn), return_counts=True)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("batch_size", [1, 3, 4])
@pytest.mark.parametrize(("inserts", "recency"), [(3, 2.0), (4, 2.0), (6, 2.0), (6, 0.5), (6, 1.0)])
def test_the_age_of_a_window_is_a_power_of_a_uniform_number(batch_size, inserts, recency):
    """P(age < k) = (k / n)^(1/recency), in a ring of 4 slots that is not full, full, or written over."""
    ring = replay.empty(windows(0), 4)
    for count in range(inserts):
        ring = replay.insert(ring, windows(count), jnp.int32(count))
    filled, newest = min(inserts, 4), jnp.int32((inserts - 1) % 4)
    keys = jax.random.split(jax.random.key(1), 6000)

    def one(key):
        """One of a batch, since those of one batch depend on each other."""
        draw_key, pick_key = jax.random.split(key)
        drawn = replay.sample(ring, draw_key, batch_size, jnp.int32(filled), recency, newest).reward[:, 0]
        return drawn[jax.random.randint(pick_key, (), 0, batch_size)]

    marks = np.asarray(jax.vmap(one)(keys)).astype(int)
    age, world = inserts - 1 - marks // 10, marks % 10
    counts = np.zeros((filled, ENVS))
    np.add.at(counts, (age, world), 1)
    of_age = np.diff((np.arange(filled + 1) / filled) ** (1 / recency))
    expected = len(keys) * np.repeat(of_age[:, None] / ENVS, ENVS, axis=1)
    assert stats.chisquare(counts.ravel(), expected.ravel()).pvalue > 1e-3


def test_a_recency_of_one_draws_the_windows_that_it_always_drew():
    ring = replay.empty(windows(0), 4)
    for count in range(6):
        ring = replay.insert(ring, windows(count), jnp.int32(count))
    for batch_size in (1, 3, 4):
        given = ring, jax.random.key(2), batch_size, jnp.int32(4)
        expected, found = replay.sample(*given), replay.sample(*given, 1.0, jnp.int32(1))
        np.testing.assert_array_equal(found.reward, expected.reward)


def test_what_is_packed_comes_back_as_it_was():
    """Whatever the shapes and dtypes, an axis of no numbers among them, and beside other seeds."""
    random = np.random.default_rng(0)
    given = windows(0).replace(
        observation={
            "image": jnp.asarray(random.integers(0, 256, (ENVS, STEPS + 2, 2, 3)), jnp.uint8),
            "state": jnp.asarray(random.normal(size=(ENVS, STEPS + 2, 5)), jnp.float32),
        },
        carry=jnp.zeros((ENVS, 0)),
        is_first=jnp.array([True, False, True]),
        discount=jnp.asarray(random.integers(0, 2, (ENVS, STEPS)), bool),
    )
    both = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), given)
    rings = jax.vmap(lambda x: replay.insert(replay.empty(x, 2), x, jnp.int32(1)))(both)
    assert {name: row.shape for name, row in rings.rows.items()} == {
        "bool": (2, ENVS, 2, 1 + STEPS),
        "float32": (2, ENVS, 2, (STEPS + 2) * 5 + 5 * STEPS),
        "uint8": (2, ENVS, 2, (STEPS + 2) * 6),
    }
    for kept, was in zip(jax.tree.leaves(rings.windows), jax.tree.leaves(both), strict=True):
        assert kept.dtype == was.dtype
        np.testing.assert_array_equal(kept[:, :, 1], was)
        assert not np.asarray(kept[:, :, 0]).any()


@pytest.mark.accelerator
def test_insert_is_done_in_place():
    """The compiled insert aliases its ring, so its cost cannot depend on the capacity."""
    ring = replay.empty(windows(0), 1000)
    compiled = jax.jit(replay.insert, donate_argnums=0).lower(ring, windows(0), jnp.int32(0)).compile()
    memory = compiled.memory_analysis()
    ring_bytes = sum(x.nbytes for x in jax.tree.leaves(ring))
    assert memory.alias_size_in_bytes >= ring_bytes
    assert memory.temp_size_in_bytes < 0.01 * ring_bytes
