"""The verdict of an audit as a page of plain text that an auditor can paste."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.privacy.canary_evidence import CanaryEvidence, in_words
from stages.privacy.event_words import event_in_words
from stages.privacy.evidence import CANARIES, LEDGER
from stages.privacy.findings import shown
from stages.privacy.moments import abbreviated

CHECKED = (
    "every evidence file is spelled in one way only, and is the file that DVC recorded and later stages read",
    "the plan keeps its target, delta is below 1 / max_units, sampling, clip and unit are as configured",
    "every step of the trace is the planned one: sampler, rate, expected batch, clip and noise",
    "charges and statement are what plan, trace and ledger give, value by value",
    "canaries, where there are any, were guessed about as fixed before training, and contradict no claim",
)
OF_A_LEDGER = "the ledger is one unbroken chain within its limit, and covers every release that was charged"
_SIGNATURES = {
    "absent": "none: nobody vouches for this evidence",
    "not verified": "present and NOT VERIFIED: give --public-key",
    "refused": "REFUSED: see the findings",
}


def verdict_text(verdict: Mapping[str, Any]) -> str:
    """Return the page, in printable ASCII alone: nothing that evidence says can hide there or look alike."""
    page = "\n".join(
        [
            *_head(verdict),
            *_table("## Recomputed epsilon", verdict["recomputed"]),
            *_all_revisions(verdict["all_revisions"]),
            *_checked(verdict),
            *_findings(verdict),
        ]
    )
    return "".join(char if char == "\n" or " " <= char <= "~" else _escaped(char) for char in page)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _head(verdict: Mapping[str, Any]) -> Iterator[str]:
    public = ", declared public" if verdict["population_is_public"] is True else ""
    yield "# Privacy audit"
    yield ""
    yield f"- evidence: {verdict['source']}"
    yield f"- population: {verdict['population']!a}{public}, at most {verdict['max_units']!a} units"
    yield f"- unit and relation: {verdict['unit']!a}, {verdict['relation']!a}"
    yield (
        f"- stated: epsilon {_number(verdict['epsilon'])} at delta {verdict['delta']!a}, target "
        f"{verdict['target_epsilon']!a}"
    )
    yield from _total(verdict["population_total"])
    signature = verdict["signature"]
    signed = _SIGNATURES.get(
        signature["status"],
        f"verified, number {signature['number']} of {signature['day']}, key {signature['key']}",
    )
    yield f"- signature: {signed}"
    yield f"- weights: {verdict['weights']}"
    yield f"- code: {verdict['code']}"
    yield f"- canaries: {_canaries(verdict)}"


def _total(total: Any) -> Iterator[str]:
    """Yield what the statement says of the population, whatever passes its releases are of."""
    if isinstance(total, dict):
        limit = total.get("limit_epsilon")
        yield (
            f"- stated for all {total.get('releases')!a} releases in the ledger: epsilon "
            f"{_number(total.get('epsilon'))}" + ("" if limit is None else f" of {_number(limit)}")
        )


def _canaries(verdict: Mapping[str, Any]) -> str:
    found, claimed = verdict["canaries"], verdict["epsilon"]
    if found is None:
        return "REFUSED: see the findings" if CANARIES in verdict["evidence"] else "not among the evidence"
    is_number = isinstance(claimed, int | float) and not isinstance(claimed, bool)
    return in_words(CanaryEvidence(**found), claimed if is_number else None)


def _table(title: str, prices: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = sorted({name for price in prices for name in price["checks"]})
    if not prices:
        return
    yield f"\n{title}\n"
    yield "| what | decides | epsilon | " + "".join(f"{name} | " for name in names) + "delta |"
    yield "|---|---|---|" + "---|" * (len(names) + 1)
    for price in prices:
        checks = "".join(f"{_check(price, name)} | " for name in names)
        epsilon = _number(price["epsilon"])
        yield f"| {price['what']} | {price['accountant']} | {epsilon} | {checks}{price['delta']!a} |"


def _check(price: Mapping[str, Any], name: str) -> str:
    return _number(price["checks"][name]) if name in price["checks"] else "not applicable"


def _all_revisions(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    yield "\n## All revisions\n"
    yield f"{found['commits']} commits of every ref, {found['states']} different states of the evidence"
    for population in found["populations"]:
        kind = "declared public" if population["public"] else "not public"
        yield f"\n### Population {population['population']!a}, {kind}\n"
        yield "| release | stage | split | event | first seen | ledger |"
        yield "|---|---|---|---|---|---|"
        for release in population["releases"]:
            seen = abbreviated(release["first_seen"]) if release["first_seen"] else "not committed"
            yield (
                f"| {release['release']} | {release['stage']} | {release['split']} | "
                f"{_event(release['event'])} | {seen} | {release['ledger'] or 'not there'} |"
            )
        yield from _table("True total, as one fixed sequence:", population["recomputed"])
        if population["filter"]:
            total = population["filter"]
            yield (
                f"\nBy the ledger's filter, however they were chosen: epsilon {_number(total['epsilon'])} "
                f"of {total['limit_epsilon']:g} at delta {total['delta']:g} (Renyi order {total['order']:g})"
            )


def _event(event: Any) -> str:
    try:
        return event_in_words(event)
    except (ValueError, KeyError, TypeError):
        return f"not told: {shown(event)}"


def _checked(verdict: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## Checked\n"
    yield from (f"- {check}" for check in CHECKED)
    if LEDGER in verdict["evidence"]:
        yield f"- {OF_A_LEDGER}"


def _findings(verdict: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## Findings\n"
    for finding in verdict["findings"]:
        mark = "ERROR  " if finding["severity"] == "error" else "warning"
        at = f" (in {abbreviated(finding['revision'])})" if finding.get("revision") else ""
        yield f"- {mark} {finding['file']}{at}: {finding['problem']}"
    if not verdict["findings"]:
        yield "none"
    yield f"\nverdict: {verdict['verdict']}"


def _number(value: Any) -> str:
    if value is None:
        return "none (no guarantee)"
    return f"{value:.4f}" if isinstance(value, int | float) else ascii(value)
