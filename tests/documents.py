"""The pages of docs/, taken apart: fenced blocks, what stands before them, the words of a command."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
OPERATING = DOCS / "operating.md"
"""Commands for servers and clusters; tests/pipeline/test_operating.py and test_faults.py look after it."""
PAGES = sorted(page for page in DOCS.rglob("*.md") if page != OPERATING)
_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]+?) -->\n)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str
    reason: str | None
    """Why its commands are not executed, where the page says so."""

    def __str__(self) -> str:
        """Return where it stands."""
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(
            page,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["title"],
            found["text"],
            found["reason"],
        )
        for found in _FENCE.finditer(text)
    ]


def every_block(*languages: str) -> list[Block]:
    """Return the blocks of all pages in these languages."""
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


def commands(block: Block) -> list[list[str]]:
    r"""Return the command lines of a block, each as words; comments and variables in front are left out.

    >>> commands(Block(DOCS, 1, "bash", None, "A=1 dvc repro \\\n  plan   # again\n", None))
    [['dvc', 'repro', 'plan']]
    """
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words:
            found.append(words)
    return found


def apply_edit(block: Block, text: str) -> str:
    """Return a file with the change that a diff block shows; what it takes away must be there once."""
    lines = block.text.splitlines()
    before = "".join(f"{line[1:]}\n" for line in lines if line[:1] in ("-", " ", ""))
    after = "".join(f"{line[1:]}\n" for line in lines if line[:1] in ("+", " ", ""))
    assert text.count(before) == 1, f"{block} changes what is not in {block.title} once:\n{before}"
    return text.replace(before, after)
