"""Which batch and how many steps to take, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.budget.options import Option

SLACK = 0.05
"""So much more noise than the least is no difference; the least work decides then."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may take; None: anything."""

    hours: float | None
    gib: float | None

    def against(self, option: Option) -> str | None:
        """Return what an option is beyond, in words; None where it may be run."""
        if option.allowed.refused is not None:
            return "the ledger"
        if self.hours is not None and (option.seconds is None or option.seconds > 3600 * self.hours):
            return f"the time limit of {self.hours:g} h"
        if self.gib is not None and (option.peak_gib is None or option.peak_gib > self.gib):
            return f"the memory limit of {self.gib:g} GiB"
        return None


@dataclass(frozen=True)
class Recommendation:
    """One option, or none, and the reason in sentences."""

    option: Option | None
    reasons: tuple[str, ...]


def recommend(options: Sequence[Option], limits: Limits, weights: int, configured: int) -> Recommendation:
    """Return the option with the least noise over signal of the whole run, and the least work for it.

    Of the options that the limits and the ledger let through, those within ``SLACK`` of the least noise over
    signal of the run are as good, and of them the one that looks at fewest units is taken. A step's own
    figure would always choose the fewest steps, for each of a few steps has less noise; the run's counts that
    many steps also say more. The order of options does not hang on ``weights``.

    The run's figure does not see that few updates train no model: where every unit joins each step it is the
    same for any number of steps. So none with fewer steps than ``configured``, sampling.steps of params.yaml,
    is taken; where so many were not asked about or do not fit, none with fewer than the next smaller number.
    """
    fit = [option for option in options if limits.against(option) is None]
    if not fit:
        beyond = sorted({str(limits.against(option)) for option in options})
        refused = next((option.allowed.refused for option in options if option.allowed.refused), None)
        more = () if refused is None else (f"the ledger says: {refused}",)
        return Recommendation(None, (f"no option can be run: each is beyond {' or '.join(beyond)}", *more))
    fewest = max((option.steps for option in fit if option.steps <= configured), default=1)
    enough = [option for option in fit if option.steps >= fewest]
    least, chosen = _least_and_cheapest(enough, weights)
    reasons = [_why(chosen, least, len(enough), weights), *_too_few_steps(fit, chosen, fewest, weights)]
    limited = _limited(options, least, limits, weights)
    return Recommendation(chosen, (*reasons, *limited))


def _least_and_cheapest(among: Sequence[Option], weights: int) -> tuple[Option, Option]:
    """Return the option with the least noise of the run, and of those as good the one with the least work."""
    least = min(among, key=lambda option: (option.of_the_run(weights), option.work))
    near = [each for each in among if each.of_the_run(weights) <= (1 + SLACK) * least.of_the_run(weights)]
    return least, min(near, key=lambda option: (option.work, option.of_the_run(weights)))


def _too_few_steps(fit: Sequence[Option], chosen: Option, fewest: int, weights: int) -> list[str]:
    """Say what would have been taken if the number of steps did not matter for itself."""
    _, cheapest = _least_and_cheapest(fit, weights)
    if cheapest.steps >= fewest:
        return []
    return [
        f"not fewer than {fewest} steps, by sampling.steps of params.yaml: batch {cheapest.batch} in "
        f"{cheapest.steps} {'step' if cheapest.steps == 1 else 'steps'} would have "
        f"{cheapest.of_the_run(weights):.3g} at {cheapest.work / chosen.work:.0%} of the work, but this "
        "figure does not see that few updates train no model"
    ]


def _why(chosen: Option, least: Option, fit: int, weights: int) -> str:
    ratio = chosen.of_the_run(weights)
    if chosen is least:
        return (
            f"of the {fit} options that fit it has the least noise: over the whole run {ratio:.3g} times the "
            "largest signal"
        )
    return (
        f"over the whole run its noise is {ratio:.3g} times the largest signal, within {SLACK:.0%} of the "
        f"least that fits (batch {least.batch}, {least.steps} steps: {least.of_the_run(weights):.3g}), at "
        f"{chosen.work / least.work:.0%} of the work"
    )


def _limited(options: Sequence[Option], least: Option, limits: Limits, weights: int) -> list[str]:
    """Say what stands in the way of less noise: a limit, or the end of what was asked about."""
    found = []
    for reason in dict.fromkeys(map(limits.against, options)):
        ruled_out = [option for option in options if limits.against(option) == reason]
        best = min(ruled_out, key=lambda option: option.of_the_run(weights))
        if reason is not None and best.of_the_run(weights) < least.of_the_run(weights):
            found.append(
                f"limited by {reason}: batch {best.batch} in {best.steps} steps would have "
                f"{best.of_the_run(weights):.3g}"
            )
    edges = []
    if least.plan.sampling.rate == 1:
        found.append("limited by the units: every one joins each step, so no batch is larger")
    elif least.batch == max(option.batch for option in options):
        edges.append("larger batches")
    if least.steps == max(option.steps for option in options):
        edges.append("more steps")
    if not found and edges:
        found.append(f"limited by what was asked about: {' and '.join(edges)} were not looked at")
    return found
