"""A privacy event in words."""

from collections.abc import Mapping
from typing import Any


def event_in_words(event: Mapping[str, Any]) -> str:
    """Say a stored privacy event.

    >>> gaussian = {"class": "GaussianDpEvent", "noise_multiplier": 0.8}
    >>> event_in_words({"class": "SelfComposedDpEvent", "count": 5, "event": gaussian})
    '5 times: Gaussian noise, multiplier 0.8'
    """
    match event["class"]:
        case "NoOpDpEvent":
            return "nothing"
        case "NonPrivateDpEvent":
            return "everything: no privacy"
        case "GaussianDpEvent":
            return f"Gaussian noise, multiplier {event['noise_multiplier']:g}"
        case "LaplaceDpEvent":
            return f"Laplace noise, multiplier {event['noise_multiplier']:g}"
        case "PoissonSampledDpEvent":
            rate = f"{event['sampling_probability']:g}"
            return f"Poisson sample at rate {rate}, {event_in_words(event['event'])}"
        case "SelfComposedDpEvent":
            return f"{event['count']} times: {event_in_words(event['event'])}"
        case "ComposedDpEvent":
            return "; then ".join(map(event_in_words, event["events"]))
    raise ValueError(f"no words for the privacy event {event['class']!r}")
