"""Lists of whole numbers as the command line gives them."""

WHERE = "numbers from 1 as `a,b,c`, or `low:high`, which doubles from low to high"


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Return the numbers that ``text`` lists, ascending and each once; errors start with ``option``.

    >>> whole_numbers("40, 10", "--steps"), whole_numbers("100:500", "--batch")
    ((10, 40), (100, 200, 400, 500))
    """
    low, colon, high = text.partition(":")
    if not colon:
        return tuple(sorted({_number(part, text, option) for part in text.split(",")}))
    first, last = _number(low, text, option), _number(high, text, option)
    if first > last:
        raise ValueError(f"{option} {text}: a range goes upwards, from low to high")
    found = {last}
    while first < last:
        found.add(first)
        first *= 2
    return tuple(sorted(found))


def _number(part: str, text: str, option: str) -> int:
    digits = part.strip()
    if not (digits.isascii() and digits.isdigit() and int(digits) > 0):
        raise ValueError(f"{option} {text!r}: {part.strip()!r} is no such number; it takes {WHERE}")
    return int(digits)
