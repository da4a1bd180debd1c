"""The report of runs: what is in it, and what a browser makes of it."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import browser
from written_runs import RAMP, ROWS, write_run

from mjx_hkl.analysis import report
from mjx_hkl.analysis.report import write_report
from mjx_hkl.analysis.report.formats import counted
from mjx_hkl.cli.main import run
from mjx_hkl.experiments import recipe as recipes
from mjx_hkl.experiments.recipe import load_recipe, recipe_to_toml

EVIL = '</script><script>window.hacked = 1</script><img src="x" onerror="window.hacked = 2">'
REAL_RUNS = Path(__file__).parents[2] / "docs" / "results" / "ball-priors"
SCREENSHOTS = os.environ.get("MJX_HKL_SCREENSHOTS")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two variants, one of them finished, and a run whose name is code."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "ar1", "ball-go-to-target-priors:ar1", [RAMP, RAMP**2])
    write_run(folder / "svg0", "ball-go-to-target-priors:svg0", [0.5 * RAMP])
    write_run(folder / "evil", "ball-go-to-target", [np.zeros(ROWS)])
    evil = recipes.change(load_recipe("ball-go-to-target"), name=EVIL)
    (folder / "evil" / "recipe.toml").write_text(recipe_to_toml(evil), encoding="utf-8")
    evaluation = {
        "episodes": 256,
        "success_rate": 0.875,
        "episode_return": 52.25,
        "episode_return_std": 3.5,
        "episode_length": 70.0,
        "faults": 0,
        "deterministic": True,
    }
    entries = [evaluation | {"seed": seed} for seed in (0, 1)]
    (folder / "ar1" / "evaluation.json").write_text(json.dumps(entries))
    machine = {"started": "2026-01-02T03:04:05Z", "device": "Abacus", "versions": {"jax": "0.99"}}
    (folder / "ar1" / "machines.json").write_text(json.dumps([machine]))
    return folder


@pytest.fixture(scope="module")
def page(runs):
    out = runs / "report.html"
    write_report([runs], out, with_videos=False)
    return out


def drawn(page):
    """What the page's script is given."""
    (text,) = re.findall(r'id="curves">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text)


def test_a_report_has_curves_with_seeds_and_bands(page):
    found = drawn(page)
    assert found["agents"] == ["ball-go-to-target-priors:ar1", EVIL, "ball-go-to-target-priors:svg0"]
    assert [metric["id"] for metric in found["metrics"]] == ["success_rate", "kl_high", "kl_low"]
    ar1, _, svg0 = found["metrics"][0]["agents"]
    assert [seed["seed"] for seed in ar1["seeds"]] == [0, 1]
    assert svg0["bands"] == {}
    for axis, last in (("environment_steps", 2000), ("seconds", 20), ("learner_steps", 16000)):
        assert found["xs"][ar1["seeds"][0]["x"][axis]][-1] == last
        band = ar1["bands"][axis]
        assert band["x"][-1] == last
        ends = sorted(seed["y"][-1] for seed in ar1["seeds"])
        assert band["iqm"][-1] == pytest.approx(np.mean(ends), abs=1e-3)
        assert (band["low"][-1], band["high"][-1]) == pytest.approx(ends, abs=1e-3)


def test_a_report_has_tables_recipes_and_commands(page, runs):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.read_text().partition("<script")[0]))
    assert "ball-go-to-target-priors:svg0 1 43.0% - 2.00 never never never" in text  # running means
    assert "ball-go-to-target-priors:ar1 1 87.5% 52.2 ± 3.5 70 256" in text
    assert "policy.high_level.kind" in text
    assert 'kind = "ar1"' in text
    assert "Abacus jax 0.99" in text
    assert f"mjx-hkl train {runs / 'svg0' / 'recipe.toml'} --out again/svg0" in text
    assert "None in this report" in text


def test_text_of_others_is_never_markup(page):
    assert "window.hacked" in page.read_text()
    assert "<img" not in page.read_text()
    assert "<script>" not in page.read_text()


def test_a_world_without_success_is_told_by_its_return(tmp_path):
    write_run(tmp_path / "run", "ball-go-to-target", [np.zeros(ROWS)])
    file = tmp_path / "run" / "metrics.jsonl"
    rows = [json.loads(line) | {"episode_return": 7.25} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = {
        "episodes": 4,
        "success_rate": 0.0,
        "episode_return": 9.5,
        "episode_return_std": 0.0,
        "episode_length": 70.0,
        "faults": 0,
        "deterministic": True,
        "seed": 0,
        "can_succeed": False,
    }
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps([evaluation]))
    (agent,) = write_report([tmp_path / "run"], tmp_path / "report.html", with_videos=False)
    assert (agent.metric, agent.told_end) == ("episode_return", "7.2")
    assert "to 80%" not in (tmp_path / "report.html").read_text().partition("<script")[0]


