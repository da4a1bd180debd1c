import json
import re
import shutil

import numpy as np
import pytest
from matplotlib.axes import Axes
from written_runs import RAMP, ROWS, write_run

from mjx_hkl.analysis import curves
from mjx_hkl.analysis.curves import Curve
from mjx_hkl.cli.main import run
from mjx_hkl.experiments import recipe as recipes
from mjx_hkl.experiments.recipe import load_recipe, recipe_to_toml
from mjx_hkl.experiments.reproduce import scaled

ENVS = 256


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "ar1", "ball-go-to-target-priors:ar1", [RAMP, RAMP**2])
    write_run(tmp_path / "svg0", "ball-go-to-target-priors:svg0", [0.5 * RAMP])
    return tmp_path


def test_variants_of_one_recipe_are_called_by_their_own_names(runs):
    found = curves.read_curves([runs], "success_rate", smooth=1)
    assert {name: len(seeds) for name, seeds in found.items()} == {"ar1": 2, "svg0": 1}
    one = curves.read_curves([runs / "ar1", runs / "ar1"], "success_rate", smooth=1)
    assert {name: len(seeds) for name, seeds in one.items()} == {"ball-go-to-target-priors:ar1": 2}


def test_runs_that_differ_in_more_than_their_seeds_are_no_seeds_of_one_curve(runs):
    changes = (("again", "seed = 7"), ("changed", "kl_cost = 0.5"), ("more", "kl_cost = 0.5"))
    for i, (name, change) in enumerate(changes):
        write_run(runs / name, "ball-go-to-target-priors:ar1", [RAMP], first_seed=7 + i)
        recipe = runs / name / "recipe.toml"
        field = change.partition(" =")[0]
        recipe.write_text(re.sub(rf"(?m)^{field} = .*$", change, recipe.read_text(), count=1))
    folders = [runs / name for name in ("ar1", "again", "changed", "more")]
    found = curves.read_curves(folders, "success_rate", smooth=1)
    assert {name: len(seeds) for name, seeds in found.items()} == {"ar1": 3, "ar1 (changed)": 2}


def test_runs_of_another_budget_are_no_seeds_of_one_curve(runs):
    write_run(runs / "short", "ball-go-to-target-priors:ar1", [RAMP], first_seed=7)
    recipe = runs / "short" / "recipe.toml"
    recipe.write_text(re.sub(r"(?m)^total_env_steps = .*$", "total_env_steps = 2000", recipe.read_text()))
    found = curves.read_curves([runs / "ar1", runs / "short"], "success_rate", smooth=1)
    assert {name: len(seeds) for name, seeds in found.items()} == {"ar1": 2, "ar1 (short)": 1}


def test_terms_of_the_return_are_means_over_episodes_as_the_return_is(tmp_path):
    """No point before each world has ended an episode; then rows weigh by their episodes."""
    write_run(tmp_path / "a", "ball-go-to-target", [np.zeros(8)])
    file, worlds = tmp_path / "a" / "metrics.jsonl", 256
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for i, row in enumerate(rows):
        row |= {"episodes": worlds * (i + 1) // 2, "episode_return": 3.0 * i, "episode_return_ahead": i}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [
        curves.read_curves([tmp_path / "a"], name, smooth=3)["ball-go-to-target"][0]
        for name in ("episode_return", "episode_return_ahead")
    ]
    assert [len(curve.value) for curve in found] == [7, 7]
    np.testing.assert_allclose(found[0].value, 3 * found[1].value)
    assert found[1].value[1] == pytest.approx((2 * 1 + 3 * 2) / 5)


def test_each_seed_of_each_run_counts_once(runs, capsys):
    """Three paths to one run, a copy of it that took another time, and one of when it had fewer rows."""
    (runs / "link").symlink_to(runs / "ar1")
    shutil.copytree(runs / "ar1", runs / "copy")
    write_run(runs / "early", "ball-go-to-target-priors:ar1", [RAMP[:7], RAMP[:7] ** 2], seconds=3.0)
    given = [runs / "early", runs / "ar1", runs / "link", runs / "copy", runs / "svg0" / ".." / "ar1"]
    said = []
    found = curves.read_curves(given, "success_rate", smooth=1, say=said.append)
    ((_, seeds),) = found.items()
    assert [len(seed.value) for seed in seeds] == [ROWS - 3, ROWS - 3]  # all worlds have had an episode
    assert said == [
        f"{runs / 'link'} is {runs / 'ar1'} again: counted once",
        f"{given[-1]} is {runs / 'ar1'} again: counted once",
        f"seed 0 of {runs / 'ar1'} is that of {runs / 'early'} again: counted once",
        f"seed 1 of {runs / 'ar1'} is that of {runs / 'early'} again: counted once",
        f"seed 0 of {runs / 'copy'} is that of {runs / 'ar1'} again: counted once",
        f"seed 1 of {runs / 'copy'} is that of {runs / 'ar1'} again: counted once",
    ]
    assert run(["plot", str(runs), "--out", str(runs / "curves.png"), "--json"]) == 0
    shown = capsys.readouterr()
    assert [row["seeds"] for row in json.loads(shown.out)["runs"]] == [2, 1]
    assert "counted once" in shown.err


