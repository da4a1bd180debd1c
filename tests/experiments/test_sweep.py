"""Sweeps: what is tried, that it goes on where it was stopped, and what is wrong before anything trains."""

import dataclasses
import json
from pathlib import Path

import pytest

from mjx_hkl.cli.main import run
from mjx_hkl.errors import UserError
from mjx_hkl.experiments import sweep as sweeps
from mjx_hkl.experiments.recipe import load_recipe, recipe_to_toml
from mjx_hkl.experiments.reporter import Silent
from mjx_hkl.experiments.sweep import sweep, table
from mjx_hkl.experiments.sweep_plan import load_plan
from mjx_hkl.training.divergence import DivergedError

optuna = pytest.importorskip("optuna")
COST = '"algorithm.kl_cost" = { low = 1e-5, high = 1e-1, log = true }\n'
LATENT = '"policy.high_level.latent_size" = { low = 2, high = 5 }\n'


def plan_of(recipe, folder, text):
    path = folder / "sweep.toml"
    path.write_text(text)
    return load_plan(path, recipe)


@pytest.fixture
def quick(monkeypatch):
    """Runs that take no time: the return is that of a parabola, best at a KL cost of 1e-3."""
    trained = []

    def go_on(recipe, out, reporter, callback, **_):
        trained.append(out.path.name)
        cost = recipe.algorithm.kl_cost
        for done in range(40, recipe.total_env_steps + 1, 40):
            callback([{"seed": 0, "environment_steps": done, "evaluation_return": -abs(cost - 1e-3)}])
        out.path.mkdir(parents=True, exist_ok=True)
        evaluation = {"success_rate": 0.5, "episode_return": -abs(cost - 1e-3)}
        out.evaluation.write_text(json.dumps([evaluation]))
        return True

    monkeypatch.setattr(sweeps, "go_on", go_on)
    return trained


def found(outcome):
    return sorted((one.number, one.state, one.value, tuple(one.params.values())) for one in outcome.trials)


def test_a_sweep_of_runs_is_stopped_and_goes_on(tiny_recipe, tmp_path, capsys):
    """Killed in its second trial, it goes on with that; then `plot` draws all, and the best is a recipe."""
    recipe, out = tmp_path / "tiny.toml", tmp_path / "sweep"
    recipe.write_text(recipe_to_toml(tiny_recipe))
    text = "trials = 2\nmetric = 'q'\n[ranges]\ncheckpoint_minutes = { low = 1, high = 99 }\n"  # one program
    plan = plan_of(tiny_recipe, tmp_path, text)
    seen = []

    def interrupt(rows):
        seen.append(rows[0]["environment_steps"])
        if len(seen) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(load_recipe(str(recipe)), plan, out, Silent(), callback=interrupt)
    assert json.loads((out / "sweep.json").read_text())["finished"] is False
    chosen = load_recipe(str(out / "trial-001")).checkpoint_minutes
    command = ["train", str(recipe), "--sweep", str(tmp_path / "sweep.toml"), "--out", str(out)]
    assert run(command) == 0
    told = json.loads((out / "sweep.json").read_text())
    assert told["finished"]
    assert [trial["state"] for trial in told["trials"]] == ["complete"] * 2
    assert [trial["params"]["checkpoint_minutes"] for trial in told["trials"]][1] == chosen
    for trial in told["trials"]:
        last = json.loads((out / f"trial-{trial['number']:03d}/metrics.jsonl").read_text().splitlines()[-1])
        assert trial["value"] == last["q"]  # the last tenth is one row
    best = load_recipe(str(out / "best.toml"))
    assert (best.name, best.checkpoint_minutes) == (
        "tiny-best",
        told["trials"][0]["params"]["checkpoint_minutes"],
    )
    capsys.readouterr()
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert "compiled" not in shown
    assert "| trial | q | checkpoint_minutes |" in shown
    assert run(["plot", str(out), "--out", str(tmp_path / "q.png"), "--metric", "q"]) == 0


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_the_same_is_tried_however_often_a_sweep_is_stopped(sampler, quick, tiny_recipe, tmp_path):
    size = LATENT if sampler == "grid" else COST + LATENT
    text = f'trials = 14\nseed = 3\nsampler = "{sampler}"\nmetric = "evaluation_return"\n[ranges]\n{size}'
    plan = plan_of(tiny_recipe, tmp_path, text)
    whole = sweep(tiny_recipe, plan, tmp_path / "whole", Silent())
    assert len(whole.trials) == plan.num_trials == (4 if sampler == "grid" else 14)

    def stop_now_and_then(rows):
        calls.append(rows)
        if len(calls) % 7 == 0:
            raise KeyboardInterrupt

    calls, stops, outcome = [], 0, None
    while outcome is None:
        try:
            outcome = sweep(tiny_recipe, plan, tmp_path / "parts", Silent(), callback=stop_now_and_then)
        except KeyboardInterrupt:
            stops += 1
    assert stops > 0
    assert found(outcome) == found(whole)
    if sampler == "tpe":
        late = [abs(one.params["algorithm.kl_cost"] - 1e-3) for one in whole.trials if one.number >= 10]
        assert min(late) < 1e-3  # it tries more where it was good
    if sampler == "grid":
        assert sorted(one.params["policy.high_level.latent_size"] for one in whole.trials) == [2, 3, 4, 5]


