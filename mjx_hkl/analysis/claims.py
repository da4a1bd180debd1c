"""The paper's claims, each tested by runs: two variants, the one that should be ahead and the other one."""

import dataclasses
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from mjx_hkl.analysis.curves import Curve, bootstrap_interval, interquartile_mean, read_curves, tells_success
from mjx_hkl.analysis.ranks import compare
from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError

AGREES, DISAGREES, OPEN = "agrees", "disagrees", "not told apart"


@dataclasses.dataclass(frozen=True)
class Claim:
    """What the paper says, and where to look.

    Attributes:
      says: the claim, in a line.
      paper: where it stands there.
      there: the number or picture there, in words.
      ahead: folder of the runs that should be ahead, beside the file of claims.
      behind: of those that should not.
      measure: what is compared of a seed: `average` of the metric over all of training, its `end`, the steps
        to a threshold, or the KL at the `end`, of which less is ahead.
      rung: body, task and budget here.
      command: what makes the claim's own figure, on an accelerator.
      why: what is known where it does not agree.
      metric: of `metrics.jsonl`.
    """

    says: str
    paper: str
    there: str
    ahead: str
    behind: str
    rung: str
    command: str
    measure: Literal["average", "end", "steps_to_50%", "steps_to_80%", "kl"] = "average"
    why: str = ""
    metric: str = "success_rate"


@dataclasses.dataclass(frozen=True)
class Tested:
    """A claim and what its runs say.

    Attributes:
      claim: the claim.
      ahead: what is compared, of each seed that should be ahead.
      behind: of each other one.
      probability: that one of the first is ahead of one of the others; ties count half.
      p: of Mann and Whitney's two-sided test.
    """

    claim: Claim
    ahead: list[float]
    behind: list[float]
    probability: float
    p: float

    @property
    def verdict(self) -> str:
        """Which of the two is ahead, where p is at most 0.05 or the least that so many seeds can give."""
        least = 2 / math.comb(len(self.ahead) + len(self.behind), len(self.ahead))
        if self.p > max(0.05, least) + 1e-9:
            return OPEN
        return AGREES if self.probability > 0.5 else DISAGREES


@dataclasses.dataclass(frozen=True)
class _File:
    about: str
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]


def tested_claims(path: Path) -> tuple[str, list[Tested]]:
    """What a file of claims begins with, and its claims, tested.

    Raises:
      UserError: the file cannot be read, or runs that a claim names cannot.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    found = from_table(_File, table, str(path))
    return found.about, [_tested(claim, path.parent) for claim in found.claims]


def _tested(claim: Claim, folder: Path) -> Tested:
    ahead, behind = (_measured(claim, folder / runs) for runs in (claim.ahead, claim.behind))
    is_less = claim.measure not in ("average", "end")
    sign = -1.0 if is_less else 1.0
    a, b = ([sign * min(x, 1e30) for x in values] for values in (ahead, behind))
    return Tested(claim, ahead, behind, *compare(a, b))


def _measured(claim: Claim, runs: Path) -> list[float]:
    """Of each seed what the claim compares."""
    (seeds,) = read_curves([runs], claim.metric, smooth=1).values()
    longest = max(seed.axes["environment_steps"][-1] - seed.begin for seed in seeds)
    return [_of_curve(seed, claim.measure, longest) for seed in seeds]


def _of_curve(seed: Curve, measure: str, longest: float) -> float:
    """Of a seed; one that diverged succeeds no more until the `longest` has ended, and its returns are 0."""
    if measure == "kl":
        return seed.final_kl
    if measure.startswith("steps_to_"):
        return seed.reaches(
            float(measure.removeprefix("steps_to_").removesuffix("%")) / 100, "environment_steps"
        )
    if seed.diverged and (measure == "end" or not seed.goes_on):
        return 0.0
    if seed.diverged:
        return seed.average * (float(seed.axes["environment_steps"][-1]) - seed.begin) / longest
    return seed.final if measure == "end" else seed.average


def page(about: str, tested: list[Tested]) -> str:
    """Markdown: a table with a row for each claim, and what is known where it does not agree."""
    head = ["", "claim", "there", "here: ahead", "here: behind", "ahead with probability", "seeds", "verdict"]
    lines = [head, ["---"] * len(head)]
    for number, one in enumerate(tested, 1):
        claim = one.claim
        lines.append(
            [
                f"[{number}](#{number})",
                f"{claim.says} ({claim.paper})",
                claim.there,
                f"`{claim.ahead}`: {_number(claim, one.ahead)}",
                f"`{claim.behind}`: {_number(claim, one.behind)}",
                f"{one.probability:.0%} (p {one.p:.2g})",
                f"{len(one.ahead)}, {len(one.behind)}",
                f"**{one.verdict}**",
            ]
        )
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = "\n\n".join(_note(number, one) for number, one in enumerate(tested, 1))
    counts = {verdict: sum(one.verdict == verdict for one in tested) for verdict in (AGREES, DISAGREES, OPEN)}
    total = ", ".join(f"{verdict} {count}" for verdict, count in counts.items())
    return (
        f"{about.strip()}\n\nVerdicts of {len(tested)} claims: {total}.\n\n{table}\n\n## Notes\n\n{notes}\n"
    )


def _note(number: int, one: Tested) -> str:
    claim = one.claim
    why = (
        f" {' '.join(claim.why.split())}"
        if claim.why
        else ""
        if one.verdict == AGREES
        else " Why is not known."
    )
    words = {"average": f"mean {claim.metric} over all of training", "end": f"{claim.metric} at the end"}
    measure = words.get(claim.measure, claim.measure.replace("_", " "))
    return (
        f"### {number}\n\n{claim.says}. Here: {claim.rung}; compared is {measure}.{why} On"
        f" an accelerator: `{claim.command}`."
    )


def _number(claim: Claim, values: list[float]) -> str:
    """Interquartile mean with its interval, or the median of steps with least and greatest."""
    if claim.measure.startswith("steps_to_"):
        told = [
            "never" if math.isinf(x) else f"{x / 1e6:.2f} M"
            for x in (np.median(values), min(values), max(values))
        ]
        return f"{told[0]} ({told[1]} to {told[2]})"
    is_share = claim.measure != "kl" and tells_success(claim.metric)

    def shown(x: Any) -> str:
        return f"{x:.1%}" if is_share else f"{x:.3g}"

    bounds = bootstrap_interval(np.array(values))
    middle = shown(interquartile_mean(np.array(values)))
    return middle if bounds is None else f"{middle} ({shown(bounds[0])} to {shown(bounds[1])})"
