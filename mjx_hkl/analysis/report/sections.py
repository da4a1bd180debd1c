"""The sections of a report's page, as HTML."""

import base64
import shlex
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from mjx_hkl import resources
from mjx_hkl.analysis.curves import THRESHOLDS
from mjx_hkl.analysis.report.agents import ReportedAgent
from mjx_hkl.analysis.report.formats import counted, duration, several
from mjx_hkl.analysis.report.markup import Content, element, table, text_of
from mjx_hkl.config import to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.evaluation import Evaluation
from mjx_hkl.experiments.recipe import load_recipe

_AXES = {"environment_steps": "environment steps", "learner_steps": "learner steps", "seconds": "time"}


def thresholds(agents: list[ReportedAgent]) -> str:
    """How the runs ended, and when they were at 50 and at 80 % success."""
    metric, share = agents[0].metric, agents[0].can_succeed
    marks = [f"{x:.0%}" for x in THRESHOLDS] if share else []
    head = ["Agent", "Seeds", f"{metric.replace('_', ' ').capitalize()} at the end", "95 % interval", "KL"]
    head += [f"{name.capitalize()} to {mark}" for mark in marks for name in _AXES.values()]
    rows = []
    for i, agent in enumerate(agents):
        row = agent.summary
        diverged = f" ({row['diverged']} diverged)" if row.get("diverged") else ""
        cells: list[Content] = [
            _named(i, agent),
            f"{row['seeds']}{diverged}",
            agent.told_end,
            agent.told_interval,
        ]
        cells.append(f"{row['kl']:.2f}" if "kl" in row else "-")
        for mark in marks:
            cells += [_reached(row, axis, mark) for axis in _AXES]
        rows.append(cells)
    return text_of(table(head, rows))


def evaluations(agents: list[ReportedAgent]) -> str:
    """What each seed achieved at the end, and the best evaluation while it was trained."""
    watched = any("evaluation_return" in seed.rows[-1] for agent in agents for seed in agent.runs.seeds)
    worlds = {agent.runs.recipe.environment_name for agent in agents}
    several_worlds = len(worlds) > 1 or any(found.tasks for agent in agents for found in agent.evaluations)
    head = ["Agent", "Seed", *(["World"] if several_worlds else [])]
    head += ["Success", "Return", "Length", "Episodes", *(["Best while trained"] if watched else [])]
    rows = []
    for i, agent in enumerate(agents):
        best = _best_evaluations(agent)
        for found in agent.evaluations:
            world = "all" if found.tasks else agent.runs.recipe.environment_name
            for name, part in [(world, found), *found.tasks.items()]:
                where = [name] if several_worlds else []
                told = [best.get(found.seed, "-") if part is found else ""] if watched else []
                rows.append([_named(i, agent), str(found.seed), *where, *_evaluated(part), *told])
    if not rows:
        return text_of(element("p", "None: no run here is finished.", class_="note"))
    return text_of(table(head, rows))


def _evaluated(found: Evaluation) -> list[str]:
    return [
        f"{found.success_rate:.1%}" if found.can_succeed else "-",
        f"{found.episode_return:.1f} ± {found.episode_return_std:.1f}",
        f"{found.episode_length:.0f}",
        f"{found.episodes:,}",
    ]


def _best_evaluations(agent: ReportedAgent) -> dict[int, str]:
    """By seed, the best evaluation of the mean policy while it was trained, and when it was."""
    metric = "evaluation_success_rate" if agent.can_succeed else "evaluation_return"
    found = {}
    for seed in agent.runs.seeds:
        rows = [row for row in seed.rows if row.get(metric) is not None]
        if rows:
            best = max(rows, key=lambda row: row[metric])
            value = f"{best[metric]:.1%}" if agent.can_succeed else f"{best[metric]:.1f}"
            found[best["seed"]] = f"{value} at {counted(best['environment_steps'])} steps"
    return found


def videos(agents: list[ReportedAgent]) -> str:
    """A video of each agent, or why there is none."""
    if all(agent.video is None for agent in agents):
        folders = " ".join(shlex.quote(str(run.path)) for agent in agents for run in agent.runs.directories)
        command = element("code", f"mjx-hkl report {folders} --out report.html")
        return text_of(element("p", "None in this report. With videos: ", command, class_="note"))
    return text_of(element("div", *(_figure(i, agent) for i, agent in enumerate(agents)), class_="videos"))


