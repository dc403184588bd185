"""The page says the statement word for word, loads nothing, and escapes everything."""

import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from choices import pruning

from stages.core.files import read_json
from stages.evaluation.noised_accuracy import NoisedAccuracy
from stages.privacy.canary_evidence import in_words
from stages.privacy.charge import noised_sum_charge
from stages.privacy.clipping_rule import Clipping
from stages.privacy.directions import Directions
from stages.privacy.noised_sum import NoisedSum
from stages.privacy.planning import plan_for
from stages.report import Report
from stages.reporting.card import render_card
from stages.reporting.evidence import Evidence, read_evidence
from stages.reporting.page import SECTIONS, factor, render_page
from tests.stages.reporting.finished_run import (
    CANARIES,
    CHOICES,
    METRICS,
    POPULATION,
    SAMPLING,
    TARGET,
    change,
    write_accounts,
    write_run,
)
from tests.stages.reporting.test_card import choices

HOSTILE = '<script>alert("1")</script>'
CHARTS = 6
"""What a small run draws: bytes of a step are not counted in it, as on private records."""
LOADS = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}


class Page(HTMLParser):
    """The tags, the attributes and the text of a page, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def checkout(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run") / "checkout"
    write_run(root, tiny_llava, kinds=("digit", HOSTILE))
    return root


def evidence_in(root: Path) -> Evidence:
    inputs = {port.name: root / port.path for port in Report.ports() if port.path and port.role == "reads"}
    return read_evidence(**inputs)


@pytest.fixture(scope="module")
def evidence(checkout: Path) -> Evidence:
    return evidence_in(checkout)


@pytest.fixture(scope="module")
def page(evidence: Evidence) -> str:
    return render_page(evidence, choices())


def test_the_first_paragraph_of_substance_is_the_statements_sentence(page: str, checkout: Path) -> None:
    sentence = read_json(checkout / "data/account/statement.json")["sentence"]
    text = [part.strip() for part in Page(page).text]
    assert sentence in text, "word for word"
    assert text.index(sentence) < text.index("Utility on held-out records")
    assert 'role="alert"' not in page


def test_nothing_is_loaded_and_nothing_runs(page: str) -> None:
    """What an attribute names is in the page itself: a place in it, or data."""
    parsed = Page(page)
    assert not {"script", "iframe", "object", "embed", "base"} & set(parsed.tags)
    asked = [value for name, value in parsed.attributes if name in LOADS]
    assert asked and not [value for value in asked if not str(value).startswith(("#", "data:"))]
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert "@import" not in page and "url(" not in page
    policy = dict(parsed.attributes)["content"]
    assert policy is not None
    assert parsed.tags.count("svg") == CHARTS


def test_a_hostile_kind_is_text_everywhere(page: str) -> None:
    parsed = Page(page)
    assert HOSTILE in parsed.text, "in the table"
    assert parsed.text.count(HOSTILE) >= 2, "and in the figure"
    assert "<script" not in page.lower()


def test_hostile_evidence_is_text_too(evidence: Evidence) -> None:
    plan = replace(evidence.plan, population=replace(evidence.plan.population, name=HOSTILE))
    statement = {**evidence.statement, "population": HOSTILE, "sentence": HOSTILE, "limits": [HOSTILE]}
    trace = {**evidence.trace, "commit": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    metrics = {**evidence.metrics, "release": HOSTILE}
    page = render_page(
        replace(evidence, plan=plan, statement=statement, trace=trace, metrics=metrics), choices()
    )
    assert "<script" not in page.lower()


def test_every_section_has_a_heading_that_a_link_leads_to(page: str) -> None:
    found = Page(page)
    links = [value for name, value in found.attributes if name == "href" and value and value != "#main"]
    assert [link for link in links if link.startswith("#")] == [f"#{name}" for name in SECTIONS]
    assert {name for name in SECTIONS} <= {value for name, value in found.attributes if name == "id"}
    for heading in SECTIONS.values():
        assert heading in found.text


def test_every_chart_is_said_in_words_and_in_a_table(page: str) -> None:
    charts = page.split("<figure>")[1:]
    assert len(charts) == CHARTS
    for chart in charts:
        inside = chart.split("</figure>")[0]
        assert re.search(r'<svg role="img" aria-label="[^"]{40,}"', inside)
        assert "<figcaption>" in inside and "<details>" in inside and inside.count("<tr>") > 1


def test_what_is_signed_names_the_statement_and_what_nobody_can_compute(
    page: str, checkout: Path, evidence: Evidence
) -> None:
    digest = hashlib.sha256((checkout / "data/account/statement.json").read_bytes()).hexdigest()
    assert page.count(digest) == 2, "where it is signed, and among the evidence"
    assert factor(evidence.statement["epsilon"]) in page
    free = [charge for charge in evidence.charges["charges"] if charge["release"] is None]
    assert free and page.count("looked at may be public") == len(free)


def test_a_pass_that_spent_more_than_planned_promises_no_detection_rate(
    evidence: Evidence, page: str
) -> None:
    more = {**evidence.statement, "epsilon": evidence.statement["epsilon"] + 1}
    assert "wrongly accused" in page
    assert "wrongly accused" not in render_page(replace(evidence, statement=more), choices())


def test_what_the_run_took_is_read_from_public_rows(evidence: Evidence) -> None:
    """MiB and shares are of what calibrate stored."""
    costs = {"bytes": 3 * 1024**2, "step": 0.25, "row_tokens": 12.0}
    found = [{**each, **costs} for each in evidence.pruning["candidates"]]
    whole = {**evidence.pruning["all"], "bytes": 12 * 1024**2}
    given = {**evidence.pruning, "candidates": found, "all": whole}
    whole_run, tokens = choices(), replace(choices().tokens, select="dominant_contextual")
    html = render_page(replace(evidence, pruning=given), replace(whole_run, tokens=tokens))
    pruned = plain_text(html)
    assert "has 3.0 MiB of tensors alive" in pruned and "25.0 % of what it has with all" in pruned
    assert "a budget chosen beforehand" in pruned and "does not use, it would" not in pruned
    assert Page(html).tags.count("svg") == CHARTS + 1
    unpruned = plain_text(render_page(replace(evidence, pruning=given), whole_run))
    assert "has 12.0 MiB of tensors alive" in unpruned and "a budget chosen beforehand" not in unpruned
    assert "does not use, it would have 25.0 % of that" in unpruned and "This run prunes no image" in unpruned


def test_equal_evidence_gives_equal_bytes(evidence: Evidence, page: str) -> None:
    assert render_page(evidence, choices()) == page


def test_the_known_arithmetic_is_on_the_page(page: str) -> None:
    plain = page.replace("\N{NO-BREAK SPACE}", " ").replace("&nbsp;", " ")
    assert "99.6 % of the noise energy" in " ".join(plain.split())
    assert "50 % keeps 92.9 %" in plain


def test_a_run_without_noise_says_so_in_red(tiny_llava: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "run", tiny_llava, kind="nonprivate")
    page = render_page(evidence_in(tmp_path / "run"), choices())
    alert = page.index('role="alert"')
    assert "No privacy" in page[alert : alert + 200]
    assert alert < page.index('id="statement"')
    assert "no bound" in page and Page(page).tags.count("svg") == CHARTS - 1, "no curve of epsilon"


def plain_text(page: str) -> str:
    """Return what a reader reads, on one line."""
    return " ".join("".join(Page(page).text).split())


def test_numbers_of_laplace_slopes_are_not_told_as_those_of_gaussian_gradients(
    tiny_llava: Path, tmp_path: Path, page: str
) -> None:
    plan = plan_for(
        "zeroth_order",
        replace(TARGET, delta=0.0),
        POPULATION,
        SAMPLING,
        clipping=Clipping(1.0),
        rows_per_unit=1,
        directions=Directions(count=4, perturbation=1e-3, seed=1),
        noise="laplace",
    )
    write_run(tmp_path / "run", tiny_llava, plan=plan)
    slopes, gradients = plain_text(render_page(evidence_in(tmp_path / "run"), choices())), plain_text(page)
    for said in (
        "scale of the Laplace noise over the clip; its standard deviation is sqrt(2) times that",
        "L1 norm that one unit's 4 slopes, along the directions of a step, may have together",
        "norm of the noise on the 4 mean slopes of a step over the most they can be",
        "of Laplace noise a closed form decides, in plain floating point",
        "it lies along the public directions of a step",
    ):
        assert said in slopes and said not in gradients, said
    for said in (
        "standard deviation of the noise over the clip",
        "L2 norm that one unit's gradient may have",
        "norm of the mean update's noise over the most a clipped mean gradient can be",
        "decides; rounds against us",
        "The dashed line, where shown, is the most signal this plan allows",
    ):
        assert said in gradients and said not in slopes, said


def test_the_limit_on_attacks_is_said_to_be_that_of_this_pass_alone(evidence: Evidence, page: str) -> None:
    alone = plain_text(page)
    assert "studies what this pass released, and says" in alone
    assert "every conceivable attack on what this pass released" in alone and "at hand" not in alone
    total = evidence.statement["population_total"]
    for more, said in ((1, "population's other release at hand"), (3, "3 other releases at hand")):
        statement = {
            **evidence.statement,
            "population_total": {**total, "releases": total["releases"] + more},
        }
        assert said in plain_text(render_page(replace(evidence, statement=statement), choices()))


def test_what_is_said_to_be_the_most_is_rounded_up(evidence: Evidence) -> None:
    total = {**evidence.statement["population_total"], "epsilon": 9.12341}
    statement = {**evidence.statement, "epsilon": 2.00011, "population_total": total}
    html = render_page(replace(evidence, statement=statement), choices())
    assert "<dt>epsilon spent</dt><dd>2.001</dd>" in html
    assert 'claimed epsilon</th><td class="value">2.001</td>' in html
    page = plain_text(html)
    assert "rounded up; target 8" in page and "at most e to the power 2.001, which is 7.39, except" in page
    assert "(epsilon 9.124 together)" in page and "2.0002" in page and "9.1235" in page


def test_the_audit_is_not_said_to_follow_every_number(page: str) -> None:
    said = plain_text(page)
    assert "every number" not in said
    assert (
        "epsilon, charges and digests follow from the stored evidence, and this file is the one that" in said
    )


def test_images_of_many_sizes_have_no_number_of_tokens_and_none_is_told(evidence: Evidence) -> None:
    pruned = {**evidence.pruning, "all": {**evidence.pruning["all"], "kept": None}}
    given = replace(evidence, pruning=pruned, metrics={**evidence.metrics, "visual_tokens": None})
    page, card = plain_text(render_page(given, choices())), render_card(given, choices())
    assert "None" not in page and "None" not in card
    assert "of a number that depends on the image" in page and "a number that depends on the image." in card
    assert "sees all visual tokens" in page and "sees all visual tokens" in card
    known = render_card(evidence, choices())
    assert "the model saw: 9 an image." in known and "sees all 64 visual tokens" in known


UPDATES = {
    "all": ("the whole of a noisy update is applied", "scores nothing"),
    "block": ("post-processing, free", "This run scores blocks, by one step"),
    "magnitude": ("post-processing, free", "This run scores single weights, by one step"),
    "random": ("post-processing, free", "keeps that very share of the noise energy", "scores nothing"),
    "accumulated": ("masked before they are clipped", "This run scores by its first 10 steps, summed"),
}


@pytest.mark.parametrize("prune", UPDATES)
def test_every_rule_of_updates_is_told_by_what_it_does_alone(evidence: Evidence, prune: str) -> None:
    given = replace(choices(), update=pruning(prune, 0.8, warmup_steps=10))
    page = plain_text(render_page(evidence, given))
    for said in {phrase for phrases in UPDATES.values() for phrase in phrases}:
        assert (said in page) == (said in UPDATES[prune]), said
    assert ("update.keep, which this run does not use" in page) == (prune == "all")


def test_a_total_over_the_target_says_so_in_red(evidence: Evidence) -> None:
    statement = {**evidence.statement, "epsilon": 9.5, "within_target": False}
    page = render_page(replace(evidence, statement=statement), choices())
    alert = page.index('role="alert"')
    assert "epsilon 9.500, is over the target of 8" in page[alert : alert + 200]


def test_noised_figures_and_choices_are_shown_as_such(evidence: Evidence, page: str) -> None:
    mechanism = NoisedSum(rate=1.0, rows_per_unit=2, clip=1.0, noise_multiplier=5.0)
    people = (evidence.plan.population, evidence.plan.relation, "a" * 32, mechanism)
    counts = {kind: NoisedAccuracy(30.2, 40.7, 5.0).to_json() for kind in evidence.metrics["tuned"]}
    given = replace(
        evidence,
        metrics={
            **evidence.metrics,
            "zero_shot": counts,
            "tuned": counts,
            "charge": noised_sum_charge("evaluate", "heldout", *people),
        },
        importance={
            "layers": [{"layer": layer, "log_likelihood": layer / 4} for layer in range(3)],
            "chosen": 2,
            "charge": noised_sum_charge("profile", "train", *people),
        },
        pruning={
            **evidence.pruning,
            "charge": noised_sum_charge("calibrate", "train", *people),
        },
    )
    noised = " ".join(render_page(given, choices()).split())
    exact = " ".join(page.split())
    for said in ("about 41", "one noised sum over private units", "widened by the noise", ", with noise."):
        assert said in noised and said not in exact, said
    for said in ("on public records, which costs no privacy", 'data-name="rows">40</td>'):
        assert said in exact and said not in noised, said
    assert Page(noised).tags.count("svg") == CHARTS
    assert Page(exact).tags.count("img") == 2 and "img" not in Page(noised).tags, (
        "pictures of public images only"
    )


def test_a_kind_without_rows_has_no_bar_and_no_accuracy(evidence: Evidence) -> None:
    nothing = {"correct": -3.5, "rows": -1.2, "accuracy": None, "low": 0.0, "high": 1.0}
    models = {name: {**evidence.metrics[name], "digit": nothing} for name in ("zero_shot", "tuned")}
    page = render_page(replace(evidence, metrics={**evidence.metrics, **models}), choices())
    assert "about -1" in page and 'data-name="fine-tuned">-</td>' in page


def test_what_canaries_showed_stands_beside_the_claim(evidence: Evidence, page: str) -> None:
    """The finished run planted 200, at rate 0.1 and an expected batch of 10: one batch a step."""
    words = in_words(evidence.canaries, evidence.statement["epsilon"])
    assert words.startswith("31 of 50 guesses about 200 canaries were right")
    assert f'<p id="canaries">{words}.</p>' in page and words in render_card(evidence, choices())
    assert "100.0\N{NO-BREAK SPACE}% of the expected batch" in page
    nobody = {
        "canaries": 0,
        "guessed_in": 0,
        "guessed_out": 0,
        "right": 0,
        "lower_bound": 0.0,
        "ceiling": 0.0,
    }
    without = render_page(replace(evidence, canaries=replace(evidence.canaries, **nobody)), choices())
    assert '<p id="canaries">No canaries were planted.</p>' in without
    assert "What they cost" in page and "What they cost" not in without


def test_evidence_of_another_run_is_refused(tiny_llava: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    plan = write_run(root, tiny_llava)
    change(root / "data/finetune/trace.json", commit="another")
    with pytest.raises(ValueError, match=r"trace\.json is not the file that .*statement\.json commits to"):
        evidence_in(root)
    write_accounts(root, plan)
    evidence_in(root)
    for file, said in (
        (METRICS, r"metrics\.json is not the file that .*statement\.json commits to"),
        (CHOICES[0], r"profile\.json is not the file that .*charges\.json names"),
        (CHOICES[1], r"pruning\.json is not the file that .*charges\.json names"),
    ):
        whole = (root / file).read_bytes()
        change(root / file, another=1)
        with pytest.raises(ValueError, match=said):
            evidence_in(root)
        (root / file).write_bytes(whole)
    canaries = read_json(root / CANARIES)["adapter"]
    change(root / CANARIES, adapter={"adapter_model.safetensors": "0" * 64})
    with pytest.raises(ValueError, match=r"canaries\.json is about another adapter than .*trace\.json"):
        evidence_in(root)
    change(root / CANARIES, adapter=canaries)
    change(root / "models/adapter/adapter_config.json", r=5)
    with pytest.raises(ValueError, match=r"adapter_config\.json is not the file that .*trace\.json names"):
        evidence_in(root)
