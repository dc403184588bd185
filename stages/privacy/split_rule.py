"""How units are assigned to splits, in words that the ledger records."""

_KEYED_HASH = "keyed hash of the unit, held out "


def keyed_hash_rule(heldout: float) -> str:
    """Return the rule by which a unit is held out with chance ``heldout``, whatever other units there are.

    >>> keyed_hash_rule(0.2)
    'keyed hash of the unit, held out 0.2'
    """
    return f"{_KEYED_HASH}{heldout!r}"


def source_field_rule(field: str) -> str:
    """Return the rule by which the source says which split a unit is in."""
    return f"field {field!r} of the source"


def is_function_of_the_unit(rule: str) -> bool:
    """Tell whether a unit's split is known to be a function of its own id alone.

    Guarantee: true only for rules of ``keyed_hash_rule``. What a source declares may depend on other units.
    """
    return rule.startswith(_KEYED_HASH)
