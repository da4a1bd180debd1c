"""A test that fails is told at once; one that dies, or never ends, ends the run with its name."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    "death", ["os.abort()", f"os.kill(os.getpid(), {signal.SIGKILL:d})", "threading.Event().wait()"]
)
def test_a_dead_test_process_fails_the_run_within_a_minute(death, tmp_path):
    (tmp_path / "conftest.py").write_text("from crashes import pytest_testnodedown\n")
    (tmp_path / "test_a.py").write_text(f"import os, threading\n\ndef test_dies():\n    {death}\n")
    lasts = "@pytest.mark.timeout(300)\ndef test_lasts():\n    time.sleep(300)\n"
    (tmp_path / "test_b.py").write_text(f"import time\nimport pytest\n\n{lasts}")
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider"]
    command += ["--timeout", "5", "--timeout-method", "thread"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}

    start = time.perf_counter()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    assert done.returncode == 1
    assert "a test process died in test_a.py::test_dies" in done.stdout
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize("processes", [["-n", "2"], []])
def test_a_failure_is_told_before_the_run_ends(processes, tmp_path):
    (tmp_path / "conftest.py").write_text("from crashes import pytest_runtest_logreport\n")
    (tmp_path / "test_a.py").write_text("def test_fails():\n    raise ValueError('this')\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--no-summary",
        "--tb=no",
        *processes,
    ]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    environment.pop("PYTEST_XDIST_WORKER", None)

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    assert done.stdout.count("\ntest_a.py::test_fails, call: ValueError: this\n") == 1
