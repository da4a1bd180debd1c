import jax.numpy as jnp
import numpy as np
from small import make_window, next_index

from mjx_hkl.algorithms.window import cut_inside, following, in_order

STEPS, BATCH = 5, 6


def test_what_follows_a_step_is_the_state_it_led_to():
    window = make_window()
    values = jnp.arange((STEPS + 2) * BATCH, dtype=jnp.float32).reshape(STEPS + 2, BATCH)
    actual = following(values, window)
    assert cut_inside(window).sum() > 0
    for t in range(STEPS):
        for b in range(BATCH):
            if window.discount[t, b]:
                assert actual[t, b] == values[next_index(window, t, b), b]


def test_what_remembers_goes_through_a_window_in_order():
    """A memory that counts the steps of an episode, against counting them one by one."""
    window = make_window()
    start = jnp.arange(BATCH) + 7

    def count(steps, is_first, _):
        steps = jnp.where(is_first, 0, steps)
        return steps + 1, steps

    counted = np.asarray(in_order(count, start, window, jnp.zeros(STEPS + 2)))
    for b in range(BATCH):
        step = 0 if window.is_first[b] else int(start[b])
        for t in range(STEPS):
            assert counted[t, b] == step
            if next_index(window, t, b) == STEPS + 1 or t == STEPS - 1:
                assert counted[next_index(window, t, b), b] == step + 1
            step = 0 if window.is_last[t, b] else step + 1
