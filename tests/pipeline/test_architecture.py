"""The rules of the layout, read from the source: who may import whom, and what lies where."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.conftest import REPOSITORY

SOURCES = sorted(path for folder in ("pipeline", "stages") for path in (REPOSITORY / folder).rglob("*.py"))
STAGES = {path.stem for path in (REPOSITORY / "stages").glob("*.py")} - {"__init__"}
LONGEST = 300


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports, those inside functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(parts: tuple[str, ...]) -> str:
    """Return the layer of a module, given the parts of its dotted name.

    >>> layer(("stages", "finetune", "Finetune")), layer(("stages", "privacy", "noise")), layer(("torch",))
    ('stage', 'library', 'outside')
    """
    if parts[0] == "pipeline":
        return "pipeline"
    if parts[0] != "stages" or len(parts) < 2:
        return "outside"
    if parts[1] == "core":
        return "core"
    return "stage" if parts[1] in STAGES | {"finetune"} else "library"


def module_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(REPOSITORY).with_suffix("").parts


def first_party(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each import of our own with its layer."""
    for name in sorted(imports(path)):
        of = layer(tuple(name.split(".")))
        if of != "outside":
            yield name, of


ALLOWED = {
    "pipeline": {"pipeline", "stage", "library", "core"},
    "stage": {"library", "core"},
    "library": {"library", "core"},
    "core": {"core"},
    "outside": set(),
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(module_of(path)))
def test_imports_go_one_way(path: Path) -> None:
    own = layer(module_of(path))
    wrong = [name for name, of in first_party(path) if of not in ALLOWED[own]]
    assert not wrong, f"a module of layer '{own}' imports {wrong}"


def importers(*roots: str, under: str = ".") -> set[str]:
    """Return the files below ``under`` that import one of these packages."""
    return {
        path.relative_to(REPOSITORY).as_posix()
        for path in SOURCES
        if path.is_relative_to(REPOSITORY / under)
        and any(name == root or name.startswith(root + ".") for name in imports(path) for root in roots)
    }


def test_only_flows_and_what_they_show_and_ask_import_prefect() -> None:
    """Stages and every other command work without it."""
    asking = {"pipeline/approval.py", "pipeline/approve.py", "pipeline/artifacts.py"}
    assert importers("prefect") == {"pipeline/flow.py", "pipeline/sweep/flow.py"} | asking


def test_only_the_ledger_knows_its_database() -> None:
    """Rules are pure functions in stages/privacy, and the audit works without a database."""
    found = importers("sqlalchemy", "alembic", "psycopg", "sqlite3")
    assert found and all(path.startswith("stages/ledger/") for path in found)
    reached = {name for name, _ in first_party(REPOSITORY / "pipeline/audit.py")}
    assert not any(name.startswith("stages.ledger") for name in reached)


def test_the_orchestrator_imports_no_machine_learning() -> None:
    """The module of ``dualpriv predict`` asks a library of the stages; nothing else here needs a model."""
    assert importers("torch", "transformers", "peft", "numpy", under="pipeline") == set()


PURE = ("stages.privacy", "stages.core.schema", "stages.core.canonical")
IMPURE = (
    "transformers",
    "peft",
    "yaml",
    "ruamel",
    "pathlib",
    "io",
    "tempfile",
    "shutil",
    "logging",
    "random",
)


def test_privacy_is_pure_algorithms() -> None:
    """No models, YAML, disk, logging or global random state; of ours only itself and pure functions."""
    assert importers(*IMPURE, under="stages/privacy") == set()
    for path in (REPOSITORY / "stages/privacy").glob("*.py"):
        outside = {name for name, _ in first_party(path) if not name.startswith(PURE)}
        assert not outside, f"{path.name} imports {outside}"
        assert not called(path) & {"open", "print"}, path.name
        assert taken_from("os", path) <= {"urandom"}, (
            f"{path.name}: the system's randomness is all it may ask for"
        )


def called(path: Path) -> set[str]:
    """Return the plain names that a file calls."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def taken_from(module: str, path: Path) -> set[str]:
    """Return the attributes of ``module`` that a file uses or imports."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == module}
    return used | {name.partition(".")[2] for name in imports(path) if name.startswith(module + ".")}


def test_core_loads_no_machine_learning() -> None:
    """Speed settles its device with torch, once it is asked to; nothing of it is loaded with the module."""
    light = "import sys; [__import__('stages.core.' + name) for name in sys.argv[1:]]; print(*sys.modules)"
    names = [path.stem for path in (REPOSITORY / "stages/core").glob("*.py") if path.stem != "__init__"]
    run = [sys.executable, "-c", light, *names]
    loaded = subprocess.run(run, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "numpy", "transformers", "peft", "opacus", "dp_accounting"} & set(loaded)


@pytest.mark.parametrize("stage", ["plan", "account"])
def test_privacy_is_planned_and_accounted_without_torch(stage: str) -> None:
    heavy = [sys.executable, "-c", f"import sys, stages.{stage}; print(*sys.modules)"]
    loaded = subprocess.run(heavy, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split()
    assert "dp_accounting" in loaded and not {"torch", "transformers", "peft"} & set(loaded)


def test_a_file_is_one_noun() -> None:
    long = {path.name: count for path in SOURCES if (count := len(path.read_text().splitlines())) > LONGEST}
    assert not long


def test_artifact_folders_hold_no_code() -> None:
    assert not [path for folder in ("data", "models") for path in (REPOSITORY / folder).rglob("*.py")]


def test_no_module_is_named_after_what_it_is_not() -> None:
    names = {path.stem for path in SOURCES} | {path.parent.name for path in SOURCES}
    assert not names & {"utils", "util", "helpers", "common", "manager", "base", "misc"}


def test_the_standard_library_keeps_its_profile() -> None:
    """``stages/profile.py`` must not be found as ``profile``, as it is with ``stages`` on the path."""
    import profile

    assert str(REPOSITORY) not in str(profile.__file__)
    assert str(REPOSITORY / "stages") not in sys.path
