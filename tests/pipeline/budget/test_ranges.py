"""Lists of numbers on the command line."""

import pytest

from pipeline.budget.ranges import whole_numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("7", (7,)),
        ("8,2,8", (2, 8)),
        ("3:3", (3,)),
        ("1:8", (1, 2, 4, 8)),
        ("3:20", (3, 6, 12, 20)),
    ],
)
def test_a_list_is_sorted_and_a_range_doubles_to_its_end(text: str, numbers: tuple[int, ...]) -> None:
    assert whole_numbers(text, "--batch") == numbers


@pytest.mark.parametrize("text", ["", "a", "1,", "-4", "0", "1.5", "5:", ":5", "1:2:3", "9:3", "²"])
def test_anything_else_is_a_sentence_that_names_the_option(text: str) -> None:
    with pytest.raises(ValueError, match="^--batch "):
        whole_numbers(text, "--batch")
