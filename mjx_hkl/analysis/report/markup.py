"""HTML made of elements, so that every text in it is escaped."""

import html
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

Content = str | Element | None


def element(tag: str, *content: Content, **attributes: str) -> Element:
    """An element; `class_` is the attribute class, and None is no content."""
    made = Element(tag, {name.rstrip("_"): value for name, value in attributes.items()})
    for item in content:
        if isinstance(item, Element):
            made.append(item)
        elif item is not None and len(made):
            made[-1].tail = (made[-1].tail or "") + item
        elif item is not None:
            made.text = (made.text or "") + item
    return made


def table(head: Sequence[Content], rows: Iterable[Sequence[Content]], class_: str = "") -> Element:
    """A table that scrolls by itself where the page is narrower; a row's first cell is its head."""
    body = [
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in cells))
        for first, *cells in rows
    ]
    top = element("tr", *(element("th", cell, scope="col") for cell in head))
    whole = element("table", element("thead", top), element("tbody", *body), class_=class_)
    return element("div", whole, class_="scroll", tabindex="0")


def text_of(content: str | Element | Iterable[Element]) -> str:
    """As HTML."""
    if isinstance(content, str):
        return html.escape(content)
    if isinstance(content, Element):
        return ElementTree.tostring(content, encoding="unicode", method="html")
    return "\n".join(map(text_of, content))
