"""What a release would spend, asked of the ledger before anything is reserved."""

from pathlib import Path

import dp_accounting

from stages.core.contract import Stage
from stages.core.fingerprint import ResolvedInputs
from stages.core.spending import Spending
from stages.ledger.ledger import Ledger
from stages.ledger.release import recorded_digest
from stages.ledger.settings import LedgerSettings
from stages.privacy.accountants import Relation
from stages.privacy.accounting import composed_epsilon, is_nonprivate
from stages.privacy.chain import Split
from stages.privacy.event_words import event_in_words
from stages.privacy.events import event_to_json
from stages.privacy.history import History
from stages.privacy.population import Population
from stages.privacy.totals import totals_of
from stages.training.intents import read_header
from stages.training.run_folder import is_begun, run_folder


def spending_of(
    stage: Stage,
    output: Path,
    population: Population,
    relation: Relation,
    split: Split,
    event: dp_accounting.DpEvent,
) -> Spending | None:
    """Return what running ``stage`` would reserve; None where a reserved run of these inputs goes on.

    ``output`` is the file that a release of the stage is known by. Nothing is reserved, read or written.
    A run whose reservation the ledger has lost, or that was given up, reserves anew and is told like a new
    one.
    """
    fingerprint = ResolvedInputs.of(stage).fingerprint()
    history = Ledger.load(make=False).history(population.name)
    if is_begun(stage.name(), fingerprint, recorded_digest(stage.name(), output)):
        header = read_header(run_folder(stage.name(), fingerprint).intents)
        known = None if header is None else history.releases.get(str(header["release"]))
        if known is not None and known.state != "abandoned":
            return None
    return Spending(
        stage=stage.name(),
        population=population.name,
        what=f"{event_in_words(event_to_json(event))}, of split {split}: {_price(event, relation)}",
        remains=_remains(population, split, history),
        fingerprint=fingerprint,
    )


def _price(event: dp_accounting.DpEvent, relation: Relation) -> str:
    if is_nonprivate(event):
        return "no privacy at all"
    delta = LedgerSettings.load().limit.delta
    epsilon = composed_epsilon({"train": [event]}, delta, relation, "sequential")
    return f"epsilon {epsilon:.4g} at delta {delta:g} on its own"


def _remains(population: Population, split: Split, history: History) -> str:
    limit = LedgerSettings.load().limit
    if population.public:
        return "the population is declared public: releases are recorded, none is refused"
    found = totals_of(history)
    if found is None:
        return f"all of epsilon {limit.epsilon:g} at delta {limit.delta:g}: nothing was reserved yet"
    return (
        f"{found.splits[split].remaining:.4g} of the budget {found.limit.budget:.4g} in Renyi DP at order "
        f"{found.limit.order:g}; what is spent and reserved comes to epsilon {found.epsilon:.4g}, of "
        f"{limit.epsilon:g} at delta {limit.delta:g}"
    )
