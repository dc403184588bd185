"""The import closure lists the first-party files that a module can run, and no other."""

from pathlib import Path

import pytest

from stages.core.closure import import_closure

ROOT = Path(__file__).parents[3]

TREE = {
    "stages/__init__.py": '"""Only words."""\n',
    "stages/one.py": "import numpy\nfrom stages.library import alpha\nfrom stages.library.beta import b\n",
    "stages/two.py": "def later():\n    import stages.library.gamma as g\n    return g\n",
    "stages/three.py": "x = 1\n",
    "stages/library/__init__.py": "",
    "stages/library/alpha.py": "from stages.coded import VALUE\n",
    "stages/library/beta.py": "from pipeline.thing import other\nb = 1\n",
    "stages/library/gamma.py": "import stages.two\n",
    "stages/coded/__init__.py": "from stages.coded.deep import VALUE\n",
    "stages/coded/deep.py": "VALUE = 1\n",
    "stages/relative.py": "from . import three\n",
    "stages/unused.py": "import stages.one\n",
    "pipeline/__init__.py": "",
    "pipeline/thing.py": "other = 1\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Write the small code tree above."""
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def closure(module: str, tree: Path) -> list[str]:
    """Return the closure as text."""
    return [path.as_posix() for path in import_closure(module, tree)]


def test_imports_are_followed_through_packages_with_code(tree: Path) -> None:
    assert closure("stages.one", tree) == [
        "pipeline/thing.py",
        "stages/coded/__init__.py",
        "stages/coded/deep.py",
        "stages/library/alpha.py",
        "stages/library/beta.py",
        "stages/one.py",
    ]


def test_imports_inside_functions_and_in_circles_are_followed(tree: Path) -> None:
    assert closure("stages.two", tree) == ["stages/library/gamma.py", "stages/two.py"]


def test_a_module_without_imports_is_its_own_closure_with_the_packages_that_run_for_it(tree: Path) -> None:
    assert closure("stages.three", tree) == ["stages/three.py"]
    assert closure("stages.coded.deep", tree) == ["stages/coded/__init__.py", "stages/coded/deep.py"]


def test_a_package_wins_over_a_module_of_the_same_name_as_in_python(tree: Path) -> None:
    (tree / "stages" / "library.py").write_text("x = 1\n")
    assert "stages/library.py" not in closure("stages.one", tree)


def test_an_edit_changes_the_closure_at_once(tree: Path) -> None:
    assert "stages/three.py" not in closure("stages.coded.deep", tree)
    (tree / "stages/coded/deep.py").write_text("from stages.three import x\nVALUE = 1\n")
    assert "stages/three.py" in closure("stages.coded.deep", tree)


def test_a_relative_import_and_an_unknown_module_are_refused(tree: Path) -> None:
    with pytest.raises(ValueError, match="relative imports are not followed; import from 'stages'"):
        import_closure("stages.relative", tree)
    with pytest.raises(ValueError, match="stages.nowhere is not a module under"):
        import_closure("stages.nowhere", tree)


def test_ingest_runs_its_readers_and_no_training_code() -> None:
    files = closure("stages.ingest", ROOT)
    assert {"stages/ingest.py", "stages/records/llava.py", "stages/privacy/population.py"} <= set(files)
    assert not [file for file in files if file.startswith(("stages/training", "stages/vlm", "pipeline"))]
    assert "stages/privacy/clipping.py" not in files


def test_templates_beside_a_module_are_part_of_it(tmp_path: Path) -> None:
    library = tmp_path / "stages/pages"
    library.mkdir(parents=True)
    (library / "page.py").write_text("NAME = 'page.j2'\n")
    (library / "page.j2").write_text("hello")
    found = import_closure("stages.pages.page", tmp_path)
    assert found == (Path("stages/pages/page.j2"), Path("stages/pages/page.py"))
