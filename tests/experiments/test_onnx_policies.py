"""Policies in onnxruntime do what the agents do, step after step, with their latents, carry and noise."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mjx_hkl
from mjx_hkl.cli.main import run
from mjx_hkl.experiments.agent_format import KnownAgent
from mjx_hkl.experiments.agents import load_agent
from mjx_hkl.experiments.evaluation import evaluate
from mjx_hkl.experiments.recipe import load_recipe
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.encoders import ConvFields
from mjx_hkl.models.modules import Module
from mjx_hkl.specs import ArraySpec

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from mjx_hkl.environments import make_world, many  # noqa: E402
from mjx_hkl.experiments.onnx.card import card_of  # noqa: E402
from mjx_hkl.experiments.onnx.export import policy_of, write_policy  # noqa: E402
from mjx_hkl.experiments.onnx.player import load_policy  # noqa: E402

STEPS = 60
SPECS = {
    "proprioception": ArraySpec((5,)),
    "targets": ArraySpec((6,)),
    "instruction": ArraySpec((3,)),
    "vision": ArraySpec((16, 16, 6), "uint8"),
}


def untrained(encoders=None, actions="gaussian", seen=("proprioception", "targets"), **changes):
    """An agent of a recipe with other parts, in a world of `SPECS`; its parameters are random."""
    recipe = mjx_hkl.change(load_recipe("ball-go-to-target"), encoders=encoders or {}, **changes)
    low_level = tuple(seen) if recipe.policy.is_flat else ("proprioception",)
    information = dataclasses.replace(
        recipe.information,
        high_level=tuple(seen),
        low_level=low_level,
        default=("proprioception",),
        critic=tuple(SPECS),
    )
    policy = dataclasses.replace(recipe.policy, actions=actions)
    encoders = {**recipe.encoders, "vision": ConvFields()} | recipe.encoders
    recipe = dataclasses.replace(recipe, information=information, policy=policy, encoders=encoders)
    agent = Agent(SPECS, 3, recipe.model, jax.random.key(1))
    return KnownAgent(agent, recipe, WorldSpecs({}, SPECS, 3))


def with_statistics(known):
    """The agent whose encoders have measured a few observations."""
    random = np.random.default_rng(7)
    seen = {name: jnp.asarray(observation(random, spec, 50)) for name, spec in SPECS.items()}
    return dataclasses.replace(known, agent=known.agent.observed(seen))


def observation(random, spec, batch):
    if spec.dtype == "uint8":
        return random.integers(0, 256, (batch, *spec.shape)).astype(np.uint8)
    # of the order of one, as our worlds show it
    return random.normal(0.2, 0.5, (batch, *spec.shape)).astype(spec.dtype)


HIGH = {"latent_size": 3, "sizes": [16], "latent_period": 3}
AGENTS = {
    "latent period": lambda: untrained(policy={"high_level": HIGH}, default_policy={"high_level": "ar1"}),
    "latent period alone": lambda: untrained(
        policy={"high_level": HIGH}, default_policy={"high_level": "isotropic"}
    ),
    "flat": lambda: untrained(
        policy={"high_level": "none"},
        default_policy={"high_level": "none", "low_level": "distral_two_column"},
    ),
    "all options of networks": lambda: untrained(
        policy={
            "high_level": {**HIGH, "mean_bound": 2.0, "coefficient": 0.9, "layer_norm": True, "gated": True},
            "low_level": {"layer_norm": True},
        },
        default_policy={"high_level": "ar_learned"},
    ),
    "normalized": lambda: with_statistics(
        untrained(encoders={"proprioception": "normalized", "targets": {"kind": "mlp", "shared": True}})
    ),
    "convolutions": lambda: untrained(seen=("proprioception", "vision")),
    "overlapping convolutions": lambda: untrained(
        encoders={"vision": {"kind": "conv", "kernel": [4, 3], "stride": [2, 2], "shared": True}},
        seen=("vision",),
    ),
    "residual network": lambda: untrained(
        encoders={"vision": {"kind": "resnet", "channels": [4, 4], "embedding": 8}}, seen=("vision",)
    ),
    "recurrent default": lambda: untrained(default_policy={"low_level": "lstm"}),
    "posterior": lambda: untrained(default_policy={"high_level": "posterior", "low_level": "feed_forward"}),
    "discrete, latent period": lambda: untrained(actions="categorical", policy={"high_level": HIGH}),
    **{
        name: lambda name=name: load_agent(name)
        for name in ("ball-go-to-target", "ball-go-to-target-ar-learned", "grid-1-step", "ant-go-to-target")
    },
}


@pytest.fixture(scope="module", params=AGENTS)
def known(request):
    return AGENTS[request.param]()


STEP = jax.jit(lambda agent, *given: agent.step(*given))
BATCH = 4


def play(known, stochastic):
    """Steps of the agent and of its policy side by side, each with its own carry; some begin an episode."""
    model, card = policy_of(known, stochastic)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random, names = np.random.default_rng(0), list(card.outputs())
    carry, theirs = known.agent.start((BATCH,)), {}
    for name, leaf in card.carry.items():
        theirs[f"carry.{name}"] = np.broadcast_to(np.asarray(leaf.start, leaf.dtype), (BATCH, *leaf.shape))
    for t in range(STEPS):
        groups = {name: observation(random, spec, BATCH) for name, spec in known.world.observation.items()}
        is_first = (random.uniform(size=BATCH) < 0.1) | (t == 0)
        noise = known.agent.no_noise((BATCH,))
        if stochastic:
            noise = known.agent.noise(jax.random.key(t), (BATCH,))
        seen = jax.tree.map(jnp.asarray, groups)
        carry, acted = STEP(known.agent, carry, seen, jnp.asarray(is_first), noise)
        given = {"is_first": is_first, **theirs, **{name: groups[name] for name in card.observation}}
        given |= {f"noise.{name}": np.asarray(getattr(noise, name)) for name in card.noise}
        found = dict(zip(names, session.run(names, given), strict=True))
        alone = session.run(names, {name: x[:1] for name, x in given.items()})
        for name, of_one in zip(names, alone, strict=True):
            np.testing.assert_allclose(of_one, found[name][:1], atol=1e-6, rtol=1e-6)
        np.testing.assert_allclose(found["action"], np.asarray(acted.action), atol=1e-5, rtol=1e-5)
        theirs = {f"carry.{name}": found[f"next_carry.{name}"] for name in card.carry}
        for name in {"latent", "age"} & set(card.carry):
            np.testing.assert_allclose(theirs[f"carry.{name}"], getattr(carry, name), atol=1e-5, rtol=1e-5)
    return card


@pytest.mark.parametrize("stochastic", [False, True], ids=["mean", "stochastic"])
def test_a_policy_acts_as_its_agent(known, stochastic):
    card = play(known, stochastic)
    assert not any(name.startswith("memory") for name in card.carry)
    assert bool(card.noise) == stochastic


def test_it_takes_only_what_acts_depend_on():
    _, card = policy_of(load_agent("ball-go-to-target"), stochastic=False)
    assert list(card.inputs()) == ["is_first", "instruction", "proprioception", "targets"]
    assert list(card.outputs()) == ["action"]
    _, card = policy_of(AGENTS["latent period"](), stochastic=True)
    assert list(card.inputs()) == [
        *("is_first", "proprioception", "targets", "carry.latent", "carry.age"),
        *("noise.start", "noise.latent", "noise.action"),
    ]
    assert card.noise["action"].distribution == "normal"
    _, card = policy_of(AGENTS["latent period alone"](), stochastic=False)
    assert list(card.carry) == ["latent", "age"]
    _, card = policy_of(load_agent("grid-1-step"), stochastic=True)
    assert card.noise["action"].distribution == "gumbel"
    assert (card.action.choices, card.action.dtype, card.action.bounds) == (4, "int32", None)


class Remembers(Module):
    """A high level with a memory of its own, that begins at ones."""

    remembers = True
    sees = ("proprioception",)

    def __init__(self, old):
        self.linear = nnx.Linear(5, 4, rngs=nnx.Rngs(0))
        self.old = old

    def start(self, batch):
        return {"sum": jnp.ones((*batch, 4))}

    def step(self, memory, *inputs):
        observation, history = inputs
        total = 0.5 * memory["sum"] + jnp.tanh(self.linear(observation["proprioception"]))
        given = self.old(observation, history)
        return {"sum": total}, given._replace(mean=given.mean + total)


def test_a_high_level_of_a_users_own_that_remembers():
    known = untrained(policy={"high_level": {"latent_size": 4}}, default_policy={"high_level": "isotropic"})
    known.agent.policy.high_level = Remembers(known.agent.policy.high_level)
    card = play(known, False)
    assert list(card.carry) == ["memory.policy.high_level.sum"]
    assert card.carry["memory.policy.high_level.sum"].start == [1.0] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The grid world's agent, exported by the command, with its noise."""
    out = tmp_path_factory.mktemp("policies") / "grid"
    assert run(["export", "grid-1-step", str(out), "--format", "onnx", "--stochastic"]) == 0
    return out


