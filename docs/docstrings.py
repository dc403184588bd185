"""Examples in docstrings become code, and the words that our docstrings begin paragraphs with become bold.

Read by mkdocstrings while it builds the site (`mkdocs.yml`).
"""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^>>> (?:.+\n?)+", re.M)
_LEADS = re.compile(r"^(Guarantee|Edge cases|Shapes|Errors):", re.M)


class Examples(griffe.Extension):
    """Rewrites every docstring once it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)


def readable(docstring: str) -> str:
    """Return a docstring as Markdown."""
    fenced = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", docstring)
    return _LEADS.sub(r"**\1:**", fenced).rstrip()
