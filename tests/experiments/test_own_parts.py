"""Parts of an agent from a user's own file: trained, resumed, exported, evaluated and transferred."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_hkl.cli.main import run
from mjx_hkl.experiments.agents import load_agent
from mjx_hkl.models.agent import module_at
from mjx_hkl.training import checkpoint

RECIPE = Path(__file__).parents[2] / "docs" / "example" / "puck-parts.toml"
STEPS = 40  # environment steps of a log interval: two train steps of 4 worlds
SMALL = [
    *("--num-envs", 4, "--log-interval", STEPS, "--min-replay", 20, "--replay-capacity", 200),
    *("--evaluation-episodes", 4, "--algorithm.batch-size", 4, "--algorithm.replay-ratio", 2.0),
    *("--algorithm.unroll-length", 5, "--policy.high-level.sizes", 8, "--policy.low-level.sizes", 8),
    *("--critic.sizes", 8),
]
# What each variant brings, in the state of a run and as a module of an agent.
OWN = {
    "learned_coefficient": ("learner.agent.default_policy.high_level.logit", "default_policy.high_level"),
    "gru": ("learner.agent.default_policy.high_level.cell", "default_policy.high_level"),
    "convolution": ("learner.agent.policy.high_level.inputs.encoders.picture", "policy.high_level"),
    "kl_target": ("learner.own.log_kl_cost", "policy.low_level"),
}


def train(variant, out, steps, *more):
    options = [*SMALL, "--total-env-steps", steps, "--out", out, *more]
    assert run(["train", f"{RECIPE}:{variant}", *map(str, options)]) == 0
    return out


@pytest.fixture(scope="module", params=OWN)
def trained(request, tmp_path_factory):
    """The variant, and a run of it that was stopped half way and resumed."""
    folder = tmp_path_factory.mktemp(request.param)
    out = train(request.param, folder / "run", 2 * STEPS)
    assert run(["train", str(out), "--resume", "--total-env-steps", str(4 * STEPS)]) == 0
    return request.param, out


def metrics(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k and k != "crc32"} for row in rows]


def test_it_learns_and_resumes_bit_for_bit(trained, tmp_path):
    variant, out = trained
    straight = train(variant, tmp_path / "straight", 4 * STEPS)
    assert metrics(out) == metrics(straight)
    found, expected = (load_agent(str(run)).agent for run in (out, straight))
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_its_state_is_in_the_checkpoint(trained):
    variant, out = trained
    names = checkpoint.about(out / "checkpoints")["shapes"]
    assert any(name.startswith(OWN[variant][0]) for name in names)


def test_it_is_exported_and_evaluated_alike(trained, tmp_path, capsys):
    variant, out = trained
    exported = tmp_path / "agent"
    assert run(["export", str(out), str(exported)]) == 0
    capsys.readouterr()
    found = []
    for agent in (out, exported):
        assert run(["evaluate", str(agent), "--episodes", "4", "--stochastic", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out) | {"agent": "either"})
    assert found[0] == found[1]
    assert run(["inspect", str(exported), "--json"]) == 0
    assert OWN[variant][1] in json.loads(capsys.readouterr().out)["modules"]


def test_its_module_is_taken_by_another_run(trained, tmp_path):
    variant, out = trained
    module = OWN[variant][1]
    new = train(variant, tmp_path / "new", 2 * STEPS, "--transfer.agent", out, "--transfer.frozen", module)
    modules = (module_at(load_agent(str(run)).agent, module) for run in (out, new))
    for a, b in zip(*map(jax.tree.leaves, modules), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_does_not_fit_is_told(trained, tmp_path, capsys):
    """A module of our own kind in the place of the user's."""
    variant, out = trained
    module = OWN[variant][1]
    options = [*SMALL, "--transfer.agent", out, "--transfer.frozen", module, "--out", tmp_path / "new"]
    plain = ["--policy.high-level.latent-size", 3]
    assert run(["train", str(RECIPE.with_name("puck.toml")), *map(str, [*options, *plain])]) == 2
    assert "transfer: " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("trained", ["learned_coefficient"], indirect=True)
def test_the_coefficient_is_learned_and_that_of_an_ar1_process(trained):
    _, out = trained
    prior, z = load_agent(str(out)).agent.default_policy.high_level, jnp.array([[0.5, -1.0, 2.0, 0.0]])
    coefficient = 1 / (1 + np.exp(-np.asarray(prior.logit[...], float)))
    assert (abs(coefficient - 0.9) > 1e-5).all()
    np.testing.assert_allclose(prior(z).mean, coefficient * z, rtol=1e-5)
    np.testing.assert_allclose(prior(z).scale[0], np.sqrt(1 - coefficient**2), rtol=1e-4)


@pytest.mark.parametrize("trained", ["kl_target"], indirect=True)
def test_the_dual_variable_follows_the_excess_of_the_kl(trained):
    """Of a KL that stays on one side of its target, Adam moves the logarithm by its rate at each update."""
    _, out = trained
    rows = metrics(out)[1:]  # in the first interval a part of the train steps does not learn
    for before, after in itertools.pairwise(rows):
        excess = before["kl_high"] - 0.5
        moved = np.log(after["kl_cost"] / before["kl_cost"])
        np.testing.assert_allclose(moved, 4 * 1e-2 * np.sign(excess), rtol=0.1)
