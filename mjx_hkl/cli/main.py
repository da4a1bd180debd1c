"""`mjx-hkl COMMAND ...`: finds the command and turns a user's mistake into one line and exit code 2."""

import contextlib
import importlib
import sys
import traceback

from mjx_hkl import __version__
from mjx_hkl.errors import UserError, tells_no_memory, unknown_name

# Imported only when asked for: JAX, MJX and Brax take seconds to load.
COMMANDS = {
    "train": "train an agent from a recipe",
    "evaluate": "measure success and return of an agent",
    "watch": "watch an agent in a browser: choose, push, hold latents, while it trains too",
    "render": "write a video of an agent's episodes",
    "export": "write a run's agent as a folder other runs can use",
    "inspect": "say what an exported agent or a run holds",
    "bench": "measure simulation (env) or training (train), or read an accelerator's program (compile)",
    "reproduce": "train all variants of a recipe and compare them",
    "plot": "draw runs side by side and tabulate how they ended",
    "report": "write one page about runs: curves, tables, videos, recipes",
    "plot-kl-field": "draw the KL of a high level over the grid world",
    "list": "environments, recipes and exported agents at hand",
    "doctor": "say what this machine has, and how to get what is missing",
    "completion": "print what makes a shell complete commands, options and names",
}


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command line; returns its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(f"mjx-hkl {__version__}")
        return 0
    shows_traceback = "--traceback" in arguments
    name, *rest = [_dashed(argument) for argument in arguments if argument != "--traceback"]
    try:
        if name not in COMMANDS:
            raise unknown_name("command", name, COMMANDS)
        if any(option.startswith("--video-interval") for option in rest):
            _prepare_rendering()
        code = importlib.import_module(f"mjx_hkl.cli.{name.replace('-', '_')}").main(rest) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        if shows_traceback:
            traceback.print_exception(error.__cause__ or error)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        from mjx_hkl.cli.console import to_nowhere

        to_nowhere()
        return 0
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not tells_no_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        print(f"error: the machine has no more memory for this: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _dashed(argument: str) -> str:
    """An option as help texts spell it: --num_envs is taken too."""
    option, equals, value = argument.partition("=")
    return option.replace("_", "-") + equals + value if option.startswith("--") else argument


def _prepare_rendering() -> None:
    """Chooses OpenGL before a command imports MuJoCo; where there is none, the first video tells of it."""
    from mjx_hkl.analysis.opengl import choose_opengl

    with contextlib.suppress(UserError):
        choose_opengl()


def _help() -> str:
    lines = [f"  {name:<15}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mjx-hkl COMMAND ...",
            "",
            "Hierarchical KL-regularized reinforcement learning on MuJoCo MJX.",
            "",
            *lines,
            "",
            "mjx-hkl COMMAND --help says more; mjx-hkl train RECIPE --help-all lists every field.",
            "--traceback with any command shows where in the code an error came from.",
        ]
    )
