"""A report: one page about runs, with curves, tables, videos and recipes, that opens without a network."""

import base64
import gzip
import importlib.util
import json
import secrets
import time
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from string import Template

from mjx_hkl import __version__
from mjx_hkl.analysis.report import figures, sections
from mjx_hkl.analysis.report.agents import ReportedAgent, read_agents
from mjx_hkl.analysis.report.header import header, title
from mjx_hkl.analysis.report.markup import text_of
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.whole import write_whole


def write_report(
    paths: Iterable[Path],
    out: Path,
    with_videos: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> list[ReportedAgent]:
    """Writes the report of runs, whole or not at all; returns what is in it.

    Args:
      paths: run directories, or folders of them.
      out: the .html file.
      with_videos: plays the agents and shows it; where that fails the report says why.
      say: told of seeds that were given twice.

    Raises:
      UserError: there is no run, or one without metrics, or its code may not run, or plotly is missing.
    """
    library = _plotly()
    agents = read_agents(paths, with_videos, say)
    nonce = secrets.token_urlsafe()
    page = Template(_own("page.html")).substitute(
        nonce=nonce,
        title=text_of(title(agents)),
        style=_own("style.css"),
        script=_own("page.js"),
        header=header(agents),
        thresholds=sections.thresholds(agents),
        evaluations=sections.evaluations(agents),
        videos=sections.videos(agents),
        recipes=sections.recipes(agents),
        machines=sections.machines(agents),
        curves=_embedded(figures.curves(agents)),
        plotly=_packed(library),
        program=f"mjx-hkl {__version__}, {time.strftime('%Y-%m-%d %H:%M')}",
    )
    write_whole(out, page)
    return agents


def is_possible() -> bool:
    """Whether the extra `report` is installed."""
    return importlib.util.find_spec("plotly") is not None


def _plotly() -> bytes:
    """The JavaScript library that plotly's Python package brings."""
    if not is_possible():
        raise UserError("a report needs plotly: pip install 'mjx-hkl[report]'")
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()


def _packed(code: bytes) -> str:
    """As text that the page unpacks: 2 MB instead of 5."""
    return base64.b64encode(gzip.compress(code, compresslevel=6, mtime=0)).decode()


def _embedded(value: object) -> str:
    """JSON that no text in it can end early."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _own(name: str) -> str:
    return (resources.files(__name__) / name).read_text(encoding="utf-8")
