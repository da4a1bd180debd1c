import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from slow_reference import SlowReference, adam_first_step
from small import ACTIONS, make_agent, make_window, noise_of, with_noise

from mjx_hkl.algorithms import hierarchy, learner
from mjx_hkl.algorithms.actor_critic import VTrace
from mjx_hkl.algorithms.svg import SVG
from mjx_hkl.errors import UserError

UPDATES = 100
ALGORITHM = SVG(
    discount=0.9,
    retrace_lambda=0.8,
    kl_cost=0.3,
    entropy_cost=0.2,
    reward_scale=0.5,
    distillation_cost=0.7,
    policy_learning_rate=1e-4,
    critic_learning_rate=1e-4,
    default_policy_learning_rate=1e-4,
    target_update_period=3,
)
loss = jax.jit(SVG.loss, static_argnums=0)
update = jax.jit(learner.update, static_argnames=("algorithm", "total_updates", "frozen"))
AGENTS = {
    "isotropic": {},
    "ar1": {"prior": "ar1"},
    "ar_learned": {"prior": "ar_learned"},
    "separate": {"low_level": "separate"},
    "separate, period 2": {"prior": "ar1", "low_level": "separate", "period": 2},
    "svg0": {"low_level": "none"},
    "distral": {"low_level": "distral"},
    "distral_two_column": {"low_level": "distral_two_column"},
    "distral_shared": {"low_level": "distral_shared"},
    "twin critics": {"num_critics": 2},
}


ALGORITHM_1 = dataclasses.replace(ALGORITHM, returns="n_step", action_samples=2)


@pytest.mark.parametrize(
    ("kind", "algorithm", "keeps_noise"),
    [
        *((kind, ALGORITHM, False) for kind in AGENTS),
        *((kind, ALGORITHM, True) for kind in ("isotropic", "ar_learned", "separate, period 2", "svg0")),
        ("isotropic", dataclasses.replace(ALGORITHM, action_samples=2), False),
        ("separate, period 2", ALGORITHM_1, False),
        ("svg0", ALGORITHM_1, False),
    ],
)
def test_one_update_is_that_of_the_paper(kind, algorithm, keeps_noise):
    """Losses, and a step along their clipped gradients, against Algorithms 2 and 1 in loops."""
    steps, batch = 3, 4
    agent = make_agent(**AGENTS[kind])
    latent_size, period = agent.policy.latent_size, agent.policy.latent_period
    target = hierarchy.Target(make_agent(**AGENTS[kind], seed=1))
    window = make_window(5, steps=steps, batch=batch, latent_size=latent_size, period=period)
    if keeps_noise:
        window = with_noise(window, agent.policy)
    key = jax.random.key(3)

    latent_key, action_key = jax.random.split(key)
    noise, starts = noise_of(window, latent_size, latent_key)
    slow = SlowReference(
        target,
        window,
        noise=noise,
        starts=starts,
        action_noise=jax.random.normal(action_key, (algorithm.action_samples, steps + 2, batch, ACTIONS)),
        config=algorithm,
    )
    _, metrics = loss(algorithm, agent, target, window, key, {})
    expected = {
        "policy_loss": slow.policy_loss(agent),
        "default_policy_loss": slow.default_policy_loss(agent, agent.default_policy),
        "critic_loss": slow.critic_loss(agent, agent.critic),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-4, atol=2e-4, err_msg=name)

    by_agent = jax.grad(slow.policy_loss)(agent)
    distilled = jax.grad(slow.default_policy_loss, argnums=1)(agent, agent.default_policy)
    gradients = {
        "policy": by_agent.policy,
        "default_policy": jax.tree.map(
            lambda a, b: a + algorithm.distillation_cost * b, by_agent.default_policy, distilled
        ),
        "critic": jax.grad(slow.critic_loss, argnums=1)(agent, agent.critic),
    }
    rates = dict.fromkeys(
        ("policy_learning_rate", "critic_learning_rate", "default_policy_learning_rate"), 0.5
    )
    descent = dataclasses.replace(algorithm, optimizer="sgd", max_gradient_norm=1.0, **rates)
    before = learner.init(agent, descent, UPDATES, jax.random.key(0)).replace(target=target)
    after, _ = update(before, window, key, jnp.int32(1), descent, UPDATES)
    for name, gradient in gradients.items():
        norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient)))
        moved = jax.tree.map(lambda new, old: new - old, getattr(after.agent, name), getattr(agent, name))
        for a, g in zip(*map(jax.tree.leaves, (moved, gradient)), strict=True):
            expected = -0.5 * min(1.0, 1.0 / max(norm, 1e-30)) * g
            np.testing.assert_allclose(a, expected, rtol=2e-3, atol=2e-5, err_msg=name)


