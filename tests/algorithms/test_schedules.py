"""Modules that are released, and costs and learning rates by level, module and schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import make_agent, make_window
from test_actor_critic import make as make_discrete
from test_actor_critic import make_discrete_window

from mjx_hkl.algorithms import hierarchy, learner
from mjx_hkl.algorithms.actor_critic import VTrace
from mjx_hkl.algorithms.optimizers import NOTHING, Release
from mjx_hkl.algorithms.svg import SVG
from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError

LOW = "policy.low_level"
UPDATES = 20


def same(one, other):
    return jax.tree.all(jax.tree.map(jnp.array_equal, one, other))


def test_a_released_module_begins_to_learn_with_an_optimizer_that_begins_too():
    """Against optax's Adam, on gradients that are clipped with those of the part; the rest learns as ever.

    The KL's cost falls meanwhile.
    """
    algorithm = SVG(
        max_gradient_norm=0.1,
        policy_learning_rate=0.01,
        policy_average_updates=10,
        kl_cost=0.1,
        kl_schedule=((0.0, 1.0), (0.2, 0.0)),
    )
    release, start = Release((LOW,), 2), make_agent()

    @jax.jit
    def update(state, window, key, count):
        own = algorithm.scheduled(count, UPDATES)
        gradient, _ = jax.grad(algorithm.loss, has_aux=True)(state.agent, state.target, window, key, own)
        found = learner.update(state, window, key, count, algorithm, UPDATES, release=release)
        return found, gradient.policy

    state = learner.init(start, algorithm, UPDATES, jax.random.key(0), release)
    adam, clip = optax.adam(0.01), optax.clip_by_global_norm(0.1)
    expected = {"high_level": start.policy.high_level, "low_level": start.policy.low_level}
    adams = {name: adam.init(module) for name, module in expected.items()}
    for count in range(1, 5):
        window, key = make_window(count), jax.random.key(count)
        (state, metrics), gradient = update(state, window, key, jnp.int32(count))
        if count <= 2:
            gradient.low_level = jax.tree.map(jnp.zeros_like, gradient.low_level)
        clipped, _ = clip.update(gradient, clip.init(gradient))
        for name in expected if count > 2 else ["high_level"]:
            module = expected[name]
            change, adams[name] = adam.update(getattr(clipped, name), adams[name], module)
            expected[name] = optax.apply_updates(module, change)
        assert metrics["released"] == (count > 2)
        np.testing.assert_allclose(metrics["kl_cost"], 0.1 * (5 - count) / 4, rtol=1e-5)
        assert same(state.agent.policy.low_level, start.policy.low_level) == (count <= 2)
        assert same(state.averaged.policy.low_level, start.policy.low_level) == (count <= 2)
        for name, module in expected.items():
            found = jax.tree.leaves(getattr(state.agent.policy, name))
            for a, b in zip(found, jax.tree.leaves(module), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)
            expected[name] = getattr(state.agent.policy, name)  # so that rounding does not add up


def steps(algorithm, part, tree, updates, release=NOTHING):
    """What the optimizer of a part makes of gradients that are all one, update by update."""
    optimizer = learner.optimizers(algorithm, {part: tree}, UPDATES, release)[part]
    state, ones, found = optimizer.init(tree), jax.tree.map(jnp.ones_like, tree), []
    for _ in range(updates):
        change, state = optimizer.update(ones, state, tree)
        found.append(change)
    return jax.tree.map(lambda *x: np.ravel(x), *found)


def test_the_rate_of_a_released_module_has_fallen_with_the_others():
    algorithm = SVG(optimizer="sgd", critic_learning_rate=1e-2, learning_rate_decay=0.5)
    found = steps(algorithm, "critic", jnp.zeros(1), UPDATES, Release(("critic",), 4))
    rates = 1e-2 * np.maximum(1 - 0.9 * np.arange(UPDATES) / 10, 0.1)
    np.testing.assert_allclose(-found, np.where(np.arange(UPDATES) < 4, 0, rates), rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_modules_have_factors_of_their_parts_rate_and_the_innermost_counts(name):
    algorithm = SVG(
        optimizer=name,
        policy_learning_rate=1e-2,
        learning_rate_factors=("policy.low_level=0.1", "policy.low_level.head=3"),
    )
    tree = {"high_level": {"head": jnp.zeros(1)}, "low_level": {"head": jnp.zeros(1), "torso": jnp.zeros(1)}}
    found = steps(algorithm, "policy", tree, 3)
    for (level, part), rate in {
        ("high_level", "head"): 1e-2,
        ("low_level", "head"): 3e-2,
        ("low_level", "torso"): 1e-3,
    }.items():
        optimizer = getattr(optax, name)(rate)
        state, expected = optimizer.init(jnp.zeros(1)), []
        for _ in range(3):
            change, state = optimizer.update(jnp.ones(1), state, jnp.zeros(1))
            expected.append(change[0])
        np.testing.assert_allclose(found[level][part], expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "near"), [("policy.lowlevel", LOW), ("default_policy.low_level", LOW)])
def test_a_factor_for_a_module_that_learns_nothing_is_refused(name, near):
    """The default low level is the policy's own."""
    algorithm = SVG(learning_rate_factors=(f"{name}=0.1",))
    says = f"learning_rate_factors: unknown module '{name}'; did you mean .*{near}"
    with pytest.raises(UserError, match=says):
        learner.init(make_agent(), algorithm, UPDATES, jax.random.key(0))


