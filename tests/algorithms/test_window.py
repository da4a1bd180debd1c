import jax.numpy as jnp
import numpy as np
from small import make_window, next_index

from mjx_hkl.algorithms.window import cut_inside, episode_steps, following

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


def test_steps_are_counted_from_each_episodes_start():
    window = make_window()
    counted = np.asarray(episode_steps(window))
    for b in range(BATCH):
        step = int(window.episode_step[b])
        for t in range(STEPS):
            assert counted[t, b] == step
            if next_index(window, t, b) == STEPS + 1 or t == STEPS - 1:
                assert counted[next_index(window, t, b), b] == step + 1
            step = 0 if window.is_last[t, b] else step + 1