def test_a_curve_of_one_environment_is_by_its_own_episodes(tmp_path):
    """Two worlds of each: those of `far` have all ended an episode after two rows, others long before."""
    near, far = "ball-go-to-near-target", "ball-go-to-target"
    write_run(tmp_path / "run", far, [np.zeros(4)])
    recipe = recipes.change(load_recipe(far), environment=(near, far), num_envs=4)
    (tmp_path / "run" / "recipe.toml").write_text(recipe_to_toml(recipe), encoding="utf-8")
    file = tmp_path / "run" / "metrics.jsonl"
    ended, success = (1, 1, 3, 1), (1.0, 0.5, 0.5, 0.9)
    rows = [
        json.loads(line) | {f"episodes/{far}": count, f"success_rate/{far}": x}
        for line, count, x in zip(file.read_text().splitlines(), ended, success, strict=True)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ((curve,),) = curves.read_curves([tmp_path / "run"], f"success_rate/{far}", smooth=2).values()
    np.testing.assert_allclose(curve.value, [0.5, 0.5, (3 * 0.5 + 0.9) / 4])


def test_a_diverged_seed_ends_at_nothing(runs):
    """On engine mjx no episode ends any more, on mujoco they do; the row says that it has diverged."""
    for name, episodes in (("silent", 0), ("loud", 64)):
        write_run(runs / name, "ball-go-to-target", [np.full(ROWS, 0.9)])
        file = runs / name / "metrics.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for i, row in enumerate(rows):
            row |= {"critic_loss": None if i in (0, 1) else 0.1, "diverged": i >= 10}
            if i >= 10:
                lost = {"success_rate": None, "episodes": 0} if episodes == 0 else {}
                row |= {"critic_loss": None, "kl_low": None, **lost}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = curves.read_curves([runs / name], "success_rate", smooth=5)
        (curve,) = found["ball-go-to-target"]
        np.testing.assert_allclose(curve.value[:-10], 0.9)
        np.testing.assert_allclose(curve.value[-10:], 0.0)
        assert curve.final_kl == 2.0
        (row,) = curves.summarize(found, with_thresholds=True)
        assert (row["mean"], row["diverged"]) == (0.0, 1)
        assert "| 1 (1 diverged) |" in curves.table([row], "success_rate")
    rows[10:] = rows[10:11]  # one seed alone: training stops there
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (row,) = curves.summarize(curves.read_curves([runs / name], "success_rate", smooth=5), True)
    assert row["mean"] == 0.0


def changed(run, change):
    """The run's rows, changed by their index."""
    file = run / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(change(i, row)) + "\n" for i, row in enumerate(rows)))


@pytest.mark.parametrize("with_evaluations", [range(10), range(10, ROWS)])
def test_evaluations_may_begin_or_end_when_a_run_is_resumed(runs, with_evaluations):
    changed(runs / "svg0", lambda i, row: row | ({"evaluation_return": 7.0} if i in with_evaluations else {}))
    ((_, (curve,)),) = curves.read_curves([runs / "svg0"], "evaluation_return", smooth=1).items()
    np.testing.assert_array_equal(curve.value, np.full(len(with_evaluations), 7.0))


def test_a_seed_that_diverges_at_once_keeps_no_other_back(runs, tmp_path):
    """It is worth nothing where success is compared, and left out elsewhere."""
    lost = {"diverged": True, "success_rate": None, "kl_high": None, "episodes": 0}
    for name in "abc":
        write_run(runs / name, "ball-go-to-target", [RAMP], first_seed=ord(name))
    changed(runs / "a", lambda i, row: row | lost)
    given = [runs / name for name in "abc"]
    success = curves.read_curves(given, "success_rate", smooth=1)
    (seeds,) = success.values()
    assert seeds[0].final == 0.0
    assert min(seed.final for seed in seeds[1:]) > 0.9
    (row,) = curves.summarize(success, with_thresholds=True)
    assert (row["seeds"], row["diverged"]) == (3, 1)
    (others,) = curves.read_curves(given, "kl_high", smooth=1).values()
    assert len(others) == 2
    curves.draw(success, "success_rate", tmp_path / "curves.png")


