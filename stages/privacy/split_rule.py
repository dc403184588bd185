"""How units are assigned to splits, in words that the ledger records."""

_KEYED_HASH = ("keyed hash of the unit in field ", "keyed hash of the unit, held out ")
"""How such a rule begins; the second is how ledgers of before have it."""


def keyed_hash_rule(field: str, heldout: float) -> str:
    """Return the rule by which a unit is held out with chance ``heldout``, whatever other units there are.

    ``field`` of the records has the unit's id. By another field the same unit has another id, and so may be
    in another split: that is another rule.

    >>> keyed_hash_rule("patient_id", 0.2)
    "keyed hash of the unit in field 'patient_id', held out 0.2"
    """
    return f"{_KEYED_HASH[0]}{field!r}, held out {heldout!r}"


def source_field_rule(field: str) -> str:
    """Return the rule by which the source says which split a unit is in."""
    return f"field {field!r} of the source"


def is_function_of_the_unit(rule: str) -> bool:
    """Tell whether a unit's split is known to be a function of its own id alone.

    Guarantee: true only for rules of ``keyed_hash_rule``, as they are spelled now or were before. What a
    source declares may depend on other units.
    """
    return rule.startswith(_KEYED_HASH)
