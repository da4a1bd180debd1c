"""The report that training writes at its end, and the one with a video."""

import base64
import json
import re

import pytest

from mjx_hkl.analysis import report
from mjx_hkl.cli import train
from mjx_hkl.cli.main import run

SMALL = (
    "--num-envs",
    "8",
    "--total-env-steps",
    "3200",
    "--log-interval",
    "800",
    "--evaluation-episodes",
    "4",
)
SMALL += ("--algorithm.batch-size", "8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run(["train", "grid-1-step", *SMALL, "--out", str(out)]) == 0
    return out


def test_training_ends_with_a_report(finished):
    page = (finished / "report.html").read_text()
    assert "mean policy, 4 episodes" in page
    assert f"mjx-hkl report {finished} --out report.html" in page  # with a video
    (machine,) = json.loads((finished / "machines.json").read_text())
    assert machine["device"] in page
    assert f"jax {machine['versions']['jax']}" in page


def test_a_report_shows_the_agent(finished, tmp_path, capsys):
    out = tmp_path / "report.html"
    assert run(["report", str(finished), "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: grid-1-step, ")
    page = out.read_text()
    (video,) = re.findall(r'<video [^>]*src="data:video/mp4;base64,([^"]*)"', page)
    assert base64.b64decode(video)[4:8] == b"ftyp"
    (poster,) = re.findall(r'poster="data:image/jpeg;base64,([^"]*)"', page)
    assert base64.b64decode(poster).startswith(b"\xff\xd8")


def test_a_run_does_not_fail_with_its_report(finished, monkeypatch):
    said = []
    monkeypatch.setattr(report, "write_report", lambda *_, **__: 1 / 0)
    train._report(finished, said.append)
    assert said == ["no report: division by zero"]
    monkeypatch.setattr(report, "is_possible", lambda: False)
    train._report(finished, said.append)
    assert len(said) == 1
