"""The report: one page that needs no network and no JavaScript, the same bytes for the same evidence."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from stages.privacy.canary_evidence import in_words
from stages.privacy.planning import noise_to_signal
from stages.reporting import figures
from stages.reporting.adapter_words import words_of
from stages.reporting.arithmetic import (
    canary_share,
    epsilon_by_step,
    largest_signal_to_noise,
    noise_energy_kept,
)
from stages.reporting.card import load_code
from stages.reporting.evidence import Choices, Evidence
from stages.reporting.words import (
    alarm,
    basis,
    count,
    event_in_words,
    interval,
    is_noised,
    ordered_kinds,
    percent,
)


def render_page(evidence: Evidence, choices: Choices) -> str:
    """Return the report as one HTML document.

    Guarantee: the privacy statement's sentence comes first, word for word, under a red alarm where the
    promise was not kept; every value is escaped; nothing is loaded from anywhere.
    """
    template = page_environment().get_template("report.html.j2")
    return template.render(
        evidence=evidence,
        plan=evidence.plan,
        statement=evidence.statement,
        metrics=evidence.metrics,
        choices=choices,
        adapter=words_of(choices.trainable),
        kinds=ordered_kinds(evidence.metrics),
        alarm=alarm(evidence.statement),
        noise_over_signal=noise_to_signal(evidence.plan, evidence.weights),
        canaries=in_words(evidence.canaries, evidence.statement["epsilon"]),
        canary_share=canary_share(evidence.canaries.canaries, evidence.plan),
        code=load_code(choices),
        figures=_figures(evidence, choices),
    )


def _figures(evidence: Evidence, choices: Choices) -> dict[str, Any]:
    curve = epsilon_by_step(evidence.plan)
    block, largest = evidence.usual_block, largest_signal_to_noise(evidence.plan, evidence.weights)
    return {
        "accuracy": figures.accuracy(evidence.metrics),
        "epsilon": figures.epsilon(curve, evidence.plan.target_epsilon) if curve else None,
        "importance": figures.importance(evidence.importance["layers"], evidence.importance["chosen"]),
        "fidelity": figures.fidelity(evidence.pruning),
        "noise_kept": figures.noise_kept(block, choices.update.keep),
        "right_choice": figures.right_choice(block, largest),
    }


def page_environment() -> Environment:
    """Return the templates with escaping on for every one of them, and unknown names an error."""
    environment = Environment(
        loader=PackageLoader("stages.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "interval": interval,
        "count": count,
        "basis": basis,
        "words": event_in_words,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
    }
    environment.tests |= {"noised": is_noised}
    environment.globals |= {"noise_energy_kept": noise_energy_kept}
    return environment