def test_an_export_is_whole_and_says_what_it_is(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["parameters.npz", "policy.json", "policy.onnx"]
    session = onnxruntime.InferenceSession(folder / "policy.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    about = json.loads((folder / "policy.json").read_text())
    assert {name: json.loads(text) for name, text in metadata.items()} == about
    card = card_of(metadata, folder)
    assert (card.environment, card.worlds["grid-1-step"].control_seconds) == ("grid-1-step", 0.15)
    assert {x.name: x.shape for x in session.get_inputs()} == {
        name: ["batch", *spec.shape] for name, spec in card.inputs().items()
    }
    arrays = np.load(folder / "parameters.npz")
    kernel = load_agent("grid-1-step").agent.policy.low_level.head.linear.kernel[...]
    np.testing.assert_array_equal(arrays["policy.low_level.head.linear.kernel"], kernel)


@pytest.mark.parametrize("deterministic", [True, False])
def test_it_plays_in_a_world_as_its_agent_does(folder, deterministic):
    worlds = many(make_world("grid-1-step"), 64)
    ours = evaluate(worlds, load_agent("grid-1-step").agent, 3, deterministic)
    found = evaluate(worlds, load_policy(folder / "policy.onnx"), 3, deterministic)
    if deterministic:
        assert found == ours
    else:  # by other random numbers
        assert found.success_rate == ours.success_rate == 1.0
        assert abs(found.episode_length - ours.episode_length) < 2


def test_the_commands_take_it(folder, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy = str(folder / "policy.onnx")
    assert run(["evaluate", policy, "--episodes", "16", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["success_rate"] == 1.0
    assert run(["render", policy, "grid.mp4", "--episodes", "1", "--width", "64", "--height", "64"]) == 0
    assert (tmp_path / "grid.mp4").stat().st_size > 500
    capfd.readouterr()
    for environment, told in (
        ("grid-2-step", None),
        ("ball-go-to-target", "environment 'ball-go-to-target' has no group 'coordinates'"),
        ("grid-9", "unknown environment 'grid-9'"),
    ):
        code = run(["evaluate", policy, "--episodes", "4", "--environment", environment])
        assert code == (2 if told else 0)
        assert (told or "") in capfd.readouterr().err


def refused(capfd, *arguments):
    assert run(list(arguments)) == 2
    out, error = capfd.readouterr()
    assert not out
    assert error.count("\n") == 1
    return error


def test_mistakes_are_told_in_one_line_and_nothing_is_written(folder, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["export", "grid-1-step", "there", "--format", "onnx"]
    assert "unknown format 'onxx'; did you mean onnx?" in refused(capfd, *given[:-1], "onxx")
    assert "--stochastic is of --format onnx" in refused(capfd, *given[:3], "--stochastic")
    unknown = refused(capfd, "export", "grid-1-stepp", *given[2:])
    assert "unknown agent 'grid-1-stepp'; did you mean grid-1-step?" in unknown
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    assert "there already exists" in refused(capfd, *given)
    assert "no.onnx does not exist" in refused(capfd, "evaluate", "no.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"what")
    assert "is no ONNX model that onnxruntime can run" in refused(capfd, "evaluate", "broken.onnx")
    assert "is no policy that" in refused(capfd, "evaluate", str(foreign(tmp_path)))


def foreign(folder):
    """Somebody else's model."""
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "theirs", [x], [y])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "theirs.onnx")
    return folder / "theirs.onnx"


def test_a_mean_policy_has_no_samples(tmp_path):
    known = load_agent("grid-1-step")
    write_policy(tmp_path / "mean", known, make_world("grid-1-step"), stochastic=False)
    policy = load_policy(tmp_path / "mean" / "policy.onnx")
    with pytest.raises(mjx_hkl.UserError, match="mean policy without noise"):
        policy.noise(jax.random.key(0), (1,))


def test_a_policy_that_onnx_cannot_express_leaves_nothing_behind(tmp_path):
    known = untrained(policy={"high_level": {"latent_size": 5}})
    old = known.agent.policy.high_level

    class Inverse(Module):
        sees = ("proprioception",)

        def __call__(self, observation, history):
            given = old(observation, history)
            return given._replace(mean=jax.lax.erf_inv(given.mean))

    known.agent.policy.high_level = Inverse()
    with pytest.raises(mjx_hkl.UserError, match="ONNX cannot express: erf_inv"):
        write_policy(tmp_path / "out", known, make_world("grid-1-step"), False)
    assert not list(tmp_path.iterdir())


def test_without_the_extra_one_line_says_what_to_install(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("mjx_hkl.experiments.onnx.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    told = refused(capfd, "export", "grid-1-step", "out", "--format", "onnx")
    assert told == "error: ONNX needs the package onnx: pip install 'mjx-hkl[onnx]'\n"
    told = refused(capfd, "evaluate", "some.onnx")
    assert told == "error: playing ONNX needs onnxruntime: pip install 'mjx-hkl[onnx]'\n"
    assert not list(tmp_path.iterdir())