def test_one_seed_that_diverges_does_not_cut_the_others_short(runs):
    for name, until in (("a", 3), ("b", ROWS), ("c", ROWS)):
        write_run(runs / name, "ball-go-to-target", [RAMP], first_seed=ord(name))
        changed(runs / name, lambda i, row, until=until: row | ({"diverged": True} if i >= until else {}))
    (seeds,) = curves.read_curves([runs / name for name in "abc"], "kl_high", smooth=1).values()
    assert [len(seed.value) for seed in seeds] == [3, ROWS, ROWS]
    found = curves.band(seeds, "environment_steps", 20)
    assert found is not None
    assert found.x[-1] == seeds[1].axes["environment_steps"][-1]


def test_a_spike_does_not_blur_what_comes_after_it():
    values = np.array([1.0, 1e17, 1.0, 1.0, 1.0, 3.0])
    np.testing.assert_allclose(curves._running_mean(values, np.ones(6), 2)[3:], [1.0, 1.0, 2.0])


def test_nothing_counts_until_every_world_has_had_an_episode(runs):
    """The episodes that end first are the solved ones."""
    (curve,) = curves.read_curves([runs / "svg0"], "success_rate", smooth=1).values()
    assert curve[0].axes["environment_steps"][0] == 100 * ENVS / 64


def test_a_run_that_is_shorter_than_that_shows_what_it_has(tmp_path):
    write_run(tmp_path / "short", "ball-go-to-target", [[0.1, 0.2]])
    (curve,) = curves.read_curves([tmp_path / "short"], "success_rate", smooth=1).values()
    np.testing.assert_allclose(curve[0].value, [0.1, 0.2])


def test_thresholds_are_where_the_curve_first_is():
    steps = np.arange(1.0, 6.0)
    curve = Curve(np.array([0.1, 0.6, 0.4, 0.9, 0.7]), {"learner_steps": steps}, 0.0)
    assert curve.reaches(0.5, "learner_steps") == 2
    assert curve.reaches(0.8, "learner_steps") == 4
    assert curve.reaches(0.95, "learner_steps") == np.inf


def test_a_ladders_steps_do_not_weigh_in_the_mean_of_the_last_world():
    """Two intervals of equal length, after a ladder that is four times as long as both."""
    axes = {"environment_steps": np.array([900.0, 1000.0])}
    curve = Curve(np.array([0.2, 0.6]), axes, 0.0, begin=800.0)
    assert curve.average == pytest.approx(0.4)
    assert curve.final == 0.6


def test_variants_are_compared_with_the_first(tmp_path):
    """All five seeds of one are faster than all of the first: p = 2 / (10 over 5)."""
    slow = [1.0 * (np.arange(ROWS) > 10 + i) for i in range(5)]
    fast = [1.0 * (np.arange(ROWS) > 4 + i) for i in range(5)]
    never = np.zeros(ROWS)
    for name, successes in (("svg0", slow), ("ar1", fast), ("isotropic", [*slow[:4], never])):
        write_run(tmp_path / name, f"ball-go-to-target-priors:{name}", successes)
    found = curves.read_curves([tmp_path / x for x in ("svg0", "ar1", "isotropic")], "success_rate", smooth=1)
    first, faster, same = curves.summarize(found, with_thresholds=True)
    assert first["faster"] is None
    assert faster["faster"]["probability"] == 1.0
    assert faster["faster"]["p"] == pytest.approx(2 / 252)
    assert 0.3 < same["faster"]["probability"] < 0.7
    assert same["faster"]["p"] > 0.5
    assert same["environment_steps_to_80%_range"][1] is None
    shown = curves.table([first, faster, same], "success_rate")
    assert "100% (p 0.0079)" in shown
    assert "to never)" in shown


def test_seeds_that_never_get_there_are_alike(tmp_path):
    for name in ("svg0", "ar1"):
        write_run(tmp_path / name, f"ball-go-to-target-priors:{name}", [np.zeros(ROWS)] * 2)
    found = curves.read_curves([tmp_path / "svg0", tmp_path / "ar1"], "success_rate", smooth=1)
    _, other = curves.summarize(found, with_thresholds=True)
    assert other["faster"] == {"probability": 0.5, "p": 1.0}


def test_a_running_mean_is_over_episodes(runs):
    value, weight = np.array([1.0, 0.0, 0.5, 1.0]), np.array([10.0, 30.0, 0.0, 20.0])
    expected = [1.0, 10 / 40, 0.0, 20 / 20]
    np.testing.assert_allclose(curves._running_mean(value, weight, 2), expected)
    np.testing.assert_allclose(curves._running_mean(value, weight, 9)[-1], 30 / 60)


