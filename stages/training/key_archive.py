"""Run keys that were archived by choice: sealed to a public key before they were destroyed.

Section ``run_key`` of ``params.yaml``; no stage lists it as a DVC parameter: it is no part of a fingerprint.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from stages.core.files import write_bytes
from stages.core.params import PARAMS, read_params, read_section
from stages.core.scratch import scratch_folder
from stages.privacy.sealing import public_key, seal
from stages.privacy.stream import RunKey
from stages.training.intents import read_header

SEALED = "run.key.sealed"
"""The file of a sealed run key, beside the intents of its run."""


@dataclass(frozen=True, kw_only=True)
class RunKeyArchive:
    """Section ``run_key`` of params.yaml."""

    archive_to: Path | None
    """The PEM file of the X25519 public key to which run keys are sealed; None destroys them unsealed."""

    @classmethod
    def load(cls, params: Path = PARAMS) -> "RunKeyArchive":
        """Read section ``run_key``; a public key that is missing or is none is refused."""
        archive = read_section(read_params(params), "run_key", cls, params)
        if archive.archive_to is not None:
            public_key(*_pem(archive.archive_to))
        return archive

    def keep(self, key: RunKey, release: str, folder: Path) -> None:
        """Seal ``key`` into ``folder``, durably, where there is an archive.

        Guarantee: on return the sealed key is on disk, or there is no archive. A key that was sealed before
        stays as it is: a crash may have overwritten ``key`` since.
        """
        if self.archive_to is not None and not (folder / SEALED).exists():
            sealed = seal(key, public_key(*_pem(self.archive_to)), release)
            write_bytes(folder / SEALED, sealed, mode=0o600)


def sealed_key(release: str) -> bytes:
    """Return the sealed run key of a release, of whatever stage and wherever its intents lie.

    A ValueError if there is none.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", release):
        raise ValueError(
            f"a release is named by 32 hex digits, got {release!r}: data/account/charges.json lists them"
        )
    for file in sorted(scratch_folder().rglob(SEALED)):
        header = read_header(file.with_name("intents.jsonl"))
        if header is not None and header["release"] == release:
            return file.read_bytes()
    raise ValueError(
        f"{scratch_folder()} holds no sealed run key of release {release}: keys are sealed where "
        "params.yaml names a public key in run_key.archive_to before the release is accounted"
    )


def _pem(path: Path) -> tuple[bytes, str]:
    name = f"run_key.archive_to: {path}"
    try:
        return path.read_bytes(), name
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror}): restore it, or set null") from None