def test_the_first_step_is_adams():
    state = learner.init(make_agent(), ALGORITHM, UPDATES, jax.random.key(0))
    window, key = make_window(), jax.random.key(0)
    gradients = jax.grad(SVG.loss, argnums=1, has_aux=True)(
        ALGORITHM, state.agent, state.target, window, key, {}
    )[0]
    after, _ = update(state, window, key, jnp.int32(1), ALGORITHM, UPDATES)
    for name in ("policy", "default_policy", "critic"):
        gradient, new, old = (getattr(x, name) for x in (gradients, after.agent, state.agent))
        expected = adam_first_step(gradient, 1e-4, ALGORITHM.max_gradient_norm)
        # the sign of a gradient that is zero but for rounding says nothing
        matters = jax.tree.map(lambda g: jnp.abs(g) > 1e-4, gradient)
        for a, b, c, m in zip(*map(jax.tree.leaves, (new, old, expected, matters)), strict=True):
            np.testing.assert_allclose((a - b)[m], c[m], rtol=0.02, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_the_target_moves_every_period(rate):
    algorithm = dataclasses.replace(ALGORITHM, target_update_rate=rate)
    state = learner.init(make_agent("ar_learned"), algorithm, UPDATES, jax.random.key(0))
    for count in range(1, 7):
        old = state.target
        state, _ = update(
            state, make_window(count), jax.random.key(count), jnp.int32(count), algorithm, UPDATES
        )
        share = rate if count % 3 == 0 else 0.0
        new = jax.tree.leaves(hierarchy.Target(state.agent))
        for a, b, c in zip(jax.tree.leaves(state.target), jax.tree.leaves(old), new, strict=True):
            np.testing.assert_allclose(a, (1 - share) * b + share * c, rtol=1e-6, atol=1e-7)


def test_the_agent_to_export_is_the_mean_of_the_first_updates_then_a_moving_average():
    algorithm = dataclasses.replace(ALGORITHM, policy_average_updates=3)
    start = make_agent("ar_learned", low_level="separate")
    state = learner.init(start, algorithm, UPDATES, jax.random.key(0))
    high_level = start.policy.high_level
    seen = []
    for count in range(1, 7):
        state, _ = update(
            state,
            make_window(count),
            jax.random.key(count),
            jnp.int32(count),
            algorithm,
            UPDATES,
            frozen=("policy.high_level",),
        )
        seen.append(state.agent)
        for name in ("policy", "default_policy"):
            parameters = [np.stack(jax.tree.leaves(getattr(agent, name))[-1]) for agent in seen]
            expected = np.mean(parameters[:3], axis=0)
            for parameter in parameters[3:]:
                expected = 2 / 3 * expected + 1 / 3 * parameter
            found = jax.tree.leaves(getattr(state.averaged, name))[-1]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
            assert (found != parameters[-1]).any() == (count > 1)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, state.averaged.policy.high_level, high_level))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, state.averaged.critic, state.agent.critic))


def test_modules_from_elsewhere_are_where_the_average_begins():
    algorithm = dataclasses.replace(ALGORITHM, policy_average_updates=100)
    other = make_agent("ar_learned", seed=1).policy.low_level
    state = learner.with_parameters(
        learner.init(make_agent("ar_learned"), algorithm, UPDATES, jax.random.key(0)),
        {"policy.low_level": other},
    )
    assert jax.tree.all(jax.tree.map(jnp.array_equal, state.averaged.policy.low_level, other))


def test_a_shared_encoder_is_averaged_with_the_policy_that_sees_through_it():
    """After the second update: the mean of both, by its own optimizer's steps."""
    algorithm = dataclasses.replace(ALGORITHM, policy_average_updates=10)
    agent = make_agent(encoders={"targets": {"sizes": [3], "shared": True}})
    state, seen = learner.init(agent, algorithm, UPDATES, jax.random.key(0)), []
    for count in (1, 2):
        state, metrics = update(
            state, make_window(count), jax.random.key(count), jnp.int32(count), algorithm, UPDATES
        )
        seen.append(state.agent.encoders.targets.mlp.layers[0].kernel[...])
    assert metrics["encoders_gradient_norm"] > 0
    assert (seen[0] != seen[1]).any()
    found = state.averaged.encoders.targets.mlp.layers[0].kernel[...]
    np.testing.assert_allclose(found, (seen[0] + seen[1]) / 2, rtol=1e-5, atol=1e-7)


