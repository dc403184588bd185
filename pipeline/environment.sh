#!/bin/sh
# Make .venv with everything that dualpriv needs, unless it is there and current.
# PYTHON=/path/to/python3.12 chooses the Python it is made from.
set -eu
case "$0" in */*) cd "${0%/*}/.." ;; *) cd .. ;; esac

NEEDED_GB=3
CUDA_GB=8

stop() {
    echo "dualpriv: $*" >&2
    exit 1
}

is_suitable() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_suitable "$PYTHON" || stop "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13"
        python=$PYTHON
        return
    fi
    for python in python3 python3.13 python3.12 python3.11; do
        if is_suitable "$python"; then return; fi
    done
    stop "no Python 3.11, 3.12 or 3.13 found on PATH: install one (Debian 12: apt-get install python3) or say PYTHON=/path/to/it"
}

wanted() { # what the environment depends on; a moved checkout needs a new one
    pwd
    cat constraints.txt pyproject.toml
}

find_python
command -v git >/dev/null 2>&1 || stop "git is missing: install it (Debian: apt-get install git)"
if [ -f .venv/installed ] && [ "$(wanted)" = "$(cat .venv/installed)" ]; then exit 0; fi
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    stop "the venv module of $python is missing (Debian: apt-get install python3-venv)"

free_gb=$("$python" -c 'import shutil; print(shutil.disk_usage(".").free // 10**9)')
echo "dualpriv: making .venv with $python: downloads about 0.5 GB and needs about $NEEDED_GB GB of disk" \
    "(3 GB and $CUDA_GB GB where torch comes with CUDA); $free_gb GB are free. Takes about 5 minutes."
[ "$free_gb" -ge "$NEEDED_GB" ] || stop "needs about $NEEDED_GB GB of free disk, found $free_gb GB: free some and run it again"
case "$(uname -s)" in
Linux) ;;
Darwin) echo "dualpriv: on macOS a stage can outlive a dvc that is killed with -9; everything else works." ;;
*) stop "needs Linux (or macOS), found $(uname -s)" ;;
esac

if [ -f .venv/installing ]; then rm -rf .venv; fi # an earlier installation was killed half way
"$python" -m venv .venv
: >.venv/installing
rm -f .venv/installed
if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; then
    rm -f .venv/installing
    stop "installing failed for the reason above; run it again to go on"
fi
wanted >.venv/installed
rm -f .venv/installing
