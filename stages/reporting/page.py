"""The report: one page that needs no network and no JavaScript, the same bytes for the same evidence.

Its templates are in stages/reporting/pages.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment

from stages.core.canonical import canonical_json
from stages.privacy.canary_evidence import in_words
from stages.privacy.event_words import event_in_words
from stages.reporting import figures, noise_figures
from stages.reporting.adapter_words import words_of
from stages.reporting.arithmetic import (
    canary_share,
    epsilon_by_step,
    largest_signal_to_noise,
    most_detected,
    noise_energy_kept,
    noise_over_signal,
)
from stages.reporting.card import load_code
from stages.reporting.evidence import Choices, Evidence
from stages.reporting.mechanism_words import mechanism_words
from stages.reporting.pages.environment import page_environment
from stages.reporting.reference import Reference
from stages.reporting.update_words import update_words
from stages.reporting.words import (
    alarm,
    all_of,
    an_image,
    at_most,
    basis,
    count,
    interval,
    is_noised,
    ordered_kinds,
    percent,
)

SECTIONS = {
    "promise": "The statement, in words",
    "charges": "Charges, and what each released",
    "limits": "What is not protected",
    "mechanism": "The mechanism",
    "utility": "Utility on held-out records",
    "tokens": "Pruning the image",
    "update": "Pruning the update",
    "cost": "Memory and time",
    "attack": "What an attack found",
    "lineage": "Where it comes from",
    "verify": "Use and check it",
}
"""The headings of the page by the names that links use, in order."""
FALSE_ALARMS = (0.001, 0.01, 0.05, 0.1)


def render_page(evidence: Evidence, choices: Choices, reference: Reference | None = None) -> str:
    """Return the report as one HTML document.

    Guarantee: the privacy statement's sentence comes first, word for word, under a red alarm where the
    promise was not kept; every value is escaped; nothing is loaded from anywhere; no picture of a private
    record is in it.
    """
    return (
        report_environment()
        .get_template("report.html.j2")
        .render(
            sections=SECTIONS,
            evidence=evidence,
            plan=evidence.plan,
            statement=evidence.statement,
            metrics=evidence.metrics,
            reference=reference,
            choices=choices,
            adapter=words_of(choices.trainable),
            means=mechanism_words(evidence.plan),
            update=update_words(choices.update),
            kinds=ordered_kinds(evidence.metrics),
            alarm=alarm(evidence.statement),
            factor=factor(evidence.statement["epsilon"]),
            detected=_detected(evidence),
            others=other_releases(evidence),
            noise_over_signal=noise_over_signal(evidence.plan, evidence.weights),
            canaries=in_words(evidence.canaries, evidence.statement["epsilon"]),
            lower_bound=f"{math.floor(100 * evidence.canaries.lower_bound) / 100:.2f}",
            ceiling=f"{math.floor(100 * evidence.canaries.ceiling) / 100:.2f}",
            largest=largest_signal_to_noise(evidence.plan, evidence.weights),
            canary_share=canary_share(evidence.canaries.canaries, evidence.plan),
            chosen=figures.chosen_budget(evidence.pruning),
            parameters=_parameters(evidence, choices),
            code=load_code(choices),
            figures=_figures(evidence, choices, reference),
        )
    )


def report_environment() -> Environment:
    """Return the templates with the words of a run."""
    environment = page_environment()
    environment.filters |= {
        "percent": percent,
        "at_most": at_most,
        "interval": interval,
        "count": count,
        "basis": basis,
        "an_image": an_image,
        "all_of": all_of,
        "words": event_in_words,
    }
    environment.tests |= {"noised": is_noised}
    environment.globals |= {"noise_energy_kept": noise_energy_kept}
    return environment


def factor(epsilon: float | None) -> str | None:
    """Return e to the power epsilon in three digits, rounded up; None where it says nothing to a reader.

    >>> factor(1.0), factor(7.989), factor(30.0), factor(None)
    ('2.72', '2,950', None, None)
    """
    if epsilon is None or epsilon > 20:
        return None
    value = math.exp(epsilon)
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    rounded = math.ceil(value / unit) * unit
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"


def _detected(evidence: Evidence) -> dict[float, str]:
    """Return what a test can find at most, in words; empty where more was spent than the plan says."""
    planned, spent = evidence.plan.epsilon, evidence.statement["epsilon"]
    if planned is None or spent is None or spent > planned + 1e-9:
        return {}
    found = most_detected(evidence.plan, FALSE_ALARMS)
    return {share: percent(math.ceil(1000 * most) / 1000) for share, most in found.items()}


def other_releases(evidence: Evidence) -> int:
    """Return how many releases the population's ledger counts beyond those of this pass."""
    own = [charge for charge in evidence.charges["charges"] if charge["release"] is not None]
    return max(0, int(evidence.statement["population_total"]["releases"]) - len(own))


def _parameters(evidence: Evidence, choices: Choices) -> str:
    """Return the plan and the sections that decide the method, as JSON."""
    sections = asdict(choices) | {"plan": evidence.plan.to_json()}
    return canonical_json(_plain(sections)).decode()


def _plain(value: Any) -> Any:
    """Return ``value`` with its paths as text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _figures(evidence: Evidence, choices: Choices, reference: Reference | None) -> dict[str, Any]:
    curve = epsilon_by_step(evidence.plan)
    block, largest = evidence.usual_block, largest_signal_to_noise(evidence.plan, evidence.weights)
    return {
        "accuracy": figures.accuracy(evidence.metrics, None if reference is None else reference.metrics),
        "epsilon": figures.epsilon(curve, evidence.plan.target_epsilon) if curve else None,
        "importance": figures.importance(evidence.importance["layers"], evidence.importance["chosen"]),
        "frontier": figures.frontier(evidence.pruning),
        "cost": figures.cost(evidence.pruning),
        "noise_kept": noise_figures.noise_kept(block, choices.update.keep),
        "right_choice": noise_figures.right_choice(block, largest),
    }
