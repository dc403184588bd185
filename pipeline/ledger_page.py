"""The page of ``dualpriv ledger``: what every population spent, holds reserved, and has left."""

from collections.abc import Callable, Mapping
from typing import Any

from stages.privacy.event_words import event_in_words


def ledger_page(found: Mapping[str, Any], in_words: Callable[[dict[str, Any]], str]) -> str:
    """Return what ``dualpriv ledger --json`` prints as one HTML page, in the layout of the report.

    ``in_words`` says an account in a sentence. Guarantee: every value is escaped; nothing is loaded from
    anywhere.
    """
    from stages.reporting.pages.environment import page_environment

    environment = page_environment("pipeline.pages")
    environment.filters |= {"words": event_in_words, "share": share, "account_in_words": in_words}
    accounts = {f"population-{number}": account for number, account in enumerate(found["populations"])}
    sections = {name: account["population"] for name, account in accounts.items()} | {"check": "Check it"}
    return environment.get_template("ledger.html.j2").render(
        found=found, accounts=accounts, sections=sections
    )


def share(part: float, whole: float) -> str:
    """Return a part in per cent of the whole, between none of it and all.

    >>> share(1.0, 8.0), share(9.0, 8.0), share(1.0, 0.0)
    ('12.5%', '100.0%', '100.0%')
    """
    return f"{100 * min(1.0, max(0.0, part / whole)):.1f}%" if whole > 0 else "100.0%"
