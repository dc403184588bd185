"""Refuse, before any private row is read, a run whose result could not be released."""

from collections.abc import Sequence

from stages.privacy.accounting import epsilon_of
from stages.privacy.plan import Plan, read_plan
from stages.training.abandoned import Abandoned


def require_affordable(plan: Plan, abandoned: Sequence[Abandoned]) -> None:
    """Refuse a plan that, with what other runs on its population began, goes over its target.

    A population that is declared public has no limit.
    """
    if plan.population.public or not abandoned:
        return
    others = [read_plan(run.plan, f"the plan of run {run.name}").event(run.steps) for run in abandoned]
    epsilon = epsilon_of([plan.event(plan.sampling.steps), *others], plan.delta, plan.relation)
    if not epsilon <= plan.target_epsilon:
        names = ", ".join(f"{run.name} ({run.steps} steps)" for run in abandoned)
        raise ValueError(
            f"population '{plan.population.name}': runs that no statement covers have begun steps, and with "
            f"them this plan would spend epsilon {epsilon:.3f}, over the target {plan.target_epsilon:g}: "
            f"{names}. Go on with the inputs of that run, or raise privacy.epsilon and plan again"
        )
