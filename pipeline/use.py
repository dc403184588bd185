"""The command ``dualpriv use``, and how values get into ``params.yaml``, whose comments stay."""

import difflib
import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from pipeline.presets import PRESETS, merge, read_preset
from stages.core.files import write_text
from stages.core.params import PARAMS, read_params


def use_command(name: str, *, dry_run: bool) -> None:
    """Show what changes and, but for a dry run, write it in one step."""
    read_preset(name)  # refuses one that is missing or broken
    read_params()  # refuses a missing or broken file in its own words
    before = PARAMS.read_text()
    as_written = YAML().load(PRESETS / f"{name}.yaml")[
        "params"
    ]  # with its lists and numbers as they are spelled
    put(before, merged(before, as_written, f"preset '{name}'"), name, dry_run=dry_run)


def put(before: str, after: str, source: str, *, dry_run: bool) -> None:
    """Show what ``source`` changes in ``params.yaml`` and, but for a dry run, write it in one step."""
    changed = difflib.unified_diff(
        before.splitlines(), after.splitlines(), str(PARAMS), f"{PARAMS} with {source}", lineterm="", n=0
    )
    lines = [line for line in changed if not line.startswith("@@")]
    print("\n".join(lines) if lines else f"{PARAMS} says what {source} says already")
    if lines and not dry_run:
        write_text(PARAMS, after)
        print(f"{PARAMS} is changed; `git restore {PARAMS}` returns")


def merged(text: str, changes: dict[str, Any], where: str) -> str:
    """Return a YAML text with other values and the same comments, where they were."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.Representer = _AsParams
    try:
        document = yaml.load(text)
    except YAMLError as error:
        raise ValueError(f"{PARAMS} is not valid YAML: {' '.join(str(error).split())}") from None
    merge(document, changes, where)
    written = io.StringIO()
    yaml.dump(document, written)
    return written.getvalue()


class _AsParams(RoundTripRepresenter):
    """Writes null and new lists as params.yaml has them; ruamel keeps how by class, so this has its own."""


def _in_one_line(representer: Any, values: list[Any]) -> Any:
    """Write a new list as params.yaml has them, in one line."""
    return representer.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


def _null(representer: Any, _: None) -> Any:
    """Write null as params.yaml does, by its name."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


_AsParams.add_representer(type(None), _null)
_AsParams.add_representer(list, _in_one_line)
