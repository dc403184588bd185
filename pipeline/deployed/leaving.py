"""What a run leaves in Git, and nothing else: evidence, ``dvc.lock``, and the parameters of its preset.

One rule for both directions: what is handed over, and what a run that goes on takes from its branch.
"""

from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.git import git

PARAMS = "params.yaml"
_FILE = "100644"
"""Git's mode of a file that is neither a program nor a link."""


def evidence_of(root: Path) -> frozenset[str]:
    """Return the outputs of stages that Git keeps, as ``dvc.yaml`` names them."""
    found = set[str]()
    for stage in YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"].values():
        for listed in ("outs", "metrics", "plots"):
            for output in stage.get(listed, ()):
                if isinstance(output, dict):
                    found |= {path for path, options in output.items() if options.get("cache") is False}
    return frozenset(found)


def changed_by_the_run(root: Path) -> list[str]:
    """Return the files of a clone that are to be handed over; what a stage removed is not among them."""
    listed = git(root, "ls-files", "-z", "--modified", "--others", "--exclude-standard").split("\0")
    evidence = evidence_of(root)
    found = {name for name in listed if name and (root / name).exists()}
    return sorted(name for name in found if name == PARAMS or _is_left(name, evidence))


def require_left_by_a_run(root: Path, base: str, branch: str) -> None:
    """Refuse ``FETCH_HEAD`` where it holds more than a run leaves that began at commit ``base``.

    Guarantee: nothing that is executed, or says where data goes, comes from a branch: who can push one
    decides nothing about what runs beside private records.
    """
    if not _grows(root, base):
        raise ValueError(f"branch {branch} does not grow from the deployed commit: run the deployment anew")
    evidence = evidence_of(root)
    for name, mode in _changed(root, base):
        if name == PARAMS and not git(root, "diff", "--name-only", "FETCH_HEAD", "--", PARAMS):
            continue  # the preset has put the same values here
        if mode != _FILE or not _is_left(name, evidence):
            raise ValueError(
                f"branch {branch} has another {name} than the deployment: a run goes on from what it left "
                "itself; run the deployment anew"
            )


def _grows(root: Path, base: str) -> bool:
    try:
        return git(root, "merge-base", base, "FETCH_HEAD") == base
    except ValueError:  # nothing in common
        return False


def _changed(root: Path, base: str) -> Iterator[tuple[str, str]]:
    """Yield every path that differs, and its mode in ``FETCH_HEAD``."""
    said = git(root, "diff", "--raw", "--no-renames", "-z", base, "FETCH_HEAD").split("\0")
    for about, name in zip(said[::2], said[1::2], strict=False):
        yield name, about.split()[1]


def _is_left(name: str, evidence: frozenset[str]) -> bool:
    path = Path(name)
    inside = any(path.is_relative_to(output) for output in evidence)
    return inside or name == "dvc.lock" or path.name == ".gitignore"