def test_a_longer_sweep_goes_on_and_another_one_is_refused(quick, tiny_recipe, tmp_path):
    out, text = tmp_path / "out", f"trials = 2\n[ranges]\n{COST}"
    sweep(tiny_recipe, plan_of(tiny_recipe, tmp_path, text), out, Silent())
    assert quick == ["trial-000", "trial-001"]
    longer = plan_of(tiny_recipe, tmp_path, text.replace("2", "3", 1))
    assert len(sweep(tiny_recipe, longer, out, Silent()).trials) == 3
    assert quick[2:] == ["trial-002"]
    with pytest.raises(UserError, match=r"holds another sweep: plan.seed is 0 there and 1 here"):
        sweep(tiny_recipe, dataclasses.replace(longer, seed=1), out, Silent())
    other = dataclasses.replace(tiny_recipe, total_env_steps=80)
    with pytest.raises(UserError, match="total_env_steps is 160 there and 80 here"):
        sweep(other, longer, out, Silent())
    (out / "study.journal").write_text("nonsense\n" * 3)
    with pytest.raises(UserError, match=r"study\.journal cannot be read"):
        sweep(tiny_recipe, longer, out, Silent())
    with pytest.raises(UserError, match="exists and is not empty"):
        sweep(tiny_recipe, longer, tmp_path, Silent())


def test_trials_that_diverge_or_do_not_fit_fail_alone(quick, tiny_recipe, tmp_path, monkeypatch):
    real = sweeps.go_on

    def go_on(recipe, out, *rest, **how):
        if recipe.min_replay == 80:
            raise DivergedError("learning diverged")
        return real(recipe, out, *rest, **how)

    monkeypatch.setattr(sweeps, "go_on", go_on)
    recipe = dataclasses.replace(tiny_recipe, replay_capacity=300)
    text = 'sampler = "grid"\n[ranges]\nreplay_capacity = { choices = [90, 300] }\n'
    plan = plan_of(recipe, tmp_path, text + "min_replay = { choices = [80, 90, 200] }\n")
    outcome = sweep(recipe, plan, tmp_path / "out", Silent())
    states = {tuple(one.params.values()): one.state for one in outcome.trials}
    assert states == {
        (90, 80): "fail",
        (300, 80): "fail",
        (90, 90): "complete",
        (300, 90): "complete",
        (90, 200): "fail",  # learning would never begin
        (300, 200): "complete",
    }
    assert "| fail | 90 | 200 |" in table(outcome)


