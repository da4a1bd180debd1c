"""Every command on every page of the documentation is one that its program takes; some are run."""

import argparse
import contextlib
import functools
import importlib
import io
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from pages import PAGES, ROOT, blocks, told

from mjx_hkl import resources
from mjx_hkl.cli import main
from mjx_hkl.environments import load_environment
from mjx_hkl.environments.foreign import is_foreign
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agent_format import abstract_agent, read_agent
from mjx_hkl.experiments.agents import agent_folder
from mjx_hkl.experiments.build import resolve, world_of
from mjx_hkl.experiments.recipe import Recipe, load_recipe, load_variants
from mjx_hkl.experiments.transfer import require_fits
from mjx_hkl.experiments.world_specs import WorldSpecs

pytestmark = pytest.mark.pages

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@functools.cache
def commands(page):
    """Shell commands with their lines: of blocks, and of code inside text that begins as one of ours does."""
    found = []
    for block in blocks(page):
        if block.language == "sh" and "not run" not in block.notes:
            joined = block.text.replace("\\\n", "  ")
            found += [(block.line, line) for line in joined.splitlines() if line.split("#")[0].strip()]
    inside = {line for x in blocks(page) for line in range(x.line, x.line + x.text.count("\n"))}
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if number not in inside:
            spans = re.findall(r"`((?:[A-Z_]+=\S+ )*(?:mjx-hkl|make|pip|python) [^`]+)`", line)
            found += [(number, span.replace(r"\|", "|")) for span in spans]
    return found


PLACEHOLDERS = {
    "BODY-": "ball-",
    "brax:NAME argument=VALUE": "brax:reacher backend=spring",
    "random:NAME": "random:ball-go-to-target",
    "random:ENVIRONMENT": "random:ball-go-to-target",
    "RUN...": "runs/mine",
    "mine.toml": "docs/example/puck.toml",
    "--any.field VALUE": "",
    "train ... ": "train ball-go-to-target ",
}
WORDS = {
    "N": "1",
    "F": "0.5",
    "E": "mjx",
    "DEVICE": "h100",
    "RECIPE": "ball-go-to-target",
    "NAME": "ball-go-to-target",
}
WORDS |= {
    "AGENT": "ball-to-ant",
    "AGENT_OR_RUN": "ball-to-ant",
    "VARIANT": "ar1",
    "DIR": "folder",
    "OUT": "out",
}
WORDS |= {"RUN": "runs/mine", "FOLDER": "runs/mine", "FIGURE": "figure-3-left"}


def filled(command):
    """A command as it may be typed: `[--episodes N]` is `--episodes 1`, the first of `[a|b]` is a."""
    command = re.sub(r"\[(\w+)(\|\w+)+\]", r"\1", command)
    command = re.sub(r"\[(--[^\]]*|[A-Z]+)\]", r"\1", command)
    for given, meant in PLACEHOLDERS.items():
        command = command.replace(given, meant)
    command = re.sub(r"(?<=\w) \.\.\.", "", command)
    command = re.sub(r"(?<![\w./-])[A-Z_]+(?![\w=/])", lambda word: WORDS.get(word[0], word[0]), command)
    words = shlex.split(command, comments=True)
    return [re.sub(r"^(random:)?(?=[\w-]+\.toml$)", r"\1docs/example/", word) for word in words]


class Parsed(BaseException):
    """Ends a command where its arguments are known to be right, with these."""


def stopping(parse):
    def parse_and_stop(*args, **kwargs):
        raise Parsed(parse(*args, **kwargs))

    return parse_and_stop


@pytest.fixture
def stopped(monkeypatch):
    """Commands, and scripts that use argparse, end once their arguments are parsed."""
    for name in main.COMMANDS:
        module = importlib.import_module(f"mjx_hkl.cli.{name.replace('-', '_')}")
        if hasattr(module, "parse"):
            monkeypatch.setattr(module, "parse", stopping(module.parse))
        else:  # a command without arguments
            monkeypatch.setattr(module, "main", stopping(lambda arguments: argparse.Namespace()))
    parser, parse_known = argparse.ArgumentParser, argparse.ArgumentParser.parse_known_args

    def parse(self, *args, **kwargs):  # as argparse's own, which asks parse_known_args
        found, unknown = parse_known(self, *args, **kwargs)
        return self.error(f"unrecognized arguments: {' '.join(unknown)}") if unknown else found

    monkeypatch.setattr(parser, "parse_args", stopping(parse))
    monkeypatch.setattr(parser, "parse_known_args", stopping(parse_known))
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return monkeypatch


