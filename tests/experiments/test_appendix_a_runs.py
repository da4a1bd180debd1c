"""Runs whose default policy remembers, from training to transfer (Appendix A)."""

import json

import jax
import numpy as np
import pytest

from mjx_hkl.cli.main import run
from mjx_hkl.experiments.agents import load_agent
from mjx_hkl.models.agent import module_at

STEPS = 40  # environment steps of a log interval: two train steps of 4 worlds
SMALL = [
    *("--num-envs", 4, "--log-interval", STEPS, "--min-replay", 20, "--replay-capacity", 200),
    *("--evaluation-episodes", 4, "--algorithm.batch-size", 4, "--algorithm.replay-ratio", 2.0),
    *("--algorithm.unroll-length", 5, "--critic.sizes", 8, "--policy.low-level.sizes", 8),
    *("--algorithm.learning-rate-decay", 0.0),  # which a longer run has another one of
]
FLAT = ["--policy.high-level", "none", "--default-policy.high-level", "none", "--algorithm.burn-in", 1]
DECODER = "default_policy.low_level.decoder"


def train(out, steps, *more):
    options = [*SMALL, "--total-env-steps", steps, "--out", out, *more]
    assert run(["train", "ball-go-to-target-plain", *map(str, options)]) == 0
    return out


def prior(kind):
    sizes = ["--default-policy.low-level.sizes", 8] if kind == "latent_variable" else []
    return [*FLAT, "--default-policy.low-level", kind, *sizes]


@pytest.fixture(scope="module", params=["lstm", "latent_variable"])
def trained(request, tmp_path_factory):
    """The kind, and a run of it that was stopped half way and resumed."""
    out = train(tmp_path_factory.mktemp(request.param) / "run", 2 * STEPS, *prior(request.param))
    assert run(["train", str(out), "--resume", "--total-env-steps", str(4 * STEPS)]) == 0
    return request.param, out


def metrics(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k and k != "crc32"} for row in rows]


@pytest.mark.long
def test_it_resumes_bit_for_bit(trained, tmp_path):
    kind, out = trained
    straight = train(tmp_path / "straight", 4 * STEPS, *prior(kind))
    assert metrics(out) == metrics(straight)
    agents = (load_agent(str(folder)).agent for folder in (out, straight))
    for a, b in zip(*map(jax.tree.leaves, agents), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.long
def test_it_stays_as_it_is_where_it_is_taken(trained, tmp_path):
    kind, source = trained
    frozen = ["--transfer.agent", source, "--transfer.frozen", "default_policy.low_level"]
    out = train(tmp_path / "run", 2 * STEPS, *prior(kind), *frozen)
    taken, there = (load_agent(str(folder)).agent.default_policy.low_level for folder in (out, source))
    for a, b in zip(*map(jax.tree.leaves, (taken, there)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.long
def test_its_latents_are_the_actions_of_another_agent(trained, tmp_path, capsys):
    kind, source = trained
    options = ["--transfer.agent", source, "--transfer.frozen", f"policy.low_level={DECODER}"]
    options += ["--algorithm.kind", "latent_svg", "--policy.high-level.latent-size", 10]
    if kind == "lstm":
        assert (
            run(["train", "ball-go-to-target-plain", *map(str, options), "--out", str(tmp_path / "run")]) == 2
        )
        assert f"unknown module '{DECODER}'" in capsys.readouterr().err
        return
    out = train(tmp_path / "run", 2 * STEPS, *options)
    agent = load_agent(str(out)).agent
    taken, decoder = agent.policy.low_level, module_at(load_agent(str(source)).agent, DECODER)
    for a, b in zip(*map(jax.tree.leaves, (taken, decoder)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_prior_of_another_body_is_said_in_a_line(trained, tmp_path, capsys):
    kind, source = trained
    options = [*prior(kind), "--transfer.agent", source, "--transfer.frozen", "default_policy.low_level"]
    recipe, out = "ant-go-to-near-target", str(tmp_path / "run")
    assert run(["train", recipe, *map(str, options), "--out", out]) == 2
    assert "default_policy.low_level does not fit the other agent's" in capsys.readouterr().err
