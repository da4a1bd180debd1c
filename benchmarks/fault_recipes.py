"""Recipes and command lines with a mistake in them, at random."""

import contextlib
import io
import random
import shutil
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fault_bench import GOOD, VALID, Bench, Case, Started, command, refused

from mjx_hkl import resources
from mjx_hkl.cli.main import run
from mjx_hkl.training.loop import Loop

_VALUES = (
    *("-1", "0", "1", "3", "1e30", "1e-300", "-0.5", "nan", "inf", "true", '""', '"x"', "[]", "[1, 2]"),
    *("{}", '[["a"]]', "99999999999999999999", '"../../etc/passwd"', '"\\u0000"', '["ant", 3]', "1979-05-27"),
)
_RECIPES = ("ball-go-to-target", "grid-4-step", "ant-go-to-target-ladder", "ball-move-box-transfer", "puck")


def recipes(bench: Bench, count: int) -> Iterator[Case]:
    """Recipes and command lines with a mistake in them, at random."""
    texts = [_text(name) for name in _RECIPES]
    options = _options()
    with unittest.mock.patch.object(Loop, "compile", side_effect=Started):
        for number in range(count):
            path, out = bench.folder / "mistaken.toml", bench.folder / "mistaken-run"
            if number % 2:
                done, text = _mistaken(bench.random, bench.random.choice(texts))
                path.write_bytes(text)
                arguments = ["train", path, "--out", out]
            else:
                done, arguments = "command line", _command_line(bench.random, options, bench.run, out)
            there = set(bench.folder.iterdir())
            try:
                answer = command(*arguments)
            except Started:  # of a ladder the run is there by then
                outcome, detail = VALID, ""
                shutil.rmtree(out, ignore_errors=True)
            else:
                outcome, detail = refused(answer, {}, out) if answer.code else (VALID, "")
            for path_left in set(bench.folder.iterdir()) - there:
                outcome, detail = ("left a file", str(path_left)) if outcome != VALID else (VALID, "")
                shutil.rmtree(path_left) if path_left.is_dir() else path_left.unlink()
            bad = outcome not in GOOD
            given = path.read_text(errors="replace") if bad and number % 2 else " ".join(map(str, arguments))
            yield Case(done, arguments[0], outcome, f"{detail} {given}" if bad else "")


def _text(name: str) -> bytes:
    if name == "puck":
        folder = Path(__file__).resolve().parents[1] / "docs" / "example"
        text = (folder / "puck.toml").read_text()
        return text.replace('"puck-keep', f'"{folder}/puck-keep').encode()
    return (resources.folder("train") / f"{name}.toml").read_bytes()


def _mistaken(rand: random.Random, text: bytes) -> tuple[str, bytes]:
    done = rand.choice(
        ("flip", "delete a line", "repeat a line", "value", "value", "value", "name", "truncate")
    )
    lines = text.splitlines()
    fields = [i for i, line in enumerate(lines) if b"=" in line and not line.startswith(b"#")]
    at = rand.choice(fields)
    name, _, value = lines[at].partition(b"=")
    if done == "flip":
        bit = rand.randrange(8 * len(text))
        changed = bytearray(text)
        changed[bit // 8] ^= 1 << bit % 8
        return done, bytes(changed)
    if done == "truncate":
        return done, text[: rand.randrange(len(text))]
    if done == "delete a line":
        del lines[at]
    elif done == "repeat a line":
        lines.insert(at, lines[at])
    elif done == "name":
        lines[at] = name.strip()[:-1] + rand.choice((b"", b"x", b".y", b" z")) + b" =" + value
    else:
        lines[at] = name + b"= " + rand.choice(_VALUES).encode()
    return done, b"\n".join(lines)


def _options() -> list[str]:
    """The options of `train`, from its help."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        run(["train", "ball-go-to-target", "--help"])
    return sorted({word for word in out.getvalue().split() if word.startswith("--") and "=" not in word})


def _command_line(rand: random.Random, options: list[str], done: Path, out: Path) -> list[Any]:
    value = rand.choice((*(x.strip('"') for x in _VALUES), str(done), "ball-go-to-target"))
    kind = rand.randrange(8)
    if kind < 4:
        return ["train", rand.choice(_RECIPES[:4]), "--out", out, rand.choice(options), value]
    if kind == 4:
        return ["train", value, "--out", out]
    if kind == 5:
        return ["train", done, "--resume", rand.choice(options), value]
    what = rand.choice(("evaluate", "inspect", "plot", "export", "render"))
    target: list[Any] = [value]
    if rand.random() < 0.5:
        target = [done / rand.choice(("tensorboard", "recipe.toml", "nothing"))]
    if what == "render":
        target.append(out.with_suffix(".mp4"))
    return [what, *target, *([] if rand.random() < 0.5 else [rand.choice(options), value])]
