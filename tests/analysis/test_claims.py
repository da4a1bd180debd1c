"""The paper's claims: verdicts that follow from runs of known numbers, and the page that is committed."""

import json
from pathlib import Path

import pytest

from mjx_hkl.analysis import claims
from mjx_hkl.cli.main import run
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.recipe import load_recipe, recipe_to_toml

RESULTS = Path(__file__).parents[2] / "docs" / "results"
CLAIM = """
[[claims]]
says = "a is ahead of b"
paper = "figure 1"
there = "ahead"
ahead = "a"
behind = "b"
rung = "a world"
command = "mjx-hkl reproduce figure-1"
"""


def write(folder, values, kl=1.0):
    """A run of as many seeds, each with this success in both of two log intervals."""
    folder.mkdir()
    recipe = load_recipe("grid-1-step")
    (folder / "recipe.toml").write_text(recipe_to_toml(recipe))
    rows = [
        {
            "seed": seed,
            "environment_steps": steps,
            "learner_steps": steps,
            "seconds": steps / 10,
            "episodes": 8,
        }
        | {"success_rate": value, "kl_high": kl, "kl_low": 0.0}
        for steps in (100, 200)
        for seed, value in enumerate(values)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def tested(tmp_path):
    def of(ahead, behind, text=CLAIM):
        for name, values in (("a", ahead), ("b", behind)):
            write(tmp_path / name, values)
        path = tmp_path / "claims.toml"
        path.write_text(f'about = "# Claims"\n{text}')
        return claims.tested_claims(path)

    return of


def test_three_seeds_that_are_all_ahead_agree(tested):
    about, (one,) = tested([0.9, 0.8, 0.7], [0.1, 0.2, 0.3])
    assert one.verdict == claims.AGREES
    assert one.probability == 1.0
    assert one.p == pytest.approx(0.1)  # 2 of the 20 orders of three and three
    text = claims.page(about, [one])
    assert "`a`: 80.0% (70.0% to 90.0%)" in text
    assert "Verdicts of 1 claims: agrees 1, disagrees 0, not told apart 0." in text


def test_the_other_order_disagrees_and_a_mixed_one_is_not_told_apart(tested, tmp_path):
    _, (one,) = tested([0.1, 0.2, 0.3], [0.9, 0.8, 0.7])
    assert one.verdict == claims.DISAGREES


def test_an_order_that_chance_makes_is_not_told_apart(tested):
    _, (one,) = tested([0.5, 0.2, 0.9], [0.4, 0.6, 0.1])
    assert one.verdict == claims.OPEN


def test_the_same_numbers_are_not_told_apart(tested):
    _, (one,) = tested([1.0, 1.0], [1.0, 1.0])
    assert (one.verdict, one.probability, one.p) == (claims.OPEN, 0.5, 1.0)


def test_less_kl_is_ahead(tmp_path):
    write(tmp_path / "a", [0.1, 0.2, 0.3], kl=1.0)
    write(tmp_path / "b", [0.7, 0.8, 0.9], kl=2.0)
    path = tmp_path / "claims.toml"
    path.write_text(f'about = "# Claims"\n{CLAIM}measure = "kl"')
    _, (one,) = claims.tested_claims(path)
    assert (one.verdict, one.ahead, one.behind) == (claims.AGREES, [1.0] * 3, [2.0] * 3)


def test_a_seed_that_diverged_succeeds_no_more(tested, tmp_path):
    """Of three, one diverged after half of the steps: half of its success is left."""
    write(tmp_path / "c", [0.8, 0.8, 0.8])
    file = tmp_path / "c" / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[3:] = [rows[3] | {"success_rate": None, "episodes": 0, "diverged": True}, *rows[4:]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, (one,) = tested([0.1] * 3, [0.1] * 3, CLAIM.replace('"a"', '"c"'))
    assert sorted(one.ahead) == pytest.approx([0.4, 0.8, 0.8])


def test_fewer_steps_are_ahead(tested):
    _, (one,) = tested([0.9, 0.8, 0.7], [0.1, 0.2, 0.3], CLAIM + 'measure = "steps_to_50%"')
    assert one.verdict == claims.AGREES
    assert one.ahead == [100.0, 100.0, 100.0]
    assert "never (never to never)" in claims.page("", [one])


def test_a_mistake_in_the_file_is_told(tested, tmp_path):
    with pytest.raises(UserError, match=r"claims.0.ahead: field required"):
        tested([0.5], [0.5], CLAIM.replace("ahead =", "aheadd ="))
    with pytest.raises(UserError, match=r"none.toml cannot be read"):
        claims.tested_claims(tmp_path / "none.toml")


def test_the_committed_page_is_what_its_runs_say(tmp_path):
    assert run(["reproduce", "claims", "--out", str(tmp_path / "claims.md")]) == 0
    assert (tmp_path / "claims.md").read_text() == (RESULTS / "claims.md").read_text()


def test_options_of_a_training_are_refused(tmp_path, capsys):
    assert run(["reproduce", "claims", "--scale", "2", "--out", str(tmp_path / "claims.md")]) == 2
    assert capsys.readouterr().err == (
        "error: reproduce claims trains nothing: of the options it takes --out alone\n"
    )
    assert not list(tmp_path.iterdir())
