"""What becomes of a deployment under which something dies: the table of the operator's page, made from tests.

``python -m benchmarks.deployment_faults --json FILE`` runs ``tests/pipeline/test_faults.py``, each test of
which is a row, and puts the table into ``docs/operating.md``; exits 1 where a test fails.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import about
from stages.core.files import write_json, write_text

PAGE = Path("docs/operating.md")
TESTS = "tests/pipeline/test_faults.py"
_PLACE = re.compile(r"(<!-- faults -->\n).*(<!-- /faults -->)", re.S)


def table(found: Mapping[str, Any]) -> str:
    """Return the rows in Markdown, with the day and the machine."""
    lines = [
        f"{found['about']}; {found['minutes']:.0f} minutes together.",
        "",
        "| fault | what was seen | clean after, s | adapter identical |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:
        same = "yes" if row["identical"] else "**no**"
        lines.append(f"| {row['fault']} | {row['seen']} | {row['seconds']:.1f} | {same} |")
    return "\n".join(lines) + "\n"


def with_table(page: str, found: Mapping[str, Any]) -> str:
    """Return the page with the table in its place."""
    return _PLACE.sub(lambda place: place[1] + "\n" + table(found) + "\n" + place[2], page)


def main() -> None:
    """Run the tests and write the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "rows.jsonl"
        lines.touch()
        start = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-m", "slow", "-q", TESTS]
        ended = subprocess.run(command, env=os.environ | {"DUALPRIV_FAULT_TABLE": str(lines)})
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        minutes = (time.monotonic() - start) / 60
    found = {"about": about(), "minutes": round(minutes, 1), "rows": rows}
    print(table(found))
    if ended.returncode or not rows:
        sys.exit(1)
    write_json(given.json, found)
    write_text(PAGE, with_table(PAGE.read_text(), found))


if __name__ == "__main__":
    main()
