"""The head of a report's page: a name, and the numbers to see first."""

import statistics

from mjx_hkl.analysis.curves import THRESHOLDS
from mjx_hkl.analysis.report.agents import ReportedAgent
from mjx_hkl.analysis.report.formats import counted, duration, several
from mjx_hkl.analysis.report.markup import element, text_of

_Tile = tuple[str, str, str]
"""What, how much, and a note."""


def title(agents: list[ReportedAgent]) -> str:
    """What the report is about."""
    if len(agents) == 1:
        return agents[0].name
    experiments = {agent.runs.recipe.name.partition(":")[0] for agent in agents}
    return experiments.pop() if len(experiments) == 1 else f"{len(agents)} agents side by side"


def header(agents: list[ReportedAgent]) -> str:
    """Name, world, and the numbers to see first."""
    worlds = dict.fromkeys(agent.runs.recipe.environment_name for agent in agents)
    seeds = sum(agent.summary["seeds"] for agent in agents)
    machines = [machine for agent in agents for machine in agent.machines]
    devices = dict.fromkeys(machine.device for machine in machines if machine.device)
    begun = [machine.started[:10] for machine in machines if machine.started]
    facts = [", ".join(worlds), several(seeds, "seed"), *devices, *([max(begun)] if begun else [])]
    tiles = _tiles_of_one(agents[0]) if len(agents) == 1 else _tiles_of_several(agents)
    return text_of(
        [
            element("h1", title(agents)),
            element("p", *(element("span", fact) for fact in facts), class_="facts"),
            element(
                "dl",
                *(
                    element(
                        "div", element("dt", name), element("dd", value), element("dd", note, class_="note")
                    )
                    for name, value, note in tiles
                ),
                class_="tiles",
            ),
        ]
    )


def _tiles_of_one(agent: ReportedAgent) -> list[_Tile]:
    found, ends = agent.evaluations, [seed.rows[-1] for seed in agent.runs.seeds]
    tiles = []
    if found:
        note = f"mean policy, {several(sum(x.episodes for x in found), 'episode')}"
        note = f"mean of the seeds, {note}" if len(found) > 1 else note
        if agent.can_succeed:
            tiles.append(("Success", f"{statistics.fmean(x.success_rate for x in found):.1%}", note))
        tiles.append(("Return", f"{statistics.fmean(x.episode_return for x in found):.1f}", note))
    elif "iqm" in agent.summary:
        name = agent.metric.replace("_", " ").capitalize()
        tiles.append((name, agent.told_end, "sampled policy, last tenth; not finished"))
    if agent.can_succeed:
        last = f"{THRESHOLDS[-1]:.0%}"
        seconds, steps = (agent.summary.get(f"{x}_to_{last}") for x in ("seconds", "environment_steps"))
        note = "of success" if steps is None else f"{counted(steps)} environment steps"
        tiles.append((f"To {last}", "never" if seconds is None else duration(seconds), note))
    tiles.append(("Training", duration(max(end["seconds"] for end in ends)), "without compilation"))
    rate = statistics.fmean(end["environment_steps"] / max(end["seconds"], 1e-9) for end in ends)
    note = f"{counted(rate)} a second" + (" for each seed" if len(ends) > 1 else "")
    tiles.append(("Environment steps", counted(max(end["environment_steps"] for end in ends)), note))
    return tiles


def _tiles_of_several(agents: list[ReportedAgent]) -> list[_Tile]:
    ended = [agent for agent in agents if "iqm" in agent.summary]
    tiles = [("Agents", str(len(agents)), f"{sum(a.summary['seeds'] for a in agents)} seeds in all")]
    if ended:
        best = max(ended, key=lambda agent: agent.summary["iqm"])
        tiles.append((f"Best {best.metric.replace('_', ' ')}", best.told_end, best.name))
    last = f"{THRESHOLDS[-1]:.0%}"
    for axis, name, form in (
        ("environment_steps", "Fewest steps", counted),
        ("seconds", "Fastest", duration),
    ):
        field = f"{axis}_to_{last}"
        there = [agent for agent in agents if agent.summary.get(field) is not None]
        if there:
            first = min(there, key=lambda agent: agent.summary[field])
            tiles.append((f"{name} to {last}", form(first.summary[field]), first.name))
    return tiles
