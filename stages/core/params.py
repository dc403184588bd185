"""Turn sections of ``params.yaml`` into frozen dataclasses.

Values live only in ``params.yaml``; names and types live only in dataclasses. There are no defaults: a
missing, unknown or mistyped key is an error that names the file, the section and the known keys.
"""

from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.schema import convert

PARAMS = Path("params.yaml")
Section = TypeVar("Section")


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """Return the whole of ``params.yaml`` as plain dicts, lists and scalars.

    Read with ruamel.yaml (YAML 1.2): PyYAML reads ``1e-6`` as a string while DVC reads a float.
    """
    try:
        value = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run from the root of a dualpriv checkout") from None
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must be a mapping of sections")
    return value


def read_section(params: dict[str, Any], key: str, schema: type[Section], file: Path = PARAMS) -> Section:
    """Return the section at dotted ``key``, or the one value there, as a ``schema``."""
    value: Any = params
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise KeyError(f"{file}: section '{key}' is missing")
        value = value[part]
    kind = "section" if is_dataclass(schema) else "key"
    found: Section = convert(value, schema, f"{file}: {kind} '{key}'")
    return found
