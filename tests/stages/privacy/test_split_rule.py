"""Only the rule that we know to be a function of the unit's own id counts as one."""

import pytest

from stages.privacy.split_rule import is_function_of_the_unit, keyed_hash_rule, source_field_rule


@pytest.mark.parametrize("heldout", [0.2, 0.5, 1e-9])
def test_a_keyed_hash_is_a_function_of_the_unit(heldout: float) -> None:
    assert is_function_of_the_unit(keyed_hash_rule("patient", heldout))
    assert is_function_of_the_unit(f"keyed hash of the unit, held out {heldout!r}"), (
        "as ledgers of before say"
    )


def test_another_field_of_ids_is_another_rule() -> None:
    assert keyed_hash_rule("patient", 0.2) != keyed_hash_rule("new_patient", 0.2)


@pytest.mark.parametrize("field", ["split", "keyed hash of the unit in field 'u', held out 0.2", ""])
def test_what_the_source_says_is_not_known_to_be_one(field: str) -> None:
    assert not is_function_of_the_unit(source_field_rule(field))
    assert not is_function_of_the_unit(field.upper())
    assert source_field_rule(field) != source_field_rule(field + "2")
