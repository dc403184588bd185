"""Answer questions about images as the model was trained to: the same pruned tokens and positions."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

from stages.evaluation.greedy import Prompt, greedy_answers
from stages.records.row import IMAGE, Message
from stages.vlm.encoder import encode_image, image_token_id, require_rule
from stages.vlm.loaded import Loaded
from stages.vlm.seen import KeptImage
from stages.vlm.selection import Rule
from stages.vlm.tokens import TokenSequence, prune_slots, tokenise_prompt

MAX_NEW_TOKENS = 64


def answer(loaded: Loaded, image: bytes, question: str, rule: Rule) -> str:
    """Return the greedy answer of a model that sees what ``rule`` keeps of the image.

    Edge cases: an empty question, and one that holds an image mark, are a ValueError; an answer longer than
    ``MAX_NEW_TOKENS`` is cut there.
    """
    prompt, seen = prompt_of(loaded, image, question, rule)
    return _text(loaded, greedy_tokens(loaded, prompt, seen, MAX_NEW_TOKENS))


def answers(
    loaded: Loaded, asked: Iterable[tuple[Sequence[Message], Sequence[bytes]]], rule: Rule, batch: int
) -> Iterator[str]:
    """Yield the greedy answer to each conversation about its images, ``batch`` of them at a time.

    Guarantee: those about one image are what ``answer`` returns, whatever ``batch`` is.

    Edge cases: as many conversations are taken from ``asked`` as are answered at once; an image that is shown
    by several of them goes through the tower once.
    """
    require_rule(loaded, rule)
    kept = lru_cache(maxsize=batch)(lambda image: encode_image(loaded, image, rule))
    waiting = iter(asked)
    while some := list(islice(waiting, batch)):
        prompts = []
        for messages, images in some:
            seen = [kept(image) for image in images]
            features = tuple(image.features_SD for image in seen)
            prompts.append(Prompt(_pruned(loaded, messages, seen), features))
        for tokens in greedy_answers(loaded, prompts, MAX_NEW_TOKENS):
            yield _text(loaded, tokens)


def about_one_image(question: str) -> tuple[Message, ...]:
    """Return the conversation that asks a question about one image, which stands before it."""
    return (Message("user", IMAGE + question),)


def require_question(question: str, mark: str) -> None:
    """Refuse an empty question, one that UTF-8 cannot hold, and one that holds the ``mark`` of an image."""
    if not question.strip():
        raise ValueError("the question is empty: ask something about the image")
    try:
        question.encode()
    except UnicodeEncodeError:
        raise ValueError("the question is not UTF-8 text: ask it in UTF-8") from None
    if mark in question:
        raise ValueError(f"the question must not contain '{mark}': its one image stands before it")


def prompt_of(loaded: Loaded, image: bytes, question: str, rule: Rule) -> tuple[TokenSequence, KeptImage]:
    """Return the pruned prompt, at the positions of the unpruned one, and what is kept of the image."""
    for mark in (IMAGE, loaded.processor.image_token):
        require_question(question, mark)
    require_rule(loaded, rule)
    seen = encode_image(loaded, image, rule)
    return _pruned(loaded, about_one_image(question), [seen]), seen


def greedy_tokens(loaded: Loaded, prompt: TokenSequence, seen: KeptImage, at_most: int) -> list[int]:
    """Return the most likely next token again and again, up to and with the end mark.

    Guarantee: ``rows_answered`` holds for a row exactly when this returns the row's labels.
    """
    [found] = greedy_answers(loaded, [Prompt(prompt, (seen.features_SD,))], at_most)
    return found


def _pruned(loaded: Loaded, messages: Sequence[Message], images: Sequence[KeptImage]) -> TokenSequence:
    whole = tokenise_prompt(messages, loaded, [image.frame for image in images])
    return prune_slots(whole, image_token_id(loaded), images)


def _text(loaded: Loaded, tokens: Sequence[int]) -> str:
    text: str = loaded.processor.tokenizer.decode(tokens, skip_special_tokens=True)
    return text.strip()