def _figure(i: int, agent: ReportedAgent) -> Element:
    video = agent.video
    if video is None or video.missing:
        why = video.missing if video else ""
        return element(
            "figure", element("p", f"No video: {why}", class_="note"), element("figcaption", _named(i, agent))
        )
    shown = element("video", controls="", muted="", loop="", playsinline="", preload="metadata")
    shown.set("src", f"data:video/mp4;base64,{base64.b64encode(video.mp4).decode()}")
    shown.set("poster", f"data:image/jpeg;base64,{base64.b64encode(video.first).decode()}")
    seed = agent.runs.seeds[0].rows[0]["seed"]
    how = f"seed {seed}, mean actions, {several(video.episodes, 'episode')}"
    return element(
        "figure", shown, element("figcaption", _named(i, agent), element("span", how, class_="note"))
    )


def recipes(agents: list[ReportedAgent]) -> str:
    """What differs between agents, or from the named recipe, and every recipe whole."""
    found: list[Element] = []
    if len(agents) > 1:
        head = ["Field", *(_named(i, agent) for i, agent in enumerate(agents))]
        found += _differences("What differs", head, [_flat(to_table(agent.runs.recipe)) for agent in agents])
    elif told := _named_recipe(agents[0]):
        here = _flat(to_table(agents[0].runs.recipe))
        pair = [told, {name: value for name, value in here.items() if name in told}]
        name = agents[0].runs.recipe.name
        found += _differences(f"Changed from {name}", ["Field", f"{name}", "this run"], pair)
    for i, agent in enumerate(agents):
        file = agent.runs.directories[0].recipe
        text = file.read_text(encoding="utf-8", errors="replace")
        found.append(
            element("details", element("summary", "Recipe of ", _named(i, agent)), element("pre", text))
        )
    return text_of(found)


def _named_recipe(agent: ReportedAgent) -> dict[str, Any]:
    """What the recipe of that name in `train/` says; nothing where there is none."""
    name = agent.runs.recipe.name
    if name.partition(":")[0] not in resources.names("train", ".toml"):
        return {}
    try:
        told = _flat(to_table(load_recipe(name)))
    except UserError:
        return {}
    return {field: value for field, value in told.items() if value not in _FILLED_IN}


_FILLED_IN = ("", [], "auto")  # what a device or a world decides
_EXPECTED = ("name", "seed", "num_seeds")  # to differ
_FEW = 12  # rows that need not be folded


def _differences(heading: str, head: list[Content], flat: list[dict[str, Any]]) -> list[Element]:
    """A table of the fields in which recipes differ, folded where it is long."""
    rows: list[list[Content]] = []
    for field in dict.fromkeys(name for one in flat for name in one):
        values = [one.get(field) for one in flat]
        if field not in _EXPECTED and any(value != values[0] for value in values):
            rows.append([element("code", field), *map(_value, values)])
    if not rows:
        return [element("h3", heading), element("p", "Nothing but the seeds.", class_="note")]
    if len(rows) <= _FEW:
        return [element("h3", heading), table(head, rows)]
    return [element("details", element("summary", f"{heading}: {len(rows)} fields"), table(head, rows))]


def _flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their path of names, like policy.high_level.latent_size."""
    found = {}
    for name, value in tables.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def machines(agents: list[ReportedAgent]) -> str:
    """Devices and versions, and the commands that repeat the runs."""
    names: dict[tuple[str, str], list[str]] = {}
    for agent in agents:
        for machine in agent.machines:
            versions = {"Python": machine.python} if machine.python else {}
            told = ", ".join(f"{what} {number}" for what, number in (versions | machine.versions).items())
            names.setdefault((machine.device or "not recorded", told), []).append(agent.name)
    rows = [[*told, ", ".join(dict.fromkeys(of))] for told, of in names.items()]
    known = element("p", "Device and versions were not recorded.", class_="note")
    if rows:
        known = table(["Device", "Versions", "Agents"], rows, class_="wraps")
    paths = [run.path for agent in agents for run in agent.runs.directories]
    commands = "\n".join(
        f"mjx-hkl train {shlex.quote(str(path / 'recipe.toml'))} --out {out}"
        for path, out in zip(paths, _new_names(paths), strict=True)
    )
    return text_of([known, element("h3", "To repeat"), element("pre", commands)])


def _new_names(paths: list[Path]) -> list[str]:
    """A free folder for each run to be repeated in."""
    if len(paths) == 1:
        return ["again"]
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(number) for number in range(1, len(paths) + 1)]
    return [shlex.quote(f"again/{name}") for name in names]


def _named(i: int, agent: ReportedAgent) -> Element:
    """The agent's name beside its colour."""
    return element("span", agent.name, class_=f"agent colour-{i % 8}")


def _reached(row: dict[str, Any], axis: str, mark: str) -> str:
    """The median over seeds; how many got there, where not all did."""
    value, there = row.get(f"{axis}_to_{mark}"), row.get(f"seeds_at_{mark}", 0)
    form = duration if axis == "seconds" else counted
    if value is None:
        return f"{there} of {row['seeds']} seeds" if there else "never"
    return form(value) + (f" ({there} of {row['seeds']})" if there < row["seeds"] else "")
