"""Metrics of a log interval, as they are shown and written. Plots read them too, so there is no JAX here."""

Row = dict[str, float | int | None]

TERM = "episode_return_"
"""Begins the name of what one term of the reward adds to an episode's return."""
_EPISODE_SUMS = (
    "episodes",
    "episode_return",
    "episode_length",
    "success",
    "faults",
    "updates",
    "skipped_updates",
)


def term_name(metric: str) -> str:
    """What is logged of a world's metric `reward_NAME` or `reward/NAME`."""
    return TERM + metric.removeprefix("reward")[1:]


def means(sums: dict[str, float]) -> Row:
    """Means over episodes and updates of an interval, from their sums; None where there were none.

    Updates that were skipped, because their gradients were not finite, are counted and are in no mean.

    Of several environments, episodes, return and success are there by their names too, like
    `success_rate/NAME`. Success is of the episodes of those that tell of it.
    """
    episodes, skipped = sums["episodes"], sums.get("skipped_updates", 0.0)
    updates = sums["updates"] - skipped
    able = [name.partition("/")[2] for name in sums if name.startswith("success/")]
    judged = sum(sums[f"episodes/{task}"] for task in able) if able else episodes

    def over(total: float, count: float) -> float | None:
        return total / count if count else None

    by_task: Row = {}
    for task in [name.partition("/")[2] for name in sums if name.startswith("episodes/")]:
        count = sums[f"episodes/{task}"]
        by_task[f"episodes/{task}"] = int(count)
        if task in able:
            by_task[f"success_rate/{task}"] = over(sums[f"success/{task}"], count)
        by_task[f"episode_return/{task}"] = over(sums[f"episode_return/{task}"], count)
    return {
        "episodes": int(episodes),
        "episode_return": over(sums["episode_return"], episodes),
        "success_rate": over(sums["success"], judged),
        "episode_length": over(sums["episode_length"], episodes),
        "faults": int(sums["faults"]),
        "updates": int(updates),
        "skipped_updates": int(skipped),
        **by_task,
        **{
            name: over(total, episodes if name.startswith(TERM) else updates)
            for name, total in sums.items()
            if name.partition("/")[0] not in _EPISODE_SUMS
        },
    }
