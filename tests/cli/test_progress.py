"""Progress as people see it: on terminals of several widths, in a file, in a notebook."""

import io
import re

import nbformat
import pytest
from nbclient import NotebookClient
from rich.console import Console

import mjx_hkl
from mjx_hkl.cli import progress

TOTAL = 12_000_000


def row(done, **more):
    return {
        "environment_steps": done,
        "environment_steps_per_second": 123_456.0,
        "success_rate": 0.875,
        "episode_return": -123.4,
        "kl_high": 10.0,
        "kl_low": 2.34,
        **more,
    }


def last_frame(width, *rows):
    """The lines that a bar leaves on a terminal of that width."""
    file = io.StringIO()
    console = Console(width=width, file=file, force_terminal=True, force_interactive=True)
    display = mjx_hkl.Display(console)
    with display.training(0, TOTAL, can_succeed=True):
        for given in rows:
            display.interval([given])
    frame = file.getvalue().rpartition("\r")[2]  # drawn over the one before
    return [line.rstrip() for line in re.sub(r"\x1b\[[?\d;]*\w", "", frame).splitlines()]


TIME = r"\d:\d\d:\d\d ETA [\d:]+$"
DETAILS = "4,000,000 steps  123,456/s  success 87.5%  return -123.4  kl 12.34"


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_width_loses_the_time_or_a_number(width):
    lines = last_frame(width, row(TOTAL // 6), row(TOTAL // 3))
    assert max(len(line) for line in lines) <= width
    assert re.search(rf"33%.* {TIME}", lines[0]), lines
    assert DETAILS.split("  ") == re.findall(
        r"4,\S+ steps|\S+/s|success \S+|return \S+|kl \S+", " ".join(lines)
    )
    assert len(lines) == {60: 3, 80: 2, 100: 2, 120: 1}[width]


def test_at_120_columns_everything_stands_in_one_line():
    (line,) = last_frame(120, row(TOTAL // 6), row(TOTAL // 3))
    assert re.search(rf"━ +33% {re.escape(DETAILS)} {TIME}", line), line


def test_an_evaluation_has_room_at_80_columns():
    lines = last_frame(80, row(TOTAL // 3, evaluation_success_rate=0.905))
    assert re.search(TIME.replace("[\\d:]+", "[-\\d:]+"), lines[0])
    assert "mean policy 90.5%" in " ".join(lines)


@pytest.fixture
def log(monkeypatch):
    """A display that writes to a file, and a clock that the test moves."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    file = io.StringIO()
    return mjx_hkl.Display(Console(file=file, width=200)), file, clock


def test_a_file_gets_a_line_for_each_interval_of_a_short_run(log):
    display, file, _ = log
    with display.training(0, 100, can_succeed=False):
        for done in range(20, 101, 20):
            display.interval([row(done)])
    lines = file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["20%", "40%", "60%", "80%", "100%"]
    assert lines[-1] == "100%  100 steps  123,456/s  return -123.4  kl 12.34  ETA 0 s"


def test_a_long_run_has_a_line_for_each_percent_and_each_minute(log):
    display, file, clock = log
    with display.training(0, 1_000_000, can_succeed=True):
        for done in range(10, 1_000_001, 10):
            clock[0] += 0.001  # 100 s in all
            display.interval([row(done)])
    lines = file.getvalue().splitlines()
    assert 100 <= len(lines) <= 102
    assert lines[-1].startswith("100%")
    file.truncate(0)
    with display.training(0, 1_000_000, can_succeed=True):
        for done in range(10, 1001, 10):
            clock[0] += 6.0  # ten minutes
            display.interval([row(done)])
        display.interval([row(1010, evaluation_success_rate=0.5)])
    lines = file.getvalue().splitlines()
    assert len(lines) == 1 + 9 + 1  # the first, one a minute, the evaluation
    assert "mean policy 50.0%" in lines[-1]


CELL = """
import mjx_hkl
display = mjx_hkl.Display()
display.say("what will run")
with display.training(0, 1000, can_succeed=True):
    for done in range(100, 1001, 100):
        row = dict(environment_steps=done, environment_steps_per_second=50.0, success_rate=done / 1000)
        display.interval([row])
display.say("what has come of it")
"""


def test_a_notebook_has_one_output_that_is_replaced():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=120).execute()
    before, bar, after = notebook.cells[0].outputs
    assert (before.text, after.text) == ("what will run\n", "what has come of it\n")
    assert set(bar.data) == {"text/plain"}
    text = bar.data["text/plain"]
    assert "\x1b" not in text
    assert re.match(r"━{24} 100% 1,000 steps  50/s  success 100.0%  return -  kl - 0:00:00 ETA 0:00:00", text)
