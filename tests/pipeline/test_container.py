"""The container file is well formed, and installs the pinned versions."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = ROOT / "cluster/Containerfile"


def linted(path: Path) -> subprocess.CompletedProcess[str]:
    """Run hadolint, which is installed beside this interpreter."""
    command = [str(Path(sys.executable).parent / "hadolint"), "--no-color", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_linter_has_nothing_to_say() -> None:
    found = linted(FILE)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_linter_would_speak_up(tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM python\nRUN apt-get install git\n")
    assert linted(tmp_path / "Containerfile").returncode == 1


def test_every_installation_is_held_to_the_constraints() -> None:
    text = FILE.read_text()
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert len(installs) == 2 and all("--constraint constraints.txt" in line for line in installs)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "prefect-kubernetes" in " ".join(project["optional-dependencies"]["kubernetes"])
