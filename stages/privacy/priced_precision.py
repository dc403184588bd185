"""Refuse a precision whose rounding nothing prices."""

from stages.privacy.population import Population


def is_priced(precision: object, population: Population) -> bool:
    """Tell whether people may be trained with in ``precision``, the value of ``model.precision``.

    In a precision below float32 the rounding of training lets one unit change what its neighbours in a
    micro-batch add.
    """
    return precision == "float32" or population.public


def require_priced_precision(precision: str, population: Population) -> None:
    """Refuse such a precision on people who are not public, before anything of theirs is looked at or spent.

    A noised sum has no neighbours, every unit going through the model alone; but the training that it serves
    would be refused, and the sum would have been paid for nothing.
    """
    if not is_priced(precision, population):
        raise ValueError(
            f"model.precision {precision}: in training its rounding lets one unit change what its "
            "neighbours in a micro-batch add, which nothing prices yet; population "
            f"'{population.name}' is not public, so set model.precision to float32 before anything is spent"
        )
