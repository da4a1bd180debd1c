"""`mjx-hkl completion SHELL`."""

import dataclasses
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, get_args

import tyro

from mjx_hkl import resources
from mjx_hkl.cli.arguments import parse
from mjx_hkl.errors import unknown_name

_NAMES = {
    "train": ("train",),
    "reproduce": ("train",),
    "bench": ("train", "envs"),
    "evaluate": ("checkpoints",),
    "render": ("checkpoints",),
    "inspect": ("checkpoints",),
    "watch": ("checkpoints",),
    "export": ("checkpoints",),
    "plot-kl-field": ("checkpoints",),
}
"""What each command takes the names of, by the folder that holds them."""
_WORDS = {"list": ("envs", "recipes", "agents"), "bench": ("env", "train", "compile")}

_BASH = """_mjx_hkl() {{
  local words
  case "$COMP_CWORD:${{COMP_WORDS[1]}}" in
    1:*) words="{commands}" ;;
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _mjx_hkl mjx-hkl
"""
_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


@dataclasses.dataclass(frozen=True)
class CompletionCommand:
    """Print what makes a shell complete commands, options, and the names of recipes, environments and agents.

    bash: `eval "$(mjx-hkl completion bash)"` in ~/.bashrc; zsh: the same with zsh in ~/.zshrc; fish:
    `mjx-hkl completion fish | source` in ~/.config/fish/config.fish.
    """

    shell: Annotated[str, tyro.conf.Positional]
    """bash, zsh or fish."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(CompletionCommand, "completion", arguments)
    scripts = {"bash": _bash, "zsh": lambda words: _ZSH + _bash(words), "fish": _fish}
    if command.shell not in scripts:
        raise unknown_name("shell", command.shell, scripts)
    print(scripts[command.shell](_words()), end="")
    return 0


def _words() -> dict[str, list[str]]:
    """What may come after each command."""
    from mjx_hkl.cli.main import COMMANDS

    return {
        name: [*_WORDS.get(name, ()), *_names(_NAMES.get(name, ())), *_options(name)] for name in COMMANDS
    }


def _names(folders: Iterable[str]) -> list[str]:
    found: list[str] = []
    for folder in folders:
        in_it = resources.folder(folder)
        found += sorted(path.name if path.is_dir() else path.stem for path in in_it.glob("*") if _named(path))
    return found


def _named(path: Path) -> bool:
    return path.suffix == ".toml" or (path / "agent.json").is_file()


def _options(name: str) -> list[str]:
    module = importlib.import_module(f"mjx_hkl.cli.{name.replace('-', '_')}")
    own = [x for x in vars(module).values() if getattr(x, "__module__", "") == module.__name__]
    (cls,) = (x for x in own if isinstance(x, type) and x.__name__.endswith("Command"))
    return ["--help", *_of_fields(cls)]


def _of_fields(cls: type, prefix: str = "--") -> list[str]:
    found = []
    for field in dataclasses.fields(cls):
        marks = get_args(field.type)[1:]
        if tyro.conf.Positional in marks or tyro.conf.Suppress in marks:
            continue
        named = [mark.name for mark in marks if getattr(mark, "name", None)]
        option = prefix + (named[0] if named else field.name.replace("_", "-"))
        if field.default is True:  # what is left to say
            option = f"{prefix}no-{option.removeprefix(prefix)}"
        inner = type(field.default) if dataclasses.is_dataclass(field.default) else None
        found += _of_fields(inner, option + ".") if inner else [option]
    return found


def _bash(words: dict[str, list[str]]) -> str:
    cases = "\n".join(f'    *:{name}) words="{" ".join(after)}" ;;' for name, after in words.items())
    return _BASH.format(commands=" ".join(words), cases=cases)


def _fish(words: dict[str, list[str]]) -> str:
    lines = [f'complete -c mjx-hkl -n __fish_use_subcommand -f -a "{" ".join(words)}"']
    for name, after in words.items():
        inside = f'complete -c mjx-hkl -n "__fish_seen_subcommand_from {name}"'
        plain = " ".join(word for word in after if not word.startswith("--"))
        lines += [f'{inside} -a "{plain}"'] if plain else []
        lines += [f"{inside} -l {word.removeprefix('--')}" for word in after if word.startswith("--")]
    return "\n".join(lines) + "\n"