def test_without_an_average_the_agent_to_export_is_the_last():
    state = learner.init(make_agent("ar_learned"), ALGORITHM, UPDATES, jax.random.key(0))
    state, _ = update(state, make_window(), jax.random.key(0), jnp.int32(1), ALGORITHM, UPDATES)
    assert not state.average
    assert jax.tree.all(jax.tree.map(jnp.array_equal, state.averaged, state.agent))


def test_each_module_has_its_own_learning_rate():
    algorithm = dataclasses.replace(ALGORITHM, critic_learning_rate=1e-30)
    state = learner.init(make_agent("ar_learned"), algorithm, UPDATES, jax.random.key(0))
    after, _ = update(state, make_window(), jax.random.key(0), jnp.int32(1), algorithm, UPDATES)

    def moved(module):
        old, new = (jax.tree.leaves(getattr(learned.agent, module)) for learned in (state, after))
        return any((a != b).any() for a, b in zip(old, new, strict=True))

    assert moved("policy")
    assert moved("default_policy")
    assert not moved("critic")


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop"])
def test_an_optimizer_is_optaxs_of_that_name(name):
    algorithm = dataclasses.replace(ALGORITHM, optimizer=name, policy_learning_rate=0.1)
    state = learner.init(make_agent(), algorithm, UPDATES, jax.random.key(0))
    window, key = make_window(), jax.random.key(0)
    gradient, _ = jax.grad(SVG.loss, argnums=1, has_aux=True)(
        algorithm, state.agent, state.target, window, key, {}
    )
    optimizer, before = getattr(optax, name)(0.1), state.agent.policy
    change, _ = optimizer.update(gradient.policy, optimizer.init(before), before)
    after, _ = update(state, window, key, jnp.int32(1), algorithm, UPDATES)
    expected = jax.tree.leaves(optax.apply_updates(before, change))  # pyright: ignore[reportArgumentType] - any pytree
    for a, b in zip(jax.tree.leaves(after.agent.policy), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_learning_rates_fall_to_a_tenth_over_their_share_of_the_run():
    """Steps of plain gradient descent, by the rate that each step had."""
    algorithm = dataclasses.replace(ALGORITHM, optimizer="sgd", learning_rate_decay=0.5)
    parts = {"critic": jnp.zeros(1)}
    optimizer = learner.optimizers(algorithm, parts, total_updates=20)["critic"]
    state, rates = optimizer.init(parts["critic"]), []
    for _ in range(20):
        change, state = optimizer.update(jnp.ones(1), state)
        rates.append(-float(jnp.asarray(change)[0]))
    expected = 1e-4 * np.maximum(1 - 0.9 * np.arange(20) / 10, 0.1)
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Takes(SVG):
    name: str = "critic"

    def parameters(self, agent, key):
        return {self.name: jnp.zeros(())}


@pytest.mark.parametrize(
    ("name", "says"), [("critic", "which is the agent's"), ("mine", "has no entry 'mine'")]
)
def test_an_algorithms_own_parameters_have_names_and_rates_of_their_own(name, says):
    with pytest.raises(UserError, match=says):
        learner.init(make_agent(), Takes(name=name), UPDATES, jax.random.key(0))


def test_an_optimizer_that_optax_does_not_have_is_refused():
    for name, hint in (("adamv", "did you mean adam"), ("lbfgs", "unknown optimizer")):
        with pytest.raises(UserError, match=hint):
            learner.optimizers(
                dataclasses.replace(ALGORITHM, optimizer=name), {"critic": jnp.zeros(1)}, UPDATES
            )


@pytest.mark.parametrize("name", ["sm3", "rprop"])
def test_an_optimizer_whose_rate_cannot_fall_is_refused_where_it_is_to_fall(name):
    algorithm, parts = dataclasses.replace(ALGORITHM, optimizer=name), {"critic": jnp.zeros(1)}
    learner.optimizers(algorithm, parts, UPDATES)["critic"].init(parts["critic"])
    with pytest.raises(UserError, match=f"the rate of {name} cannot fall"):
        learner.optimizers(dataclasses.replace(algorithm, learning_rate_decay=1.0), parts, UPDATES)


def test_periods_longer_than_any_run_are_never_over():
    algorithm = dataclasses.replace(ALGORITHM, target_update_period=10**12, policy_average_updates=10**12)
    state = learner.init(make_agent(), algorithm, UPDATES, jax.random.key(0))
    after, _ = update(state, make_window(), jax.random.key(0), jnp.int32(7), algorithm, UPDATES)
    for a, b in zip(jax.tree.leaves(after.target), jax.tree.leaves(state.target), strict=True):
        np.testing.assert_array_equal(a, b)


def test_state_values_have_no_target_networks_by_default():
    """B.3: every update moves the target all the way."""
    assert (VTrace().target_update_period, VTrace().target_update_rate) == (1, 1.0)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("kind", ["isotropic", "ar1", "separate, period 2"])
def test_on_an_accelerator_an_update_of_a_short_window_has_no_loop(kind, platform):
    agent = make_agent(**AGENTS[kind])
    fresh = learner.init(agent, ALGORITHM, UPDATES, jax.random.key(0))
    program = update.trace(
        fresh, make_window(period=agent.policy.latent_period), jax.random.key(1), 1, ALGORITHM, UPDATES
    )
    assert "stablehlo.while" not in program.lower(lowering_platforms=(platform,)).as_text()


def test_an_update_does_not_move_statistics():
    """Neither gradients nor weight decay, nor a target's way to the agent's."""
    algorithm = dataclasses.replace(
        ALGORITHM, optimizer="adamw", policy_average_updates=3, target_update_period=1, target_update_rate=0.3
    )
    agent = make_agent(
        low_level="separate",
        encoders={"proprioception": "normalized", "targets": {"kind": "normalized", "shared": True}},
    )
    start = learner.init(agent, algorithm, UPDATES, jax.random.key(0))
    window = make_window()
    before = learner.observe(start, window.observation)
    after, metrics = update(before, window, jax.random.key(1), jnp.int32(1), algorithm, UPDATES)

    def measured(tree):
        """Statistics by their names, of which each part of the learner has some."""
        found = jax.tree_util.tree_leaves_with_path(tree)
        return {
            jax.tree_util.keystr(path): x for path, x in found if "encoders" in jax.tree_util.keystr(path)
        }

    assert not measured(after.optimizer_state)
    assert "encoders_gradient_norm" not in metrics
    for name in ("agent", "target", "average"):
        old, new = (measured(getattr(state, name)) for state in (before, after))
        assert len(old) == {"agent": 15, "target": 9, "average": 12}[name]
        for path, x in new.items():
            np.testing.assert_array_equal(x, old[path], err_msg=path)
            expected = window.observation["targets" if "targets" in path else "proprioception"]
            if "mean" in path:
                start_mean = measured(getattr(start, name))[path]
                assert (x != start_mean).any()
                assert x.shape == expected.shape[-1:]
    assert (jax.tree.leaves(after.agent.policy)[-1] != jax.tree.leaves(before.agent.policy)[-1]).any()


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 1e30])
def test_an_update_whose_gradients_are_not_finite_changes_nothing(bad):
    """But for the optimizers' counts, by which rates fall; 1e30 is finite, its gradient's norm is not."""
    agent = make_agent()
    algorithm = dataclasses.replace(ALGORITHM, target_update_period=1, policy_average_updates=10)
    state = learner.init(agent, algorithm, UPDATES, jax.random.key(1))
    window = make_window(5, steps=3, batch=3, latent_size=agent.policy.latent_size, period=1)
    count, key = jnp.int32(4), jax.random.key(2)
    good, metrics = update(state, window, key, count, algorithm, UPDATES)
    assert metrics["skipped_updates"] == 0
    assert metrics["critic_loss"] > 0
    broken = window.replace(reward=window.reward.at[0, 0].set(bad))
    kept, metrics = update(good, broken, key, count, algorithm, UPDATES)
    assert metrics.pop("skipped_updates") == 1
    assert set(map(float, metrics.values())) == {0.0}
    counts = 0
    for new, old in zip(jax.tree.leaves(kept), jax.tree.leaves(good), strict=True):
        if jnp.issubdtype(new.dtype, jnp.integer):
            counts += 1
            assert new == old + 1
        else:
            np.testing.assert_array_equal(new, old)
    assert counts
