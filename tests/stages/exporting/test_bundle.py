"""A bundle is the definitions that a function needs, as they stand, and runs without their modules."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from stages.exporting.bundle import bundled

ROOT = Path(__file__).resolve().parents[3]
INNER = '''
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.outer import area

HALF = 0.5
"""Explained."""
UNUSED = 1


@dataclass(frozen=True)
class Round:
    radius: float

    def area(self) -> "area":
        return halved(2 * math.pi * self.radius**2)


def halved(value: float) -> float:
    return HALF * value


def unused() -> None:
    import torch
'''
OUTER = """
from math import floor as down

from stages.inner import UNUSED, Round
from stages.elsewhere import sealed


def area(radius: float) -> int:
    return sealed(down(Round(radius).area()))
"""


def modules(root: Path, **texts: str) -> Path:
    (root / "stages").mkdir()
    for name, text in texts.items():
        (root / "stages" / f"{name}.py").write_text(text)
    return root


def test_a_bundle_holds_what_is_needed_in_an_order_that_runs(tmp_path: Path) -> None:
    imports, definitions = bundled(
        "stages.outer", "area", modules(tmp_path, inner=INNER, outer=OUTER), given=("sealed",)
    )
    assert imports.splitlines() == [
        "from dataclasses import dataclass",
        "from math import floor as down",
        "import math",
    ]
    assert "UNUSED" not in definitions and "unused" not in definitions and '"""Explained."""' in definitions
    text = "\n".join(["from __future__ import annotations", imports, "def sealed(v): return v", definitions])
    run = [sys.executable, "-I", "-c", text + "\nprint(area(2.0))"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "12\n"


def test_two_definitions_of_one_name_are_refused(tmp_path: Path) -> None:
    inner = "LIMIT = 1\n\n\ndef low() -> int:\n    return LIMIT\n"
    outer = "from stages.inner import low\n\nLIMIT = 2\n\n\ndef both() -> int:\n    return low() + LIMIT\n"
    with pytest.raises(AssertionError, match="two modules define.*LIMIT"):
        bundled("stages.outer", "both", modules(tmp_path, inner=inner, outer=outer), ())


def test_a_module_of_ours_that_is_used_as_a_whole_is_refused(tmp_path: Path) -> None:
    outer = "import stages.inner as inner\n\n\ndef both() -> int:\n    return inner.low()\n"
    with pytest.raises(AssertionError, match="uses the module stages.inner as a whole"):
        bundled("stages.outer", "both", modules(tmp_path, inner="", outer=outer), ())


@pytest.mark.parametrize(
    ("module", "function"),
    [("stages.trainable.side", "load_side"), ("stages.trainable.reversible", "load_reversible")],
)
def test_a_loader_is_our_code_byte_for_byte_and_names_nothing_that_it_does_not_hold(
    module: str, function: str
) -> None:
    given = ("Family", "unwrapped", "read_json")
    imports, definitions = bundled(module, function, ROOT, given)
    assert "stages" not in imports
    sources = "\n".join(path.read_text() for path in sorted((ROOT / "stages/trainable").glob("*.py")))
    lines = definitions.splitlines()
    for node in (tree := ast.parse(definitions)).body:
        assert node.end_lineno is not None
        assert "\n".join(lines[node.lineno - 1 : node.end_lineno]) in sources
    imported = {line.rpartition(" ")[2] for line in imports.splitlines()}
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    known = imported | defined | set(given)
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id[0].isupper()}
    assigned = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    assert (
        own - known - assigned - {"RuntimeError", "TypeError", "ValueError", "KeyError", "OSError"} == set()
    )
