"""Damage to the files of runs and exported agents."""

from collections.abc import Iterator
from pathlib import Path

from fault_bench import (
    LONGER,
    SAID,
    SAID_SAME,
    SAME,
    UNHARMED,
    VALID,
    Bench,
    Case,
    command,
    compare,
    contents,
    refused,
)


def damage(bench: Bench, count: int) -> Iterator[Case]:
    """Files of runs and exported agents: bits flipped, truncated, deleted, zeroed, appended to, exchanged."""
    whole = [path for path in bench.run.rglob("*") if path.is_file() and path.name != ".lock"]
    kinds: dict[str, list[Path]] = {}
    for path in whole:  # as many cases of each kind of file, however many files it has
        kinds.setdefault(_kind(path.relative_to(bench.run)), []).append(path)
    for number in range(count):
        kind = sorted(kinds)[number % len(kinds)]
        path = bench.random.choice(sorted(kinds[kind])).relative_to(bench.run)
        run_folder = bench.copy(bench.run)
        done = _damage(bench, run_folder / path)
        if kind.startswith("export"):
            yield Case(done, kind, *_probe_export(bench, run_folder))
        else:
            yield Case(done, kind, *_probe_run(bench, run_folder, path))


def _kind(path: Path) -> str:
    first, *inner = path.parts
    if first in ("checkpoints", "export") and len(inner) > 1:
        return f"{first}: {inner[1] if first == 'checkpoints' else inner[0]}"
    return f"{first}: {inner[0]}" if first == "export" else first


def _damage(bench: Bench, path: Path) -> str:
    content, rand = bytearray(path.read_bytes()), bench.random
    others = [x for x in bench.run.rglob("*") if x.is_file() and x.name != path.name]
    done = rand.choice(("flip", "flip", "truncate", "delete", "zero", "append", "exchange", "foreign"))
    if done == "flip" and content:
        bit = rand.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
    elif done == "truncate":
        content = content[: rand.randrange(len(content) or 1)]
    elif done == "zero" and content:
        start = rand.randrange(len(content))
        end = min(len(content), start + rand.randint(1, 512))
        content[start:end] = bytes(end - start)
    elif done == "append":
        content += rand.randbytes(rand.randint(1, 64))
    elif done == "exchange":
        content = rand.choice(sorted(others)).read_bytes()
    elif done == "foreign":
        content = rand.choice((b"", b"{}", b"[]", b"null", b"\xff\xfe\x00", b"a = 1\n", rand.randbytes(300)))
    path.unlink() if done == "delete" else path.write_bytes(content)
    return done


def _probe_export(bench: Bench, run_folder: Path) -> tuple[str, str]:
    before = contents(run_folder / "export")
    answer = bench.evaluated(run_folder / "export")
    if answer.code == 0:
        return (UNHARMED, "") if bench.is_like_its_own(answer) else ("silently different", answer.out)
    return refused(answer, before, run_folder / "export")


def _probe_run(bench: Bench, run_folder: Path, path: Path) -> tuple[str, str]:
    before = contents(run_folder)
    answer = command("train", run_folder, "--resume", *LONGER)
    if answer.code:
        return refused(answer, before, run_folder)
    outcome, detail = compare(bench.longer, run_folder)
    told = any(word in answer.out for word in ("damaged", "ends after"))
    if outcome == SAME:
        return (SAID_SAME, "") if told else (UNHARMED, "")
    if path.name == "metrics.jsonl" and told and detail == "its metrics":
        return SAID, ""
    if path.name == "recipe.toml" and outcome == "silently different" and detail != "its agent":
        return VALID, ""  # what may change on resume: how long, how often, what it is called
    return outcome, f"{detail} {answer.out[-300:]}"
