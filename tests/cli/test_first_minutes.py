"""What a person meets first: help, completion of the shell, and what the machine has."""

import importlib.metadata
import json
import subprocess
import sys

import pytest

from mjx_hkl.cli.main import COMMANDS, run
from mjx_hkl.config import to_table


def told(capsys, *arguments):
    with pytest.raises(SystemExit):
        run([*arguments])
    return capsys.readouterr().out


def test_help_of_train_fits_a_screen_and_the_rest_is_behind_help_all(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    short = told(capsys, "train", "ball-go-to-target", "--help")
    assert len(short.splitlines()) < 60
    assert "--num-envs" in short
    assert "--algorithm" not in short
    assert "--help-all lists every field" in short
    whole = told(capsys, "train", "ball-go-to-target", "--help-all")
    assert "--algorithm.batch-size" in whole
    assert "--num-envs" in whole


def test_what_a_command_is_given_has_a_name(capsys):
    assert "AGENT" in told(capsys, "evaluate", "--help")
    assert "RUNS" in told(capsys, "plot", "--help")
    assert run(["evaluate"]) == 2
    error = capsys.readouterr().err
    assert "AGENT" in error
    assert "STR" not in error


def completed(script, *words):
    """What bash would complete the last word to."""
    ask = f'{script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mjx_hkl; printf "%s\n" "${{COMPREPLY[@]}}"'
    found = subprocess.run(["bash", "-c", ask, "bash", *words], capture_output=True, text=True, check=True)
    return found.stdout.split()


def test_bash_completes_commands_options_and_names(capsys):
    assert run(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completed(script, "mjx-hkl", "eva") == ["evaluate"]
    assert completed(script, "mjx-hkl", "train", "grid-1") == ["grid-1-step"]
    assert completed(script, "mjx-hkl", "train", "grid-1-step", "--algorithm.batch") == [
        "--algorithm.batch-size"
    ]
    assert "--num-envs" in completed(script, "mjx-hkl", "train", "x", "--num")  # None by default
    assert completed(script, "mjx-hkl", "bench", "compile", "x", "--for") == ["--for"]
    for command in ("evaluate", "watch", "export", "plot-kl-field"):
        assert "ball-move-box-easy" in completed(script, "mjx-hkl", command, "ball-move")
    assert completed(script, "mjx-hkl", "train", "x", "--no-rep") == ["--no-report"]  # true by default
    assert set(completed(script, "mjx-hkl", "")) == set(COMMANDS)


def test_other_shells_have_scripts_and_others_have_not(capsys):
    assert run(["completion", "zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out
    assert run(["completion", "fish"]) == 0
    assert (
        'complete -c mjx-hkl -n "__fish_seen_subcommand_from evaluate" -l episodes' in capsys.readouterr().out
    )
    assert run(["completion", "powershell"]) == 2
    assert "unknown shell 'powershell'; known: bash, fish, zsh" in capsys.readouterr().err


def test_the_doctor_says_what_there_is(capsys):
    run(["doctor", "--json"])
    findings = {x["what"]: x for x in json.loads(capsys.readouterr().out)["findings"]}
    assert f"mujoco {importlib.metadata.version('mujoco')}" in findings["libraries"]["found"]
    assert "CPU" in findings["device"]["found"]
    assert findings["extra test"] == {
        "what": "extra test",
        "found": "installed",
        "remedy": "",
        "is_problem": False,
    }


def test_the_doctor_names_what_does_not_belong_together(monkeypatch, capsys):
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "4.0.0" if name == "mujoco" else real(name)
    )
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "! MuJoCo and MJX: mujoco 4.0.0 and mujoco-mjx" in out
    assert "pip install --upgrade 'mjx-hkl'" in out


def test_a_flat_policy_is_one_option(monkeypatch):
    given = []
    monkeypatch.setattr("mjx_hkl.cli.train._train", lambda recipe, out, command: given.append(recipe) or 0)
    assert run(["train", "ball-go-to-target", "--flat"]) == 0
    assert run(["train", "ball-go-to-target", "--flat", "--default-policy.low-level", "distral"]) == 0
    tables = [to_table(recipe)["default_policy"] for recipe in given]
    assert [recipe.policy.is_flat for recipe in given] == [True, True]
    assert [table["high_level"]["kind"] for table in tables] == ["none", "none"]
    assert [table["low_level"]["kind"] for table in tables] == ["none", "distral"]


def test_a_damaged_agent_is_listed_as_unreadable(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    (tmp_path / "checkpoints" / "mine" / "agent.json").write_text("{", encoding="utf-8")
    assert run(["list", "agents", "mine"]) == 0
    assert "unreadable: " in capsys.readouterr().out


def test_a_command_whose_reader_has_gone_ends_well():
    """As with `| head`; what is printed fits into the pipe, so that Python finds out at its end."""
    code = "from mjx_hkl.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "completion", "bash"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, error = process.communicate()
    assert (process.returncode, error) == (0, b"")
