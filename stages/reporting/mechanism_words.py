"""What the numbers of a mechanism mean: the same names stand for other things under another mechanism."""

from dataclasses import dataclass

from stages.privacy.plan import Plan

_LAPLACE = "scale of the Laplace noise over the clip; its standard deviation is sqrt(2) times that"
_ROUNDED = "decides; rounds against us"
_ADDED = (
    "decides about Gaussian noise, and rounds against us; of Laplace noise a closed form decides, in plain "
    "floating point, and its epsilons are added up"
)


@dataclass(frozen=True, kw_only=True)
class MechanismWords:
    """One mechanism; each field says what a number of the plan, or of its statement, means."""

    noise_multiplier: str
    clip: str
    ratio: str
    """What is compared where noise stands over the largest signal."""
    accountant: str


def mechanism_words(plan: Plan) -> MechanismWords:
    """Return the meanings for a plan."""
    if plan.mechanism == "none":
        return MechanismWords(
            noise_multiplier="no noise was added",
            clip="nothing was clipped",
            ratio="there is no noise",
            accountant="has nothing to bound",
        )
    is_laplace = plan.mechanism == "laplace"
    return MechanismWords(
        noise_multiplier=_LAPLACE if is_laplace else "standard deviation of the noise over the clip",
        clip=_clip(plan, "L1" if is_laplace else "L2"),
        ratio=_ratio(plan),
        accountant=_ADDED if is_laplace else _ROUNDED,
    )


def _clip(plan: Plan, norm: str) -> str:
    if plan.directions is None:
        return f"{norm} norm that one unit's gradient may have"
    if plan.directions.count == 1:
        return "size that one unit's slope along the direction of a step may have"
    slopes = f"{plan.directions.count} slopes, along the directions of a step,"
    return f"{norm} norm that one unit's {slopes} may have together"


def _ratio(plan: Plan) -> str:
    if plan.directions is None:
        return "norm of the mean update's noise over the most a clipped mean gradient can be"
    if plan.directions.count == 1:
        return "noise on the mean slope of a step over the most a clipped mean slope can be"
    return f"norm of the noise on the {plan.directions.count} mean slopes of a step over the most they can be"
