"""Questions about digit images and scenes, each with a one-word answer.

The templates are ours, hence public: the tokenizer's vocabulary is read off them (`vocabulary`), never off a
private record. Every question has at most `LONGEST_QUESTION` word-level tokens.
"""

import re
from dataclasses import dataclass
from random import Random

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHAPES = ("circle", "square", "triangle", "cross", "ring", "bar", "diamond", "star")
COLOURS = ("red", "green", "blue", "yellow", "purple", "white", "orange", "cyan")
PLACES = ("left", "right", "top", "bottom")
LONGEST_QUESTION = 8

DIGIT = (
    "which digit is this ?",
    "what digit is shown ?",
    "what number is this ?",
    "which number do you see ?",
    "read the digit .",
    "name the number in the image .",
)
PARITY = (
    "is the digit odd or even ?",
    "is this number even or odd ?",
    "odd or even ?",
    "what is the parity of the digit ?",
)
LARGER = ("is it larger than {n} ?", "is the digit larger than {n} ?", "is this number greater than {n} ?")
SMALLER = ("is it smaller than {n} ?", "is the digit smaller than {n} ?", "is this number less than {n} ?")
SHAPE = ("what shape is this ?", "which shape do you see ?", "name the shape .", "what is drawn here ?")
COLOUR = (
    "what colour is it ?",
    "which colour do you see ?",
    "name the colour of the shape .",
    "what colour is shown ?",
)
COUNT = (
    "how many shapes are there ?",
    "how many do you see ?",
    "count the shapes .",
    "how many are in the image ?",
)
POSITION = ("where is the {s} ?", "where do you see the {s} ?", "on which side is the {s} ?")
PRESENCE = ("is there a {s} ?", "do you see a {s} ?", "does the image show a {s} ?")
COLOUR_CHECK = ("is it {c} ?", "is the shape {c} ?", "is this {c} ?")


@dataclass(frozen=True)
class Question:
    """One question about one image, with the word that answers it."""

    kind: str
    text: str
    answer: str


def words(text: str) -> list[str]:
    """Split a text as the tokenizer does: lower-case words and single punctuation marks.

    >>> words("Is it larger than five ?")
    ['is', 'it', 'larger', 'than', 'five', '?']
    """
    return re.findall(r"\w+|[^\w\s]", text.lower())


def ask_digit(digit: int, random: Random) -> Question:
    """Ask which digit the image shows."""
    return Question("digit", random.choice(DIGIT), NUMBERS[digit])


def ask_parity(digit: int, random: Random) -> Question:
    """Ask whether the digit is odd or even."""
    return Question("parity", random.choice(PARITY), "odd" if digit % 2 else "even")


def ask_comparison(digit: int, random: Random) -> Question:
    """Ask whether the digit is larger, or smaller, than a threshold from one to eight."""
    threshold = random.randint(1, 8)
    is_larger = random.random() < 0.5
    holds = digit > threshold if is_larger else digit < threshold
    text = random.choice(LARGER if is_larger else SMALLER).format(n=NUMBERS[threshold])
    return Question("comparison", text, "yes" if holds else "no")


def ask_shape(shape: str, random: Random) -> Question:
    """Ask which shape a scene of one kind of shape shows."""
    return Question("shape", random.choice(SHAPE), shape)


def ask_colour(colour: str, random: Random) -> Question:
    """Ask which colour the shapes have."""
    return Question("colour", random.choice(COLOUR), colour)


def ask_count(count: int, random: Random) -> Question:
    """Ask how many shapes the scene holds."""
    return Question("count", random.choice(COUNT), NUMBERS[count])


def ask_position(shape: str, place: str, random: Random) -> Question:
    """Ask in which part of the image a single shape is."""
    return Question("position", random.choice(POSITION).format(s=shape), place)


def ask_presence(shape: str, random: Random) -> Question:
    """Ask for the shape that is there, or for another one, with equal odds."""
    is_there = random.random() < 0.5
    named = shape if is_there else random.choice([other for other in SHAPES if other != shape])
    return Question("presence", random.choice(PRESENCE).format(s=named), "yes" if is_there else "no")


def ask_colour_check(colour: str, random: Random) -> Question:
    """Ask for the colour that is there, or for another one, with equal odds."""
    is_there = random.random() < 0.5
    named = colour if is_there else random.choice([other for other in COLOURS if other != colour])
    return Question("colour_check", random.choice(COLOUR_CHECK).format(c=named), "yes" if is_there else "no")


def ask_about_digit(digit: int, random: Random) -> list[Question]:
    """Ask one question of each digit kind."""
    return [ask_digit(digit, random), ask_parity(digit, random), ask_comparison(digit, random)]


def vocabulary() -> list[str]:
    """Return every word that a question or an answer can hold, sorted."""
    templates = (
        DIGIT + PARITY + LARGER + SMALLER + SHAPE + COLOUR + COUNT + POSITION + PRESENCE + COLOUR_CHECK
    )
    fillers = {"n": "", "s": "", "c": ""}
    texts = [template.format(**fillers) for template in templates]
    return sorted(
        {word for text in texts for word in words(text)}.union(
            NUMBERS, SHAPES, COLOURS, PLACES, ("yes", "no")
        )
    )
