"""Make a clone that a worker has just pulled fit for one run: state, preset, artifacts.

The state folder outlives clones and pods: checkpoints and run keys (scratch/) and DVC's cache, as private as
the records. ``DUALPRIV_STATE`` names it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from pipeline.deployed.leaving import require_left_by_a_run
from pipeline.dvc_command import dvc
from pipeline.git import git
from pipeline.use import use_command
from stages.core.scratch import private_folder
from stages.ledger.settings import VARIABLE, LedgerSettings

WANTED, STATE, PRESET = "DUALPRIV_CLONE", "DUALPRIV_STATE", "DUALPRIV_PRESET"
_ID = 12
"""Digits of a run's id that its name ends in."""
_RUN, BASE = "dualpriv.run", "dualpriv.base"
"""Keys of the clone's own Git configuration: the run that it is for, the commit that was deployed."""


def prepare(root: Path, run: str, environment: Mapping[str, str]) -> bool:
    """Give the clone at ``root`` the worker's state, the deployment's preset and what DVC has for it.

    A run that was suspended, or tried again, goes on from the branch that it handed over. Nothing is done
    where the deployment works in place, or a second time. Returns whether what this run did before is here.
    Errors: a ValueError where ``root`` is somebody's checkout or another run's, where there is no such
    preset, where the ledger would be lost with the machine, and where the branch holds anything but evidence.
    """
    if environment.get(WANTED) != "1" or _made_for(root) == run:
        return True
    _require_made_for_this(root)
    given = environment.get(STATE)
    if given and not environment.get(VARIABLE) and LedgerSettings.load().url is None:
        raise ValueError(
            f"{STATE} names what outlives this machine, and no ledger is named that does: what is spent "
            f"would be forgotten; set {VARIABLE} in the secret, or ledger.url in params.yaml"
        )
    state = state_folder(environment)
    (root / "scratch").symlink_to(private_folder(state / "scratch"), target_is_directory=True)
    with (root / ".git/info/exclude").open("a") as exclude:
        exclude.write("/scratch\n")
    dvc(root, "cache", "dir", "--local", str(private_folder(state / "dvc-cache")))
    if environment.get(PRESET):
        use_command(environment[PRESET], dry_run=False)
    git(root, "config", "--local", BASE, git(root, "rev-parse", "HEAD"))
    goes_on = _go_on(root, run)
    if has_remote(root):
        dvc(root, "pull", "--run-cache", "--allow-missing")
    elif (root / "dvc.lock").exists():  # else no run was ever recorded
        dvc(root, "checkout", "--allow-missing")
    git(root, "config", "--local", _RUN, run)
    return goes_on


def run_name(name: str, identity: UUID) -> str:
    """Return what a run is called in branches and files, whatever somebody has named it.

    >>> run_name("../my run", UUID(int=1))
    'my-run-000000000000'
    """
    return f"{re.sub('[^A-Za-z0-9]+', '-', name).strip('-')[:40]}-{identity.hex[:_ID]}".lstrip("-")


def branch_of(run: str) -> str:
    """Return the branch that holds what a run left."""
    return f"runs/{run}"


def is_clone(root: Path) -> bool:
    """Tell whether a checkout was made by a worker for one run."""
    return bool(_made_for(root))


def _made_for(root: Path) -> str:
    """Return the run that a clone was made ready for; nothing where it was made ready for none."""
    try:
        return git(root, "config", "--local", "--get", _RUN)
    except ValueError:
        return ""


def _go_on(root: Path, run: str) -> bool:
    """Check out what the run has handed over before, and tell whether it has; its id alone names it."""
    listed = git(root, "ls-remote", "--heads", "origin", f"refs/heads/{branch_of('*')}-{run[-_ID:]}")
    refs = [line.split()[1] for line in listed.splitlines()]
    if not refs:
        return False
    git(root, "fetch", "--quiet", "origin", refs[0])
    base = git(root, "config", "--local", "--get", BASE)
    require_left_by_a_run(root, base, refs[0].removeprefix("refs/heads/"))
    git(root, "checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
    return True


def has_remote(root: Path) -> bool:
    """Tell whether DVC has somewhere to push to by default."""
    return bool(dvc(root, "config", "core.remote", missing_is_empty=True))


def state_folder(environment: Mapping[str, str]) -> Path:
    """Return the worker's state; where it was given none, beside the default ledger."""
    base = environment.get("XDG_STATE_HOME")
    default = (Path(base) if base else Path.home() / ".local/state") / "dualpriv/runs"
    return private_folder(Path(environment.get(STATE) or default))


def _require_made_for_this(root: Path) -> None:
    """Refuse a checkout in which somebody may work: it is on a branch, or has something of its own."""
    if is_clone(root):
        raise ValueError(
            f"{root} is the clone of run {_made_for(root)}, and every run needs its own: unset `working_dir` "
            "of the work pool"
        )
    branch = git(root, "branch", "--show-current")
    if branch or (root / "scratch").exists() or git(root, "status", "--porcelain"):
        raise ValueError(
            f"{root} is no fresh clone of a worker's: what a deployment sets would change somebody's checkout"
        )
