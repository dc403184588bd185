"""The page of a comparison in HTML: what its Markdown says, in the layout of the report."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markdown_it.token import Token

TABLE = '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table class="stacked">'


def html_page(markdown: str, pictures: Mapping[str, str]) -> str:
    """Return a Markdown page as one HTML document; ``pictures`` are SVG by the names that the page uses.

    Guarantee: a tag in the Markdown is text; nothing is loaded from anywhere, for every picture is inside. A
    picture that is not given is a KeyError.
    """
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    from stages.reporting.pages.environment import page_environment

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.add_render_rule("table_open", lambda *_: TABLE)
    reader.add_render_rule("table_close", lambda *_: "</table></div>")
    reader.add_render_rule("image", _image)
    tokens = reader.parse(markdown)
    title = ""
    sections: dict[str, str] = {}
    for opened, inside in zip(tokens, tokens[1:], strict=False):
        if opened.type == "heading_open" and opened.tag == "h1":
            title = inside.content
        elif opened.type == "heading_open":
            name = f"part-{len(sections)}"
            opened.attrSet("id", name)
            sections[name] = inside.content
        for picture in _pictures(inside):
            picture.attrSet("src", _in_page(pictures[str(picture.attrGet("src"))]))
    _name_cells(tokens)
    body = tokens[3:] if title else tokens  # the title stands in the layout's header
    return (
        page_environment("pipeline.pages")
        .get_template("compare.html.j2")
        .render(title=title, sections=sections, contents=Markup(_drawn(reader, body)))
    )


def _name_cells(tokens: "list[Token]") -> None:
    """Say of every cell which column it is in, for a screen on which columns stand under each other."""
    names: list[str] = []
    column = 0
    for opened, inside in zip(tokens, tokens[1:], strict=False):
        if opened.type == "table_open":
            names = []
        elif opened.type == "tr_open":
            column = 0
        elif opened.type == "th_open":
            opened.attrSet("scope", "col")
            names.append(inside.content)
        elif opened.type == "td_open":
            if column:
                opened.attrSet("data-name", names[column])
            column += 1


def _image(_: Any, tokens: "Sequence[Token]", place: int, *__: Any) -> str:
    """Return a picture that a narrow screen can move sideways in its own box."""
    from markupsafe import Markup

    picture = tokens[place]
    box = (
        '<span class="scroll wide" tabindex="0" role="group" aria-label="{alt}">'
        '<img src="{src}" alt="{alt}"></span>'
    )
    return str(Markup(box).format(src=picture.attrGet("src"), alt=picture.content))


def _drawn(reader: Any, tokens: "list[Token]") -> str:
    return str(reader.renderer.render(tokens, reader.options, {}))


def _pictures(token: "Token") -> "list[Token]":
    return [child for child in token.children or [] if child.type == "image"]


def _in_page(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
