"""How a page is made: one layout, every value escaped, nothing loaded from anywhere."""

from base64 import b64encode
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

HERE = "stages.reporting.pages"


def page_environment(*packages: str) -> Environment:
    """Return the templates of ``packages``, then the shared ones, with escaping on for every one of them.

    Guarantee: a name that a template does not know is an error, never an empty string.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ".") for package in (*packages, HERE)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"capitalize_first": capitalize_first, "png_in_page": png_in_page, "given": given}
    return environment


def capitalize_first(text: str) -> str:
    """Return ``text`` with its first letter as a capital.

    >>> capitalize_first("no canaries")
    'No canaries'
    """
    return text[:1].upper() + text[1:]


def given(value: Any, form: str = "%g") -> str:
    """Return a number by a printf form, and say of one that is not there that there is none.

    >>> given(0.5), given(None), given(2.25, "%.1f")
    ('0.5', 'none', '2.2')
    """
    return "none" if value is None else form % value


def png_in_page(content: bytes) -> str:
    """Return a picture as an address that holds it, so that showing it asks nobody.

    >>> png_in_page(b"png")
    'data:image/png;base64,cG5n'
    """
    return f"data:image/png;base64,{b64encode(content).decode()}"
