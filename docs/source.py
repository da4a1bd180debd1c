"""Makes the site whole without a network: a hook of mkdocs, called when the site is built.

On GitHub a link to a file shows the file. In the site it leads to a page with the file's text, and a link to
a folder to a list of its files. Search works without a server too.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LANGUAGES = {".py": "python", ".toml": "toml", ".xml": "xml"}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^()\s#]+)(?=\))")
_ROW = re.compile(r"^\|.*$", re.MULTILINE)
_CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each file and folder that a page links to."""
    pages = [file for file in files.documentation_pages() if file.generated_by is None]
    wanted = {_target(file.src_uri, link) for file in pages for link in _LINK.findall(file.content_string)}
    code = [x for x in wanted if (ROOT / x).is_dir() and not x.startswith("docs/results")]
    wanted |= {f"{folder}/{name}" for folder in code for name in _listed(ROOT / folder)}
    for target in sorted(x for x in wanted if _page_of(x)):
        files.append(File.generated(config, _page_of(target), content=_page(target, wanted)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    r"""Turns links to files and folders into links to their pages, and GitHub's `\|` in tables into `|`."""

    def turned(match: re.Match[str]) -> str:
        uri = _page_of(_target(page.file.src_uri, match[1]))
        if not uri or not files.get_file_from_path(uri):
            return match[1]
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")

    def unescaped(row: re.Match[str]) -> str:
        return _CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0])

    return _ROW.sub(unescaped, _LINK.sub(turned, markdown))


def on_post_build(config: MkDocsConfig) -> None:
    """Writes the search index as a script, which pages may load that are opened as files; see site.js."""
    index = Path(config.site_dir, "search", "search_index.json")
    index.with_suffix(".js").write_text(f"var __index = {index.read_text()}")


def _target(page: str, link: str) -> str:
    """What a link of a page in docs/ leads to, from the root of the checkout."""
    return posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))


def _page_of(target: str) -> str:
    """The page of a file or folder; empty where the site has the file itself."""
    path = ROOT / target
    if path.is_dir():
        return f"source/{target}/index.md"
    is_own = path.suffix in ("", ".md") and not target.startswith("docs/")
    text = is_own or path.suffix in (*LANGUAGES, ".ipynb")
    return f"source/{target}.md" if path.is_file() and text else ""


def _page(target: str, wanted: set[str]) -> str:
    path = ROOT / target
    head = f"---\ntitle: {path.name}\nsearch:\n  exclude: true\n---\n\n# `{target}`\n\n"
    if path.is_dir():
        return head + "\n".join(f"- {_entry(target, name, wanted)}" for name in _listed(path))
    if path.suffix == ".ipynb":
        return head + _notebook(target, json.loads(path.read_text()))
    if path.suffix == ".md" or not path.suffix:
        return f"{head}```text\n{path.read_text()}\n```\n"
    return f'{head}```{LANGUAGES[path.suffix]} linenums="1"\n{path.read_text()}```\n'


def _notebook(target: str, notebook: dict[str, Any]) -> str:
    """Its text and code, without outputs; links lead to pages of the site."""
    folder = posixpath.dirname(target)

    def turned(match: re.Match[str]) -> str:
        linked = posixpath.normpath(posixpath.join(folder, match[1]))
        uri = _page_of(linked) or linked.removeprefix("docs/")
        return posixpath.relpath(uri, f"source/{folder}")

    def shown(cell: dict[str, Any]) -> str:
        text = "".join(cell["source"])
        is_text = cell["cell_type"] == "markdown"
        return _LINK.sub(turned, text) if is_text else f"```python\n{text}\n```"

    return "\n\n".join(shown(cell) for cell in notebook["cells"])


def _listed(folder: Path) -> list[str]:
    """The files in it, at any depth, that a person would open."""
    found = (x.relative_to(folder) for x in sorted(folder.rglob("*")) if x.is_file())
    return [str(x) for x in found if not any(part.startswith((".", "__pycache__")) for part in x.parts)]


def _entry(folder: str, name: str, wanted: set[str]) -> str:
    """A file of a folder, with a link where the site has the file."""
    target = f"{folder}/{name}"
    uri = _page_of(target) if target in wanted else ""
    if not uri and target.startswith("docs/"):
        uri = target.removeprefix("docs/")
    return f"[{name}]({posixpath.relpath(uri, f'source/{folder}')})" if uri else f"`{name}`"
