"""``dualpriv unseal-key`` writes the archived key to a new file, or says in one sentence why not."""

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stages.privacy.sealing import seal
from stages.privacy.stream import RunKey
from stages.training.intents import Intents
from tests.pipeline.conftest import REPOSITORY

RELEASE = "0" * 32
KEY = RunKey.fresh()
COMMAND = [sys.executable, "-c", "from pipeline.cli import main; main()", "unseal-key"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with the archive of one release and its private key."""
    owner = X25519PrivateKey.generate()
    folder = tmp_path / "scratch/finetune/retired" / RELEASE
    folder.mkdir(parents=True)
    Intents(folder / "intents.jsonl", {"release": RELEASE, "plan": {}})
    (folder / "run.key.sealed").write_bytes(seal(KEY, owner.public_key(), RELEASE))
    for name, key in (("private.pem", owner), ("other.pem", X25519PrivateKey.generate())):
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / name).write_bytes(pem)
    return tmp_path


def unseal(
    place: Path, release: str = RELEASE, private: str = "private.pem", to: str = "key"
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, release, "--private-key", private, "--to", to],
        cwd=place,
        env={"PYTHONPATH": str(REPOSITORY), "DUALPRIV_SCRATCH": str(place / "scratch")},
        capture_output=True,
        text=True,
    )


def test_the_key_is_written_for_its_owner_alone_and_not_printed(place: Path) -> None:
    done = unseal(place)
    assert done.returncode == 0, done.stderr
    assert (place / "key").read_bytes() == KEY.secret
    assert (place / "key").stat().st_mode & 0o777 == 0o600
    assert KEY.secret.hex() not in done.stdout + done.stderr


def test_a_file_that_is_there_stays(place: Path) -> None:
    (place / "key").write_text("mine")
    done = unseal(place)
    assert done.returncode == 2
    assert done.stderr == "dualpriv: key cannot be made (File exists): name a new file\n"
    assert (place / "key").read_text() == "mine"


REFUSALS = {
    "another key": ({"private": "other.pem"}, f"the sealed run key of release {RELEASE} does not open"),
    "no key": ({"private": "none.pem"}, "none.pem cannot be read: No such file or directory"),
    "no private key": ({"private": "scratch"}, "scratch cannot be read: Is a directory"),
    "another release": ({"release": "1" * 32}, "holds no sealed run key of release 1111"),
    "no release": ({"release": "latest"}, "a release is named by 32 hex digits, got 'latest'"),
    "no folder": ({"to": "none/key"}, "none/key cannot be made (No such file or directory)"),
}


@pytest.mark.parametrize(("change", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_one_sentence_and_exit_2(change: dict[str, str], sentence: str, place: Path) -> None:
    done = unseal(place, **change)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert not (place / "key").exists()


def test_a_changed_file_is_refused(place: Path) -> None:
    file = place / "scratch/finetune/retired" / RELEASE / "run.key.sealed"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = unseal(place)
    assert done.returncode == 2 and "the sealed file was changed" in done.stderr