def test_an_unfinished_run_that_never_succeeded_is_told_by_its_return(tmp_path):
    write_run(tmp_path / "run", "ball-go-to-target", [np.zeros(ROWS)])
    file = tmp_path / "run" / "metrics.jsonl"
    rows = [json.loads(line) | {"episode_return": 7.25} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (agent,) = write_report([tmp_path / "run"], tmp_path / "report.html", with_videos=False)
    assert agent.metric == "episode_return"


@pytest.mark.parametrize(
    ("x", "told"), [(512, "512"), (999.6, "1 k"), (20_480, "20.5 k"), (999_936, "1 M"), (1.234e6, "1.23 M")]
)
def test_numbers_are_told_with_three_digits(x, told):
    assert counted(x) == told


def test_a_video_that_cannot_be_made_is_a_line(runs, tmp_path, capsys):
    out = tmp_path / "report.html"
    assert run(["report", str(runs / "svg0"), "--out", str(out)]) == 0
    assert "no video of ball-go-to-target-priors:svg0: " in capsys.readouterr().err
    assert "No video: " in out.read_text()


def test_a_report_of_nothing_is_one_line(runs, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    shutil.copy(runs / "svg0" / "recipe.toml", tmp_path / "begun")
    monkeypatch.chdir(tmp_path)
    mistakes = {
        ("empty",): "empty is neither a run nor a folder of runs: there is no metrics.jsonl",
        ("nowhere",): "nowhere is neither a run nor a folder of runs: there is no metrics.jsonl",
        ("begun",): "begun has no metrics yet: no log interval of it has ended",
        (str(runs), "--out", "missing/report.html"): "the folder missing does not exist",
        (str(runs), "--out", "report.pdf"): "report.pdf must end in .html",
        (): "report needs runs: mjx-hkl report RUN... --out FILE.html",
    }
    for arguments, expected in mistakes.items():
        assert run(["report", *arguments, *(["--no-video"] if arguments else [])]) == 2
        assert capsys.readouterr().err == f"error: {expected}\n"
    monkeypatch.setattr(report, "is_possible", lambda: False)
    assert run(["report", str(runs), "--no-video"]) == 2
    assert capsys.readouterr().err == "error: a report needs plotly: pip install 'mjx-hkl[report]'\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "empty"]


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def opened(chromium, page):
    """The page once it is drawn, and a list of all that goes wrong or leaves it."""
    view, wrong = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light"), []
    view.on("console", lambda message: wrong.append(message.text))
    view.on("pageerror", lambda error: wrong.append(str(error)))
    view.on("request", lambda request: wrong.append(request.url))
    view.goto(page.as_uri())
    view.wait_for_selector("#chart[data-drawn] .scatterlayer .trace")
    assert wrong.pop(0) == page.as_uri()
    return view, wrong


def test_a_browser_draws_the_curves_and_asks_nobody(opened):
    view, wrong = opened
    traces = view.locator("#chart .scatterlayer .trace")
    assert traces.count() == 5 + 1 + 1  # two edges of a band, two seeds and their mean; and two single seeds
    view.select_option("#metric", "kl_high")
    assert view.evaluate("document.getElementById('chart').data.at(-1).y[0]") == 1.5
    view.locator("#axis label", has_text="seconds").click()
    assert view.locator("#chart .xtitle").text_content() == "seconds"
    view.locator("#legend button", has_text="ar1").click()
    assert traces.count() == 2

    box = view.locator("#chart .nsewdrag").bounding_box()
    left, middle = box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"]
    view.mouse.move(left, middle)
    view.wait_for_selector("#chart .hoverlayer .legend")
    view.mouse.down()
    view.mouse.move(left + 0.5 * box["width"], middle, steps=4)
    view.mouse.up()
    low, high = view.evaluate("document.getElementById('chart').layout.xaxis.range")
    assert 2 < low < high < 18  # of 20 seconds
    assert view.evaluate("window.hacked") is None
    assert wrong == []


def test_a_phone_shows_it_light_and_dark(opened):
    view, wrong = opened
    from playwright.sync_api import expect

    chart = view.locator("#chart .main-svg").first
    wide = chart.get_attribute("width")
    view.set_viewport_size({"width": 390, "height": 800})
    expect(chart).not_to_have_attribute("width", wide)
    for scheme, is_fit in (("light", lambda red: red > 200), ("dark", lambda red: red < 50)):
        view.emulate_media(color_scheme=scheme)
        assert view.evaluate("document.documentElement.scrollWidth") == 390
        colour = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]"
        assert is_fit(int(view.evaluate(colour)))
    assert wrong == []


@pytest.mark.skipif(not SCREENSHOTS, reason="MJX_HKL_SCREENSHOTS names no folder for the docs' pictures")
def test_the_picture_of_the_docs(chromium, tmp_path):
    out = tmp_path / "report.html"
    write_report([REAL_RUNS], out, with_videos=False)
    view = chromium.new_page(viewport={"width": 1280, "height": 1020})
    view.goto(out.as_uri())
    view.wait_for_selector("#chart[data-drawn] .scatterlayer .trace")
    view.screenshot(path=Path(str(SCREENSHOTS)) / "report.png")
    view.close()
