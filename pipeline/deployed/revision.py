"""What a deployment clones, printed for the build steps of prefect.yaml, which keep it in the deployment.

``python -m pipeline.deployed.revision repository`` prints where the code comes from, ``... commit`` which
commit of it.
"""

import sys
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.git import git, uncommitted
from stages.core.entry import is_ours, refuse

DECIDES = ("pipeline", "stages", "params.yaml", "dvc.yaml", "presets", "prefect.yaml")
"""What a clone has as it is committed."""


def repository(root: Path) -> str:
    """Return the URL of remote ``origin``; without one, the checkout itself, for workers on this machine."""
    if "origin" in git(root, "remote").splitlines():
        url = git(root, "remote", "get-url", "origin")
        if urlsplit(url).scheme in ("http", "https") and "@" in urlsplit(url).netloc:
            raise ValueError(
                "the URL of remote origin holds a name or a token, which Prefect's server would keep and "
                "show: `git remote set-url origin` without it, and give workers a credential helper of Git's"
            )
        return url
    return git(root, "rev-parse", "--show-toplevel")


def commit(root: Path) -> str:
    """Return the commit that is checked out; refuse one that a clone would not have, or not as it is here."""
    changed = uncommitted(root, *DECIDES)
    if changed:
        raise ValueError(
            f"a deployment runs what is committed: commit {', '.join(changed[:3])}, or restore what is there"
        )
    found = git(root, "rev-parse", "HEAD")
    if "origin" in git(root, "remote").splitlines():
        holders = git(root, "for-each-ref", "--contains", found, "--format=%(refname)", "refs/remotes/origin")
        if not holders:
            raise ValueError(f"remote origin has no commit {found[:12]}: `git push`, and deploy again")
    return found


def main() -> None:
    """Print what is asked for."""
    asked = {"repository": repository, "commit": commit}
    try:
        print(asked[sys.argv[1]](Path.cwd()))
    except ValueError as error:
        if not is_ours(error):
            raise
        refuse("prefect deploy", error)


if __name__ == "__main__":
    main()
