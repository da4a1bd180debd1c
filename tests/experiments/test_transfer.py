"""Modules of one agent in another, from the command line."""

import dataclasses
import json
import runpy
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tomli_w

from mjx_hkl.analysis import runs
from mjx_hkl.cli.main import run
from mjx_hkl.config import to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments import card, reproduce
from mjx_hkl.experiments.agent_format import read_agent
from mjx_hkl.experiments.build import make_loop
from mjx_hkl.experiments.recipe import TransferConfig, change, load_recipe, recipe_to_toml
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.transfer import transferred
from mjx_hkl.models.agent import module_at
from mjx_hkl.models.default_low_levels import Separate
from mjx_hkl.models.priors import ARLearned

HIGH, LOW, PRIOR = "policy.high_level", "policy.low_level", "default_policy.high_level"


def written(folder, recipe):
    path = folder / f"{recipe.name}.toml"
    path.write_text(recipe_to_toml(recipe), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    default = dataclasses.replace(tiny_recipe.default_policy, high_level=ARLearned(sizes=(8,)))
    return dataclasses.replace(tiny_recipe, default_policy=default)


@pytest.fixture(scope="module")
def pretrained(recipe, tmp_path_factory):
    """A finished run of two seeds."""
    folder = tmp_path_factory.mktemp("pretrained")
    two = dataclasses.replace(recipe, num_seeds=2)
    assert run(["train", written(folder, two), "--out", str(folder / "run")]) == 0
    return folder / "run"


def parameters(folder, name):
    return [np.asarray(x) for x in jax.tree.leaves(module_at(read_agent(folder).agent, name))]


def equal(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def test_frozen_modules_keep_their_bytes_and_initial_ones_learn_on(recipe, pretrained, tmp_path):
    """Three seeds take the two pretrained ones in turn."""
    out = tmp_path / "run"
    options = ["--transfer.agent", str(pretrained), "--transfer.frozen", LOW, PRIOR]
    options += ["--transfer.initial", "critic", "--algorithm.optimizer", "adamw", "--num-seeds", "3"]
    assert run(["train", written(tmp_path, recipe), "--out", str(out), *options]) == 0
    for seed in range(3):
        before, after = pretrained / "export" / f"seed_{seed % 2}", out / "export" / f"seed_{seed}"
        assert equal(parameters(before, LOW), parameters(after, LOW))
        assert equal(parameters(before, PRIOR), parameters(after, PRIOR))
        assert not equal(parameters(before, HIGH), parameters(after, HIGH))
        assert not equal(parameters(before, "critic"), parameters(after, "critic"))


def test_what_is_taken_is_equal_at_the_start(recipe, pretrained, tmp_path):
    """With nothing learned what is initial is still equal, and what is new is new."""
    source = pretrained / "export" / "seed_1"
    untrained = dataclasses.replace(recipe, total_env_steps=40, min_replay=100)
    options = ["--transfer.agent", str(source), "--transfer.initial", LOW, "critic"]
    options += ["--policy.low-level.head-gain", "1"]  # of a start that is not made
    out = tmp_path / "run"
    assert run(["train", written(tmp_path, untrained), "--out", str(out), *options]) == 0
    for name, taken in ((LOW, True), ("critic", True), (HIGH, False), (PRIOR, False)):
        assert equal(parameters(source, name), parameters(out / "export", name)) == taken


def test_a_transfer_moves_the_learner_alone(recipe, pretrained):
    """A second replay beside the first would not fit where one does."""
    loop = make_loop(recipe)
    state = loop.init()
    sources = [read_agent(pretrained / "export" / "seed_0")]
    placed = loop.place(transferred(state, {"there": sources}, TransferConfig("there", initial=("critic",))))
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (placed.replay, state.replay)), strict=True))
    taken, there = placed.learner.agent.critic, sources[0].agent.critic
    for a, b in zip(jax.tree.leaves(taken), jax.tree.leaves(there), strict=True):
        np.testing.assert_array_equal(a[0], b)


