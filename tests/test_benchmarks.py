"""The scripts under benchmarks/, as far as they go in no time."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_accelerators_script_names_what_no_time_was_left_for(tmp_path):
    done = run("accelerator.py", str(tmp_path), "--quick", "--minutes", "0")
    assert done.returncode == 0, done.stderr
    for task in ("tests", "env ball 128", "train quadruped 64 mjx", "training", "memory", "seeds ball 2"):
        assert task in done.stdout
    assert (tmp_path / "throughput.png").stat().st_size > 1000


def test_the_accelerators_script_tries_again_what_failed_and_keeps_the_rest(tmp_path):
    (tmp_path / "results.json").write_text('{"memory": {"error": "no"}, "startup": {"last_lines": []}}')
    left = run("accelerator.py", str(tmp_path), "--quick", "--minutes", "0").stdout
    assert "memory" in left.split("no time left for")[1]
    assert "startup" not in left.split("no time left for")[1]


@pytest.mark.parametrize("script", ["memory.py", "startup.py", "peers.py"])
def test_a_mistake_is_told_in_one_line(script):
    done = run(script, "ball-go-to-tarmac")
    assert done.returncode == 2
    assert "did you mean ball-go-to-target" in done.stderr
    assert "Traceback" not in done.stderr
