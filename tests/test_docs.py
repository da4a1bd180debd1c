"""Every page of the documentation: its commands are right, its code runs, its tables load, its links lead on.

A block is not run where `<!-- not run: REASON -->` stands above it. `<!-- after: FILE -->` gives a block of
Python the names of a file of docs/.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib
import inspect
import io
import re
import runpy
import shlex
import shutil
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mjx_hkl
from mjx_hkl.cli import main
from mjx_hkl.environments import load_environment
from mjx_hkl.environments.foreign import is_foreign
from mjx_hkl.environments.scene import Marks
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agents import agent_folder
from mjx_hkl.experiments.recipe import Recipe, load_recipe, load_variants

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "example"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"sh", "toml", "python", "xml", "text"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


class Block(NamedTuple):
    line: int
    language: str
    text: str
    notes: dict[str, str]


@functools.cache
def blocks(page):
    """The fenced blocks of a page, each with what comments above it say."""
    found, notes, fence = [], {}, None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence:
            if line.strip() == "```":
                found.append(Block(fence[0], fence[1], textwrap.dedent("\n".join(fence[2])) + "\n", notes))
                notes, fence = {}, None
            else:
                fence[2].append(line)
        elif match := re.match(r"\s*```(.*)$", line):
            fence = (number + 1, match[1].strip(), [])
        elif match := re.match(r"<!-- (not run|after): (.+) -->$", line):
            notes[match[1]] = match[2]
        elif line.strip():
            notes = {}
    return found


def pages_with(*languages):
    having = [page for page in PAGES if any(block.language in languages for block in blocks(page))]
    return pytest.mark.parametrize("page", having, ids=lambda page: str(page.relative_to(ROOT)))


every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def told(page, problems):
    """What an assertion shows: one line for each problem, with page and line."""
    name = page.relative_to(ROOT)
    return "\n".join(["", *(f"{name}:{line}: {problem}" for line, problem in problems)])


@every_page
def test_blocks_say_their_language(page):
    wrong = [(block.line, block.language) for block in blocks(page) if block.language not in LANGUAGES]
    assert not wrong, told(page, wrong)


# Commands


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
WORDS |= {"RUN": "runs/mine", "FOLDER": "runs/mine"}


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
    parser = argparse.ArgumentParser
    monkeypatch.setattr(parser, "parse_args", stopping(parser.parse_args))
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
    if "recipe" in told:
        variants = load_variants(told["recipe"])
        assert set(told["only"]) <= {*variants, "ar1"}, told["only"]
    agents = [told.get("agent")] if not isinstance(command, Recipe) else command.transfer.agents
    for agent in filter(None, agents):
        if agent.startswith("random:"):
            names.append(agent.removeprefix("random:"))
        elif not agent.startswith(("runs/", ":")):
            agent_folder(agent)
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
    return "" if program == "git" else f"nobody checks {program}"


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


# Files


NAMED = re.compile(r"(?:#|<!--) (\S+\.(?:toml|py|xml))\b")


@pytest.fixture
def folder(page, tmp_path, monkeypatch):
    """A working folder with the example's files and those that the page shows by name."""
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    for block in blocks(page):
        if name := NAMED.match(block.text):
            (tmp_path / name[1]).write_text(block.text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load_table(text):
    """Loads a block of TOML as what it is; a part of a file on top of one that is there."""
    table = tomllib.loads(text)
    of_recipe = {*(field.name for field in dataclasses.fields(Recipe)), "extends", "variants"}
    is_recipe = table.keys() <= of_recipe
    whole = {"extends", "environment"} if is_recipe else {"extends", "body", "kind"}
    if not whole & table.keys():
        text = f'extends = "{"ball-go-to-target" if is_recipe else "ant-go-to-target"}"\n{text}'
    Path("block.toml").write_text(text)
    load_variants("block.toml") if is_recipe else load_environment("block.toml")


@pages_with("toml")
def test_tables_load(page, folder):
    wrong = []
    for block in blocks(page):
        if block.language == "toml" and "not run" not in block.notes:
            try:
                load_table(block.text)
            except (UserError, tomllib.TOMLDecodeError) as error:
                wrong.append((block.line, error))
    assert not wrong, told(page, wrong)


# Programs


def shortened(train):
    """Training of a few updates, for programs that show how it is called."""

    def train_shortly(recipe, *args, **kwargs):
        short = {"total_env_steps": 2560, "log_interval": 1280, "evaluation_episodes": 16}
        result = train(mjx_hkl.change(recipe, **short, min_replay=0), *args, **kwargs)
        assert result.finished
        return result

    return train_shortly


def only_called(function):
    """Checks that the arguments are ones that the function has."""

    def call(*args, **kwargs):
        inspect.signature(function).bind(*args, **kwargs)

    return call


@pages_with("python")
def test_programs_run(page, folder, monkeypatch):
    from brax.training.agents.ppo import train as ppo

    monkeypatch.setattr(mjx_hkl, "train", shortened(mjx_hkl.train), raising=False)
    monkeypatch.setattr(ppo, "train", only_called(ppo.train))
    monkeypatch.setattr(jax, "device_put_replicated", None, raising=False)  # undone, where a block sets it
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python" and "not run" not in block.notes:
            if "after" in block.notes:
                names |= runpy.run_path(str(ROOT / "docs" / block.notes["after"]), run_name="page")
            text = block.text.replace("/absolute/path/to/export", str(ROOT / "checkpoints/ball-to-ant"))
            exec(compile("\n" * (block.line - 1) + text, str(page), "exec"), names)


def test_methods_of_a_task_do_what_the_page_says():
    """Those of docs/your-own-world.md, for two beacons in a batch of one."""
    names = {"jax": jax, "jnp": jnp, "Marks": Marks}
    for block in blocks(ROOT / "docs/your-own-world.md"):
        if re.match(r"def (marks|symmetry|relabel)", block.text):
            exec(block.text, names)
    near, far = [0.1, 0.2], [3.0, 0.0]
    marks = names["marks"](None, jnp.array(near), None)
    assert (marks.position.shape, marks.radius.shape, marks.selected.shape) == ((1, 3), (1,), (1,))
    np.testing.assert_allclose(marks.position[0], [*near, 0.01])
    seen = {"beacons": jnp.array([near + far]), "instruction": jnp.array([[1.0, 0.0]])}
    for seed in range(6):
        key = jax.random.key(seed)
        other = names["symmetry"](None, key, seen)
        asked = other["beacons"].reshape(2, 2)[int(other["instruction"].argmax())]
        np.testing.assert_allclose(asked, near)
        told, reward, success = names["relabel"](None, key, seen)
        assert success[0] == told["instruction"][0, 0]  # only the near beacon is reached
        assert reward[0] == 60 * success[0]


# Links


def slug(heading):
    """GitHub's anchor of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@functools.cache
def anchors(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@every_page
def test_links_lead_somewhere(page):
    wrong = []
    inside = {line for x in blocks(page) for line in range(x.line, x.line + x.text.count("\n"))}
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        for link in re.findall(r"\]\(([^()\s]+)\)", line) if number not in inside else ():
            place, _, anchor = link.partition("#")
            target = (page.parent / place).resolve() if place else page
            if re.match(r"\w+:", link):
                continue
            if not target.exists() or (anchor and anchor not in anchors(target)):
                wrong.append((number, link))
    assert not wrong, told(page, wrong)