def test_the_summary_is_that_of_the_seeds_ends(runs):
    found = curves.read_curves([runs], "success_rate", smooth=1)
    ar1, svg0 = curves.summarize(found, with_thresholds=True)
    ends = [RAMP[-3:].mean(), (RAMP**2)[-3:].mean()]
    assert ar1["mean"] == pytest.approx(np.mean(ends))
    assert ar1["std"] == pytest.approx(np.std(ends))
    assert ar1["iqm"] == pytest.approx(np.mean(ends))  # of two nothing is trimmed
    assert ar1["interval"] == pytest.approx(sorted(ends))  # the bootstrap of two knows only their mixtures
    assert ar1["kl"] == 2.0
    assert ar1["learner_steps_to_80%"] == pytest.approx(800 * np.mean([16, 18]))
    assert ar1["seeds_at_80%"] == 2
    assert (svg0["interval"], svg0["learner_steps_to_80%"], svg0["seeds_at_50%"]) == (None, None, 1)
    assert svg0["std"] is None
    assert "| svg0 | 1 | 48.0% | 48.0% | - |" in curves.table([svg0], "success_rate")


def test_the_interquartile_mean_leaves_the_outer_quarters_out():
    values = np.array([0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 100.0])
    assert curves.interquartile_mean(values) == pytest.approx(np.mean([0.5, 0.6, 0.7, 0.8]))


def test_plot_writes_a_picture_and_a_table(runs, tmp_path, capsys):
    out = tmp_path / "curves.png"
    assert run(["plot", str(runs), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "| svg0 | 1 |" in shown
    assert "never" in shown
    assert run(["plot", str(runs), "--out", str(out), "--json", "--metric", "kl_high"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["mean"] for row in found["runs"]] == [1.5, 1.5]


@pytest.mark.parametrize("cut", ["", '{"seed": 0, "env'])
def test_a_run_without_a_whole_row_draws_nothing(runs, tmp_path, capsys, cut):
    (runs / "svg0" / "metrics.jsonl").write_text(cut, encoding="utf-8")
    out = tmp_path / "curves.png"
    assert run(["plot", str(runs / "svg0"), "--out", str(out)]) == 2
    assert (
        capsys.readouterr().err
        == f"error: {runs / 'svg0'} has no metrics yet: no log interval of it has ended\n"
    )
    assert not out.exists()


def test_a_run_of_a_folder_that_has_just_begun_is_left_out(runs, tmp_path, capsys):
    (runs / "svg0" / "metrics.jsonl").write_text("", encoding="utf-8")
    assert run(["plot", str(runs), "--out", str(tmp_path / "curves.png"), "--metric", "kl_high"]) == 0
    found = capsys.readouterr()
    assert f"{runs / 'svg0'} has no metrics yet: no log interval of it has ended: left out" in (
        found.out + found.err
    )


def test_metrics_without_a_recipe_are_refused(runs, tmp_path, capsys):
    (runs / "svg0" / "recipe.toml").unlink()
    assert run(["plot", str(runs), "--out", str(tmp_path / "curves.png")]) == 2
    assert capsys.readouterr().err == f"error: {runs / 'svg0'} has metrics and no recipe.toml\n"


def test_a_scaled_recipe_has_a_smaller_budget_and_nothing_else():
    whole = load_recipe("ball-go-to-target-plain")
    tenth = scaled(whole, 0.1)
    assert (tenth.total_env_steps, tenth.log_interval) == (140_000, 5120)
    assert (tenth.algorithm.learning_rate_decay, tenth.min_replay) == (1.0, 2560)
    assert scaled(tenth, 10) == whole


def test_as_many_evaluations_fit_a_scaled_budget():
    whole = load_recipe("ant-task-transfer:transfer")
    tenth = scaled(whole, 0.1)
    assert tenth.evaluation_interval * 10 == whole.evaluation_interval
    assert scaled(load_recipe("ball-go-to-target"), 0.1).evaluation_interval == 0


def test_a_curve_of_one_point_is_drawn_as_a_point(runs, monkeypatch, tmp_path):
    shown, plot = [], Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, *args, **how: shown.append(args[2]) or plot(self, *args, **how)
    )
    one = Curve(np.array([0.5]), {axis: np.array([10.0]) for axis in curves.AXES}, 0.0)
    curves.draw({"one": [one]}, "success_rate", tmp_path / "one.png")
    assert set(shown) == {"."}


def test_a_ladders_stages_are_scaled_too():
    tenth = scaled(load_recipe("ant-go-to-target-ladder"), 0.1)
    near, middle = tenth.stages
    assert (near.total_env_steps, near.log_interval, near.min_replay) == (80_000, 2560, 1280)
    assert (middle.total_env_steps, middle.log_interval, middle.min_replay) == (400_000, 10_240, 5120)
    assert tenth.total_env_steps == 500_000
