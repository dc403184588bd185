"""Render ``dvc.yaml`` from the stage classes.

``python -m pipeline.dvcfile`` writes the file; ``--check`` exits 1 when it is stale. Code dependencies are
each stage's import closure: files, never folders.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.graph import stage_classes
from stages.core.closure import import_closure
from stages.core.contract import Port, Stage
from stages.core.files import write_text

FILE = Path("dvc.yaml")
HEADER = "# Rendered from the stage classes by `python -m pipeline.dvcfile`; edit those, not this file.\n"


def render(stages: Sequence[type[Stage]], root: Path) -> str:
    """Return the text of ``dvc.yaml``."""
    document: dict[str, Any] = {"stages": {stage.name(): _entry(stage, root) for stage in stages}}
    plots = [_plot(port) for stage in stages for port in stage.ports() if port.plot]
    if plots:
        document["plots"] = plots
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 110
    text = io.StringIO()
    yaml.dump(document, text)
    return HEADER + text.getvalue()


def _entry(stage: type[Stage], root: Path) -> dict[str, Any]:
    code = [path.as_posix() for path in import_closure(f"stages.{stage.name()}", root)]
    ports = stage.ports()
    entry: dict[str, Any] = {
        "desc": (stage.__doc__ or "").partition("\n")[0],
        "cmd": f"exec sh pipeline/python.sh -m stages.{stage.name()}",
        "deps": code + sorted(_path(port) for port in ports if port.role in ("reads", "reads_from")),
    }
    params = sorted(port.key for port in ports if port.role == "section" and port.key)
    if params:
        entry["params"] = params
    outs = [port for port in ports if port.role == "writes"]
    entry["outs"] = [{_path(port): {"cache": False}} if port.evidence else _path(port) for port in outs]
    if stage.frozen:
        entry["frozen"] = True
    if stage.meta:
        entry["meta"] = dict(stage.meta)
    return entry


def _path(port: Port) -> str:
    if port.role == "reads_from":
        return (port.path or Path()).joinpath(f"${{{port.key}}}").as_posix()
    assert port.path is not None
    return port.path.as_posix()


def _plot(port: Port) -> dict[str, Any]:
    assert port.path is not None and port.plot is not None
    return {port.path.as_posix(): dict(port.plot)}


def main() -> None:
    """Write or check ``dvc.yaml`` in the current directory."""
    text = render(stage_classes(), Path.cwd())
    if "--check" in sys.argv[1:]:
        if not FILE.exists() or FILE.read_text() != text:
            sys.exit("dvc.yaml is stale: run `python -m pipeline.dvcfile` and commit it")
        return
    write_text(FILE, text)


if __name__ == "__main__":
    main()
