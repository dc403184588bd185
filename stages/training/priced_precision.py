"""Refuse a precision whose rounding nothing prices."""

from stages.privacy.population import Population
from stages.vlm.source import Model


def require_priced_precision(model: Model, population: Population) -> None:
    """Refuse a precision below float32 on people who are not public, before anything of theirs is spent.

    In training its rounding lets one unit change what its neighbours in a micro-batch add. A noised sum has
    no neighbours, every unit going through the model alone; but the training that it serves would be refused,
    and the sum would have been paid for nothing.
    """
    if model.precision != "float32" and not population.public:
        raise ValueError(
            f"model.precision {model.precision}: in training its rounding lets one unit change what its "
            "neighbours in a micro-batch add, which nothing prices yet; population "
            f"'{population.name}' is not public, so set model.precision to float32 before anything is spent"
        )