def test_without_any_of_it_the_state_of_optimizers_is_what_it_was():
    """Optax's own for the whole part, so that checkpoints from before can be resumed."""
    agent, algorithm = make_agent(), SVG()
    found = learner.init(agent, algorithm, UPDATES, jax.random.key(0)).optimizer_state["policy"]
    plain = optax.chain(optax.clip_by_global_norm(40.0), optax.adam(1e-3)).init(agent.policy)
    assert jax.tree.structure(found) == jax.tree.structure(plain)


def test_the_kl_cost_follows_its_schedule():
    """Straight lines between the points, by numpy."""
    algorithm = SVG(kl_cost=0.3, kl_schedule=((0.2, 2.0), (0.5, 0.1), (0.9, 0.4)))
    counts = 1 + np.arange(UPDATES + 5)
    found = [algorithm.scheduled(jnp.int32(count), UPDATES)["kl_factor"] for count in counts]
    np.testing.assert_allclose(found, np.interp(counts - 1, [4, 10, 18], [2.0, 0.1, 0.4]), rtol=1e-5)


@pytest.mark.parametrize("kind", [SVG, VTrace])
def test_a_scheduled_cost_is_that_cost(kind):
    if kind is SVG:
        agent, window = make_agent(), make_window()
    else:
        agent, window = make_discrete(), make_discrete_window(0, 5, 6)
    given = agent, hierarchy.Target(agent), window, jax.random.key(0)
    scheduled = kind(kl_cost=0.6, kl_schedule=((0.0, 1.0), (1.0, 0.1)))
    total, metrics = scheduled.loss(*given, {"kl_factor": jnp.float32(0.5)})
    plain, expected = kind(kl_cost=0.3).loss(*given, {})
    np.testing.assert_allclose(total, plain, rtol=1e-5)
    np.testing.assert_allclose(metrics.pop("kl_cost"), 0.3, rtol=1e-6)
    assert metrics.keys() == expected.keys()


@pytest.mark.parametrize("kind", [SVG, VTrace])
def test_each_level_has_a_cost_of_its_own(kind):
    """Policy loss and targets are linear in both costs."""
    if kind is SVG:
        agent, window, target = make_agent(low_level="separate"), make_window(), "q_target"
    else:
        agent, window = make_discrete(low_level="separate"), make_discrete_window(0, 5, 6)
        target = "value_target"

    def costing(high, low):
        algorithm = kind(kl_cost=0.3, kl_level_factors=(high, low))
        return algorithm.loss(agent, hierarchy.Target(agent), window, jax.random.key(0), {})[1]

    only_high, only_low, both = costing(1.0, 0.0), costing(0.0, 1.0), costing(2.0, 0.5)
    _, free = kind(kl_cost=0.0).loss(agent, hierarchy.Target(agent), window, jax.random.key(0), {})
    for name in ("policy_loss", target):
        linear = 2 * (only_high[name] - free[name]) + 0.5 * (only_low[name] - free[name])
        np.testing.assert_allclose(both[name] - free[name], linear, rtol=1e-3, atol=1e-5)
    if kind is SVG:
        expected = 0.3 * (2 * both["kl_high"] + 0.5 * both["kl_low"])
        np.testing.assert_allclose(both["policy_loss"] - free["policy_loss"], expected, rtol=1e-4)
    assert both["kl_low"] > 0


@pytest.mark.parametrize(
    ("low_level", "fields", "says"),
    [
        ("shared", {"kl_level_factors": (1.0, 0.1)}, "kl_level_factors: the KL of this agent has one part"),
        ("distral", {"kl_level_factors": (1.0, 0.1)}, "kl_level_factors: the KL of this agent has one part"),
        ("none", {"kl_level_factors": (1.0, 0.1)}, "kl_level_factors: this policy has no default policy"),
        ("none", {"kl_schedule": ((0.0, 1.0), (1.0, 0.1))}, "kl_schedule: this policy has no default policy"),
    ],
)
def test_costs_that_an_agent_does_not_have_are_refused(low_level, fields, says):
    with pytest.raises(UserError, match=says):
        SVG(**fields).parameters(make_agent(low_level=low_level), jax.random.key(0))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"kl_schedule": [[0.0, 1.0]]}, "kl_schedule needs two points"),
        ({"kl_schedule": [[0.5, 1.0], [0.5, 0.1]]}, "shares that rise"),
        ({"kl_schedule": [[0.0, 1.0], [2.0, 0.1]]}, "should be less than or equal to 1"),
        ({"kl_level_factors": [1.0, -1.0]}, "should be greater than or equal to 0"),
        ({"kl_level_factors": [1.0, 0.5], "target_kl": 1.0}, "target_kl learns one cost for both levels"),
        ({"returns": "n_step", "behaviour_samples": 2}, "behaviour_samples is for the ratios"),
        ({"learning_rate_factors": [LOW]}, f"'{LOW}' is no MODULE=FACTOR, a factor above 0"),
        ({"learning_rate_factors": [f"{LOW}=0"]}, "is no MODULE=FACTOR"),
        ({"learning_rate_factors": [f"{LOW}=1", f"{LOW}=2"]}, "a module has two factors; name it once"),
    ],
)
def test_fields_that_say_nothing_are_refused(table, says):
    with pytest.raises(UserError, match=says):
        from_table(SVG, table, "recipe")