def test_the_median_prunes(quick, tiny_recipe, tmp_path):
    recipe = dataclasses.replace(tiny_recipe, evaluation_interval=40)
    text = f"""
        trials = 12
        pruner = {{ kind = "median", after = 1, startup_trials = 2 }}
        sampler = "random"
        metric = "evaluation_return"
        [ranges]
        {COST}"""
    outcome = sweep(recipe, plan_of(recipe, tmp_path, text), tmp_path / "out", Silent())
    states = [one.state for one in outcome.trials]
    assert states[0] == "complete"
    assert states.count("pruned") > 0
    assert set(states) == {"complete", "pruned"}
    assert outcome.importances == {"algorithm.kl_cost": 1.0}


def test_a_pruner_counts_evaluations_also_where_intervals_are_rounded_up(
    quick, tiny_recipe, tmp_path, monkeypatch
):
    """A train step is 20 environment steps, so each of these intervals is 40 long."""
    reported, report = [], optuna.trial.Trial.report
    monkeypatch.setattr(
        optuna.trial.Trial,
        "report",
        lambda self, value, step: reported.append(step) or report(self, value, step),
    )
    recipe = dataclasses.replace(tiny_recipe, log_interval=30, evaluation_interval=15)
    text = f'trials = 1\nmetric = "evaluation_return"\n[ranges]\n{COST}'
    sweep(recipe, plan_of(recipe, tmp_path, text), tmp_path / "out", Silent())
    assert reported == [1, 2, 3]  # the last one is the trial's value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trials = 3", "ranges: field required"),
        ("[ranges]", "ranges: there are none"),
        ('[ranges]\n"algorithm.kl_cots" = { low = 0.1, high = 1.0 }', "'kl_cots'; did you mean kl_cost"),
        ('[ranges]\n"algorithm.kl_cost" = { low = -0.1, high = 1.0 }', "kl_cost: input should be greater"),
        ("[ranges]\nalgorithm.kl_cost = { low = 1.0, high = 0.1 }", "low 1.0 must be less than high 0.1"),
        (
            '[ranges]\n"algorithm.kl_cost" = { lo = 1.0, high = 2.0 }',
            "unknown field 'lo'; did you mean low or log?",
        ),
        ('[ranges]\n"algorithm.kl_cost" = { low = 0, high = 1, log = true }', "log needs a low above 0"),
        ("[ranges]\nnum_envs = { low = 1.5, high = 2.5 }", "num_envs: input should be a valid integer"),
        ('[ranges]\n"default_policy.high_level" = { choices = ["ar3"] }', "'ar3'"),
        (f'sampler = "annealing"\n[ranges]\n{COST}', "unknown kind of [sampler] 'annealing'"),
        (f'sampler = "grid"\n[ranges]\n{COST}', "algorithm.kl_cost needs a step or choices for a grid"),
        (f'direction = "up"\n[ranges]\n{COST}', "direction: input should be 'maximize' or 'minimize'"),
        (
            f'metric = "succes_rate"\n[ranges]\n{COST}',
            "unknown metric 'succes_rate'; did you mean success_rate",
        ),
        (f'pruner = "median"\n[ranges]\n{COST}', "while a run is trained: give --evaluation-interval"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(text, expected, tiny_recipe, tmp_path, capsys):
    recipe, plan, out = tmp_path / "tiny.toml", tmp_path / "sweep.toml", tmp_path / "out"
    recipe.write_text(recipe_to_toml(tiny_recipe))
    plan.write_text(text)
    assert run(["train", str(recipe), "--sweep", str(plan), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_without_optuna_is_said_what_to_install(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'mjx-hkl\[sweep\]'"):
        plan_of(tiny_recipe, tmp_path, "")


def test_the_example_fits_its_recipe():
    plan = load_plan(Path("docs/example/sweep.toml"), load_recipe("grid-1-step"))
    assert plan.num_trials > 1
