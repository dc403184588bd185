"""Write privacy events as JSON and read them back.

Events are the only language between trainer and accountant. Class names come from an allow-list:
dp_accounting's own ``DpEvent.from_named_tuple`` imports whatever module the text names, which would run code
for whoever wrote the file.
"""

from typing import Any

import dp_accounting

from stages.privacy.accountants import SELECTION

_SCALARS: dict[str, tuple[type[dp_accounting.DpEvent], dict[str, type]]] = {
    "NoOpDpEvent": (dp_accounting.NoOpDpEvent, {}),
    "NonPrivateDpEvent": (dp_accounting.NonPrivateDpEvent, {}),
    "GaussianDpEvent": (dp_accounting.GaussianDpEvent, {"noise_multiplier": float}),
    "LaplaceDpEvent": (dp_accounting.LaplaceDpEvent, {"noise_multiplier": float}),
    "PoissonSampledDpEvent": (dp_accounting.PoissonSampledDpEvent, {"sampling_probability": float}),
    "SelfComposedDpEvent": (dp_accounting.SelfComposedDpEvent, {"count": int}),
    "ComposedDpEvent": (dp_accounting.ComposedDpEvent, {}),
}
_CHILD = ("PoissonSampledDpEvent", "SelfComposedDpEvent")


def event_to_json(event: dp_accounting.DpEvent) -> dict[str, Any]:
    """Return the JSON form of an event; an event outside the allow-list is refused."""
    name = type(event).__name__
    if name not in _SCALARS:
        raise ValueError(f"privacy event {name} has no stored form; known: {sorted(_SCALARS)}")
    written: dict[str, Any] = {"class": name}
    for key, kind in _SCALARS[name][1].items():
        written[key] = kind(getattr(event, key))
    if isinstance(event, dp_accounting.PoissonSampledDpEvent | dp_accounting.SelfComposedDpEvent):
        written["event"] = event_to_json(event.event)
    if isinstance(event, dp_accounting.ComposedDpEvent):
        written["events"] = [event_to_json(part) for part in event.events]
    return written


def event_from_json(value: Any) -> dp_accounting.DpEvent:
    """Return the event that ``value`` describes; anything unknown, missing or mistyped is a ValueError.

    >>> event_from_json({"class": "GaussianDpEvent", "noise_multiplier": 1.5}).noise_multiplier
    1.5
    """
    if isinstance(value, dict) and value.get("class") == "RepeatAndSelectDpEvent":
        raise ValueError(f"privacy event RepeatAndSelectDpEvent: {SELECTION}")
    if not isinstance(value, dict) or value.get("class") not in _SCALARS:
        raise ValueError(f"not a privacy event of a known class {sorted(_SCALARS)}: {value!r}")
    name = value["class"]
    build, scalars = _SCALARS[name]
    extra = {"event"} if name in _CHILD else {"events"} if name == "ComposedDpEvent" else set()
    if set(value) != {"class", *scalars, *extra}:
        raise ValueError(
            f"privacy event {name} has keys {sorted(value)}, not {sorted({'class', *scalars, *extra})}"
        )
    given: dict[str, Any] = {key: _scalar(name, key, value[key], kind) for key, kind in scalars.items()}
    if "event" in extra:
        given["event"] = event_from_json(value["event"])
    if "events" in extra:
        if not isinstance(value["events"], list):
            raise ValueError("privacy event ComposedDpEvent needs a list of events")
        given["events"] = tuple(event_from_json(part) for part in value["events"])  # prices are kept by event
    return build(**given)


def _scalar(name: str, key: str, value: Any, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise ValueError(f"privacy event {name}: {key} must be a number, got {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"privacy event {name}: {key} must be finite and not negative, got {value!r}")
    return kind(value)