@pytest.mark.long
def test_a_shared_low_level_starts_a_separate_one_beside_its_frozen_self(recipe, pretrained, tmp_path):
    """Figure 6: π0^L frozen, π^L its own from the same weights."""
    default = dataclasses.replace(recipe.default_policy, low_level=Separate(sizes=(8,)))
    separate = dataclasses.replace(recipe, default_policy=default)
    own = "default_policy.low_level"
    options = ["--transfer.agent", str(pretrained), "--transfer.frozen", own, "--transfer.initial", LOW]
    out = tmp_path / "run"
    assert run(["train", written(tmp_path, separate), "--out", str(out), *options]) == 0
    source = pretrained / "export" / "seed_0"
    assert equal(parameters(source, LOW), parameters(out / "export", own))
    assert not equal(parameters(source, LOW), parameters(out / "export", LOW))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[1]["kl_low"] < rows[-1]["kl_low"]  # it leaves where it began


@pytest.mark.long
def test_a_high_level_moves_to_another_body(recipe, pretrained, tmp_path):
    """Body transfer (§7.2): what sees no body fits any, frozen, with a new low level."""
    information = dataclasses.replace(recipe.information, high_level=("targets", "instruction"))
    ball = dataclasses.replace(recipe, information=information)
    assert run(["train", written(tmp_path, ball), "--out", str(tmp_path / "ball")]) == 0
    options = ["--transfer.agent", str(tmp_path / "ball"), "--transfer.frozen", HIGH, PRIOR]
    ant = ["--environment", "ant-go-to-target", "--out", str(tmp_path / "ant")]
    assert run(["train", written(tmp_path, ball), *ant, *options]) == 0
    assert equal(
        parameters(tmp_path / "ball" / "export", HIGH), parameters(tmp_path / "ant" / "export", HIGH)
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--transfer.frozen", LOW, "--environment", "ant-go-to-target"], "body is ball there and ant here"),
        (
            ["--transfer.frozen", HIGH, "--policy.high-level.latent-size", "3"],
            "latent size is 2 there and 3 here",
        ),
        (
            ["--transfer.frozen", LOW, "--policy.low-level.sizes", "9"],
            "shape of head.linear.kernel is [8, 4] there and [9, 4] here; give both recipes the same layer",
        ),
        (
            ["--transfer.frozen", HIGH, "--information.high-level", "targets", "instruction"],
            "input is instruction, proprioception, targets, previous latent there",
        ),
        (
            ["--transfer.frozen", LOW, "--policy.low-level.scale", "0.1", "1"],
            "range of scales is 0.05, 1.0 there and 0.1, 1.0 here",
        ),
        (
            ["--transfer.frozen", LOW, "--policy.low-level.layer-norm"],
            "; give both recipes the same layer sizes, layer_norm, gated and encoders",
        ),
        (
            ["--transfer.frozen", HIGH, "policy.lowlevel", "--policy.high-level.latent-size", "3"],
            "latent size is 2 there and 3 here; give both recipes the same: --policy.high-level.latent-size"
            " 2; and this agent has unknown module 'policy.lowlevel'; did you mean policy.low_level",
        ),
        (["--transfer.frozen", "policy.lowlevel"], "did you mean policy.low_level"),
        (["--transfer.frozen", f"{LOW}=policy.low"], "the other agent has unknown module 'policy.low'"),
        (["--transfer.frozen", "default_policy.low_level"], "unknown module 'default_policy.low_level'"),
        (["--transfer.frozen", LOW, "--transfer.initial", LOW], "policy.low_level is taken twice"),
        ([], "transfer needs an agent, and frozen, initial or released modules"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(recipe, pretrained, tmp_path, capsys, options, expected):
    out = tmp_path / "run"
    command = [
        "train",
        written(tmp_path, recipe),
        "--out",
        str(out),
        "--transfer.agent",
        str(pretrained),
    ]
    capsys.readouterr()
    assert run([*command, *options]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.long
def test_a_module_moves_with_the_shared_encoder_that_it_sees_through(tiny_recipe, tmp_path, capsys):
    recipe = change(tiny_recipe, encoders={"targets": {"sizes": [5], "shared": True}})
    options = [written(tmp_path, recipe), "--out"]
    assert run(["train", *options, str(tmp_path / "first")]) == 0
    took = [*options, str(tmp_path / "second"), "--seed", "9", "--transfer.agent", str(tmp_path / "first")]
    assert run(["train", *took, "--transfer.frozen", HIGH]) == 2
    assert "sees targets through the shared encoders.targets; take that too" in capsys.readouterr().err
    options = ["--transfer.frozen", HIGH, "--transfer.initial", "encoders.targets"]
    assert run(["train", *took, *options]) == 2
    told = f"{HIGH} is frozen, and sees targets through encoders.targets, which is not; freeze both"
    assert told in capsys.readouterr().err
    assert run(["train", *took, "--transfer.frozen", HIGH, "encoders.targets"]) == 0
    for name in (HIGH, "encoders.targets"):
        before, after = (parameters(tmp_path / run / "export", name) for run in ("first", "second"))
        assert equal(before, after)
    capsys.readouterr()
    assert run(["inspect", str(tmp_path / "first" / "export"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["modules"]["encoders.targets"]["sees"] == ["targets"]


@pytest.mark.long
def test_statistics_travel_with_a_module_and_stay_if_it_is_frozen(tiny_recipe, tmp_path, capsys):
    """They are in its export; a module that is taken to learn on goes on counting."""
    recipe = change(tiny_recipe, encoders={"all": "normalized"})
    first = ["train", written(tmp_path, recipe), "--out", str(tmp_path / "first")]
    assert run(first) == 0
    took = [*first[:2], "--transfer.agent", str(tmp_path / "first"), "--transfer.frozen", HIGH]
    took += ["--transfer.initial", "critic", "--seed", "9"]
    assert run([*took, "--out", str(tmp_path / "second")]) == 0

    def encoder(run, name):
        return module_at(read_agent(tmp_path / run / "export").agent, name).inputs.encoders.proprioception

    assert equal(
        parameters(tmp_path / "first" / "export", HIGH), parameters(tmp_path / "second" / "export", HIGH)
    )
    steps = recipe.total_env_steps
    counts = {
        (run, name): float(encoder(run, name).count[...])
        for run in ("first", "second")
        for name in (HIGH, LOW, "critic")
    }
    assert counts[("first", HIGH)] == counts[("second", HIGH)] == steps
    assert counts[("second", LOW)] == steps
    assert counts[("second", "critic")] == 2 * steps
    capsys.readouterr()
    other = ["--encoders.targets", "normalized", "--encoders.targets.bound", "5"]
    assert run([*took, *other, "--out", str(tmp_path / "third")]) == 2
    assert "bound of targets is 10.0 there and 5.0 here" in capsys.readouterr().err


@pytest.mark.long
def test_coordinates_in_another_unit_do_not_fit(recipe, pretrained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("other.toml").write_text('extends = "ball-go-to-target"\n[task]\ndistance_unit = 1.0\n')
    command = ["train", written(tmp_path, recipe), "--environment", "other.toml", "--total-env-steps", "40"]
    command += ["--transfer.agent", str(pretrained), "--transfer.frozen"]
    assert run([*command, HIGH]) == 2
    assert "unit of distance is 4.0 m there and 1.0 m here" in capsys.readouterr().err
    assert run([*command, LOW]) == 0  # which sees the body alone


def test_an_export_acts_without_this_package(pretrained):
    """The worked example of docs/transfer.md, against the agent itself."""
    script = Path(__file__).parents[2] / "docs" / "example" / "act_without_us.py"
    example = runpy.run_path(str(script))
    folder = pretrained / "export" / "seed_0"
    agent = read_agent(folder).agent
    about, loaded = example["load"](folder)
    groups = about["world"]["observation"]
    keys = jax.random.split(jax.random.key(0), len(groups))
    observation = {
        name: jax.random.normal(key, spec["shape"])
        for key, (name, spec) in zip(keys, groups.items(), strict=True)
    }
    _, step = agent.step(agent.start(()), observation, jnp.array(True), agent.no_noise(()))
    expected = step.action
    np.testing.assert_allclose(example["act"](about, loaded, observation), expected, atol=1e-5)


def test_the_worked_example_refuses_networks_that_it_does_not_know(pretrained, tmp_path):
    example = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "example" / "act_without_us.py"))
    folder = shutil.copytree(pretrained / "export" / "seed_0", tmp_path / "gated")
    card = json.loads((folder / "agent.json").read_text())
    card["recipe"]["policy"]["high_level"]["gated"] = True
    (folder / "agent.json").write_text(json.dumps(card))
    with pytest.raises(SystemExit, match="has networks that this script does not know"):
        example["load"](folder)


def chain(folder, recipe, changes):
    """A recipe with a variant that transfers from another one."""
    taken = {"agent": ":pretrained", "frozen": [LOW]}
    variants = {"transferred": {"transfer": taken, **changes}, "pretrained": {}}
    path = folder / "chain.toml"
    path.write_text(tomli_w.dumps({**to_table(recipe), "variants": variants}), encoding="utf-8")
    return path


def test_reproduce_refuses_what_will_not_fit_before_it_trains(recipe, tmp_path, capsys):
    path = chain(tmp_path, recipe, {"policy": {"low_level": {"sizes": [5]}}})
    assert run(["reproduce", str(path), "--out", str(tmp_path / "chain")]) == 2
    assert (
        "policy.low_level does not fit the other agent's policy.low_level: shape" in capsys.readouterr().err
    )
    assert not (tmp_path / "chain").exists()


def test_reproduce_names_a_stage_that_takes_modules_from_a_variant(recipe, tmp_path, capsys):
    taken = {"agent": ":pretrained", "frozen": [LOW]}
    ladder = [{"environment": recipe.environment, "transfer": taken}]
    path = chain(tmp_path, recipe, {"transfer": {}, "ladder": ladder})
    assert run(["reproduce", str(path), "--out", str(tmp_path / "chain")]) == 2
    told = "variant transferred: a stage of its ladder takes modules from another variant"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "chain").exists()


@pytest.mark.long
def test_reproduce_chains_pretraining_and_transfer(recipe, tmp_path):
    path = chain(tmp_path, recipe, {})
    out = tmp_path / "chain"
    assert run(["reproduce", str(path), "--out", str(out), "--only", "transferred"]) == 0
    exports = [out / name / "export" for name in ("pretrained", "transferred")]
    assert equal(*(parameters(export, LOW) for export in exports))
    assert "see agent.json" in (exports[1] / "README.md").read_text()  # train/ has no tiny
    command = card.command(read_agent(exports[1]).recipe)
    assert command == "mjx-hkl reproduce tiny --only transferred --num-seeds 1"
    assert run(["train", f"{path}:transferred", "--out", str(tmp_path / "alone")]) == 2


@pytest.fixture(scope="module")
def two(pretrained):
    return [pretrained / "export" / f"seed_{seed}" for seed in range(2)]


@pytest.mark.long
def test_modules_come_from_several_agents(recipe, two, tmp_path):
    """One of them is `agent`; with nothing learned what is initial is still equal."""
    untrained = dataclasses.replace(recipe, total_env_steps=40, min_replay=100)
    options = ["--transfer.agent", str(two[0]), "--transfer.frozen", f"{LOW}@{two[1]}", PRIOR]
    options += ["--transfer.initial", f"critic@{two[1]}"]
    out = tmp_path / "run"
    assert run(["train", written(tmp_path, untrained), "--out", str(out), *options]) == 0
    export = out / "export"
    for name, source in ((LOW, two[1]), (PRIOR, two[0]), ("critic", two[1])):
        assert equal(parameters(source, name), parameters(export, name))
    assert not equal(parameters(two[1], HIGH), parameters(export, HIGH))
    told = read_agent(export).recipe.transfer
    assert told == load_recipe(str(out)).transfer
    from_one, from_other = map(str, two)
    assert told.taken[:2] == [(LOW, LOW, from_other), (PRIOR, PRIOR, from_one)]
    assert told.taken[2:] == [("critic", "critic", from_other)]
    assert told.frozen_modules == (LOW, PRIOR)


def test_mistakes_with_several_agents_are_told_in_one_line(recipe, two, tmp_path, capsys):
    one, other = map(str, two)
    mistakes = [
        (
            ["--transfer.frozen", f"{LOW}@{one}", "--transfer.initial", f"{LOW}@{other}"],
            f"{LOW} is taken twice, from {one} and from {other}; name it once",
        ),
        (["--transfer.frozen", f"{LOW}@"], f"'{LOW}@' is no MODULE, MODULE=MODULE or MODULE@AGENT"),
        (["--transfer.frozen", f"{LOW}@nobody"], "unknown agent 'nobody'"),
        (["--transfer.frozen", f"{LOW}@:easy"], "':easy' is another variant of the recipe"),
        (["--transfer.agent", one, "--transfer.frozen", f"{LOW}@{other}"], "transfer needs an agent"),
        (
            ["--transfer.frozen", f"{LOW}@{one}", f"{HIGH}@{other}", "--policy.low-level.sizes", "9"],
            f"{LOW} does not fit {one}'s {LOW}: shape of head.linear.kernel is [8, 4] there and [9, 4] here",
        ),
        (
            [
                *("--transfer.frozen", f"{LOW}@{one}", f"{HIGH}@{other}", "--policy.low-level.sizes", "9"),
                *("--policy.high-level.latent-size", "3"),
            ],
            f"and {HIGH} does not fit {other}'s {HIGH}: latent size is 2 there and 3 here",
        ),
        (
            [
                *("--transfer.frozen", f"{LOW}@{one}", "--transfer.released", f"{LOW}.head@{one}"),
                *("--transfer.release-after", "9"),
            ],
            f"{LOW}.head cannot be released: {LOW}, which it is in, is frozen",
        ),
        (["--transfer.released", f"{LOW}@{one}"], "released modules need release_after"),
        (
            ["--transfer.frozen", f"{LOW}@{one}", "--transfer.release-after", "9"],
            "release_after needs released modules",
        ),
    ]
    out, path = tmp_path / "run", written(tmp_path, recipe)
    for options, expected in mistakes:
        capsys.readouterr()
        assert run(["train", path, "--out", str(out), *options]) == 2, options
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1
        assert not out.exists()


def test_reproduce_trains_all_variants_that_one_takes_from(recipe, tmp_path):
    taken = TransferConfig(":a", (LOW,), (f"{HIGH}=policy.other@:b", f"critic@{tmp_path}"))
    variants = {"both": dataclasses.replace(recipe, transfer=taken), "b": recipe, "a": recipe}
    assert list(reproduce.chosen(variants, ["both"])) == ["a", "b", "both"]
    new = RunDirectory(tmp_path / "new")
    found = reproduce._with_sources(variants["both"], new, Path("out")).transfer
    assert found == TransferConfig("out/a", (LOW,), (f"{HIGH}=policy.other@out/b", f"critic@{tmp_path}"))
    variants["b"] = dataclasses.replace(recipe, transfer=TransferConfig(initial=("critic@:both",)))
    with pytest.raises(UserError, match="variant both transfers from itself"):
        reproduce.chosen(variants, [])


def test_a_card_knows_the_recipe_of_which_all_sources_are_variants(recipe, tmp_path, monkeypatch):
    named = dataclasses.replace(recipe, transfer=TransferConfig(":a", (LOW,), ("critic@:b", "encoders.x@c")))
    monkeypatch.setattr(card, "load_recipe", lambda name: named)
    monkeypatch.setattr(card.resources, "names", lambda *_: ["tiny"])
    trained = reproduce._with_sources(named, RunDirectory(tmp_path / "new"), Path("out"))
    assert card.is_as_named(trained)
    other = TransferConfig("out/a", (LOW,), ("critic@out/b", "encoders.x@d"))
    assert not card.is_as_named(dataclasses.replace(trained, transfer=other))


def test_a_part_of_the_budget_releases_at_the_same_part_of_the_run(recipe):
    taken = TransferConfig("there", released=(LOW,), release_after=1000)
    scaled = reproduce.scaled(dataclasses.replace(recipe, transfer=taken), 0.25)
    assert scaled.transfer == dataclasses.replace(taken, release_after=250)
    stage = {"environment": recipe.environment, "transfer": to_table(taken)}
    scaled = reproduce.scaled(dataclasses.replace(recipe, ladder=(stage,)), 0.25)
    assert scaled.ladder[0]["transfer"]["release_after"] == 250


def test_runs_that_take_from_other_agents_are_seeds_of_one_curve(recipe, tmp_path):
    groups = {}
    sources = (LOW, "a"), (LOW, "b"), (HIGH, "b")
    taken = [TransferConfig(frozen=(f"{module}@{agent}",)) for module, agent in sources]
    recipes = [dataclasses.replace(recipe, transfer=transfer) for transfer in taken]
    names = [runs._group(groups, one, tmp_path) for one in recipes]
    assert names[0] == names[1] != names[2]
