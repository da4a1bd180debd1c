"""What the options of the suite leave."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NAMES = "pytest_addoption, pytest_collection_modifyitems, pytest_runtest_setup"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            [],
            {"a::one[0]", "a::one[1]", "a::two", "a::three", "b::one[0]", "b::one[1]", "b::two", "b::three"},
        ),
        (["--first-tests", "2"], {"a::one[0]", "a::two", "b::one[0]", "b::two"}),
        (
            ["--first-cases-after", "0"],
            {"a::one[0]", "a::two", "a::three", "b::one[0]", "b::two", "b::three"},
        ),
        (["--first-cases-after", "60", "--first-tests", "1"], {"a::one[0]", "b::one[0]"}),
    ],
)
def test_a_part_of_the_suite_is_its_first_tests_and_cases(options, expected, tmp_path):
    (tmp_path / "conftest.py").write_text(f"from selection import {NAMES}\n")
    tests = "import pytest\n\n@pytest.mark.parametrize('case', [0, 1])\ndef test_one(case):\n    pass\n"
    tests += "\ndef test_two():\n    pass\n\ndef test_three():\n    pass\n"
    for name in ("test_a.py", "test_b.py"):
        (tmp_path / name).write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rp", *options]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("PASSED ")]
    found = [line.split()[1].replace(".py::test_", "::").removeprefix("test_") for line in lines]
    assert sorted(found) == sorted(expected)
