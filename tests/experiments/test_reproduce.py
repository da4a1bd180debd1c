import json
import shutil

import pytest
import tomli_w

from mjx_hkl.cli.main import run
from mjx_hkl.config import to_table


@pytest.fixture(scope="module")
def experiment(tiny_recipe, tmp_path_factory):
    """Two variants that take milliseconds, their episodes ten steps."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "short.toml").write_text('extends = "ball-go-to-target"\nepisode_length = 10')
    table = {**to_table(tiny_recipe), "num_seeds": 2, "environment": "short.toml"}
    table["variants"] = {"plain": {}, "period": {"policy": {"high_level": {"latent_period": 3}}}}
    path = folder / "pair.toml"
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    return path


def trained(out):
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/evaluation.json")}


@pytest.mark.long
def test_all_variants_are_trained_once_and_compared(experiment, tmp_path, capsys):
    out = tmp_path / "pair"
    command = ["reproduce", str(experiment), "--out", str(out)]
    assert run([*command, "--only", "period"]) == 0
    assert list(trained(out)) == ["period"]
    first = trained(out)["period"]
    (out / "plain").mkdir()  # a run that ended before its first checkpoint
    shutil.copy(out / "period" / "recipe.toml", out / "plain")
    shutil.copytree(out / "period" / "files", out / "plain" / "files")
    capsys.readouterr()
    assert run(command) == 2
    assert "holds a run of another recipe" in capsys.readouterr().err
    shutil.rmtree(out / "plain")
    assert run([*command, "--only", "plain"]) == 0
    (out / "plain" / "evaluation.json").unlink()  # as if killed while it saved
    (checkpoint,) = (out / "plain" / "checkpoints").iterdir()
    checkpoint.rename(checkpoint.with_name(f"{checkpoint.name}.orbax-checkpoint-tmp"))
    assert run(command) == 0
    assert sorted(trained(out)) == ["period", "plain"]
    assert trained(out)["period"] == first
    shown = capsys.readouterr().out
    assert "period: already there" in shown
    assert "| plain | 2 |" in shown
    assert (out / "success_rate.png").is_file()
    assert (out / "episode_return.png").is_file()  # for in so few steps nothing succeeds
    assert len((out / "plain" / "metrics.jsonl").read_text().splitlines()) == 2 * 4


def test_a_stopped_variant_goes_on(experiment, tmp_path):
    """What a stop leaves behind: a checkpoint, and no evaluation."""
    out = tmp_path / "pair"
    command = ["reproduce", str(experiment), "--out", str(out), "--only", "plain"]
    assert run(command) == 0
    whole = (out / "plain" / "metrics.jsonl").read_text()
    (out / "plain" / "evaluation.json").unlink()
    assert run(command) == 0
    assert (out / "plain" / "metrics.jsonl").read_text() == whole
    assert len(json.loads((out / "plain" / "evaluation.json").read_text())) == 2


def test_a_smaller_scale_is_another_experiment(experiment, tmp_path, capsys):
    out = tmp_path / "pair"
    command = ["reproduce", str(experiment), "--out", str(out), "--only", "plain"]
    assert run([*command, "--scale", "0.25"]) == 0
    rows = [json.loads(line) for line in (out / "plain" / "metrics.jsonl").read_text().splitlines()]
    assert [row["environment_steps"] for row in rows] == [20, 20, 40, 40]  # of two seeds
    capsys.readouterr()
    assert run(command) == 2
    assert "holds a run of another recipe: min_replay" in capsys.readouterr().err