def known(command):
    """Looks up what a parsed command names: recipes, environments, agents."""
    told = vars(command)
    names = list(command.environments) if isinstance(command, Recipe) else [told.get("environment")]
    if told.get("what") == "env":
        names.append(told["name"])
    elif told.get("what") in ("train", "compile"):
        load_recipe(told["name"])
    if "recipe" in told and told["recipe"] != "claims":
        variants = load_variants(told["recipe"])
        assert set(told["only"]) <= {*variants, "ar1"}, told["only"]
    agents = [told.get("agent")] if not isinstance(command, Recipe) else command.transfer.agents
    for agent in filter(None, agents):
        if agent.startswith("random:"):
            names.append(agent.removeprefix("random:"))
        elif not agent.startswith(("runs/", "carried/", ":")):
            agent_folder(agent)
    if isinstance(command, Recipe) and set(command.transfer.agents) & set(resources.names("checkpoints", "")):
        recipe = resolve(command)
        here = abstract_agent(recipe, WorldSpecs.of(world_of(recipe)))
        require_fits(here, {agent: read_agent(agent_folder(agent)) for agent in command.transfer.agents})
    for name in filter(None, names):
        if not is_foreign(name):
            load_environment(name)
    for run in told.get("runs", ()):
        assert run.startswith("runs/") or Path(run).is_dir(), f"no folder {run}"


def problem_of_ours(words):
    """What is wrong with a command line of ours; nothing where it is right."""
    if len(words) == 2 or words[1:] == ["bench", "env"]:  # the command's name in a sentence
        return "" if words[1] in main.COMMANDS else f"no command {words[1]}"
    if words[1] == "train" and words[2].startswith("runs/"):
        words[2] = "ball-go-to-target"  # the run that the reader has
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            main.run(words[1:])
    except Parsed as parsed:
        try:
            known(parsed.args[0])
        except (UserError, AssertionError) as error:
            return str(error)
        return ""
    except SystemExit as stop:
        return f"exit code {stop.code}" if stop.code else ""
    return errors.getvalue().strip()


def problem_of_script(words, monkeypatch):
    if not Path(words[0]).is_file():
        return f"{words[0]} does not exist"
    monkeypatch.setattr(sys, "argv", words)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            runpy.run_path(words[0], run_name="__main__")
    except Parsed:
        return ""
    except SystemExit:
        return errors.getvalue().strip().rpartition("\n")[2]
    return f"{words[0]} does not use argparse"


def problem_of_make(words):
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wrong = [word for word in words if "=" not in word and word not in targets]
    for word in words:
        if word.startswith("RECIPE="):
            load_variants(word.removeprefix("RECIPE="))
    return f"no target {', '.join(wrong)}" if wrong else ""


def problem_of_pip(words):
    extras = re.findall(r"(?:\.|mjx-hkl)\[(.*?)\]", " ".join(words))
    wrong = {extra for given in extras for extra in given.split(",")} - {*PROJECT["optional-dependencies"]}
    return f"no extra {', '.join(wrong)}" if wrong else ""


def problem(command, monkeypatch):
    words = filled(command)
    while "=" in words[0] or words[0] == "srun":
        words = words[1:]
    program, *rest = words
    if program == "mjx-hkl":
        return problem_of_ours(words)
    if program == "python" and rest[0].endswith(".py"):
        return problem_of_script(rest, monkeypatch)
    if program == "make":
        return problem_of_make(rest)
    if program == "pip":
        return problem_of_pip(rest)
    return "" if program in ("git", "jupyter") else f"nobody checks {program}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_are_right(page, stopped):
    found = [(line, command, problem(command, stopped)) for line, command in commands(page)]
    wrong = [(line, f"{command}: {what}") for line, command, what in found if what]
    assert not wrong, told(page, wrong)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("mjx-hkl trian ball-go-to-target", "unknown command 'trian'"),
        ("mjx-hkl train ball-go-to-taget", "did you mean ball-go-to-target"),
        ("mjx-hkl train RECIPE [--num-worlds N]", "num-worlds"),
        ("mjx-hkl train mine.toml --transfer.agent bal --transfer.frozen critic", "unknown agent 'bal'"),
        ("mjx-hkl train mine.toml --environment bal", "unknown environment 'bal'"),
        ("mjx-hkl evaluate random:anvil", "unknown environment 'anvil'"),
        ("mjx-hkl bench env anvil", "unknown environment 'anvil'"),
        ("mjx-hkl plot docs/nothing", "no folder docs/nothing"),
        ("mjx-hkl paint", "no command paint"),
        ("make tests", "no target tests"),
        ("pip install 'mjx-hkl[cuba]'", "no extra cuba"),
        ("python benchmarks/faults.py --quickly", "unrecognized arguments: --quickly"),
        ("python benchmarks/nothing.py", "does not exist"),
    ],
)
def test_a_wrong_command_is_found(command, says, stopped):
    assert says in problem(command, stopped)


@pytest.mark.parametrize(
    ("command", "more", "says"),
    [
        ("mjx-hkl list agents", "", "ball-to-ant"),
        ("mjx-hkl inspect ball-move-box-easy", "", "policy.high_level"),
        ("mjx-hkl evaluate ball-move-box-easy", "--episodes 1", "1 episodes, mean actions"),
    ],
)
def test_some_commands_run(command, more, says, capsys):
    on_pages = [line.split("  #")[0].strip() for page in PAGES for _, line in commands(page)]
    assert command in on_pages
    assert main.run(f"{command} {more}".split()[1:]) == 0
    assert says in capsys.readouterr().out
