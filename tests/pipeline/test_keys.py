"""``dualpriv keys`` makes a pair, signs what the audit passes, and verifies with the public key alone."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from commands import Command, commands
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from forgeries import FORGERIES
from forging import BEFORE, HONEST
from honest_evidence import files_of
from stored_evidence import stored, written

from stages.privacy.evidence import LEDGER, PLAN, SIGNATURE


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a Git work tree with evidence, in which commands run; keys lie beside it."""
    tree = written(tmp_path / "tree", files_of(BEFORE))
    (tree / ".git").mkdir()
    monkeypatch.chdir(tree)
    return tree


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return commands(capsys, monkeypatch)


def new(command: Command, name: str = "mine") -> tuple[Path, Path]:
    """Make a pair beside the work tree."""
    private, public = Path(f"../{name}.pem"), Path(f"../{name}.pub.pem")
    code, _, error = command("keys", "new", "--private", str(private), "--public", str(public))
    assert code == 0, error
    return private, public


def test_a_pair_is_for_its_owner_and_signs_for_whoever_has_the_public_key(
    place: Path, command: Command
) -> None:
    private, public = new(command)
    assert private.stat().st_mode & 0o777 == 0o600 and b"PRIVATE" not in public.read_bytes()
    code, said, _ = command("keys", "sign", "--private", str(private))
    assert code == 0 and f"{SIGNATURE} is number 1, by the key" in said
    code, said, _ = command("keys", "verify", "--public", str(public))
    assert code == 0 and said.startswith(f"{SIGNATURE} verifies: statement number 1 of 20")
    code, page, _ = command("audit", "--public-key", str(public))
    assert code == 0 and "- signature: verified, number 1 of 20" in page
    code, page, _ = command("audit")
    assert code == 0 and "- signature: present and NOT VERIFIED" in page


def test_openssl_reads_the_pair(place: Path, command: Command) -> None:
    """Verification needs no code of ours: the public key is a plain PEM."""
    private, public = new(command)
    for path, more in ((private, []), (public, ["-pubin"])):
        done = subprocess.run(
            ["openssl", "pkey", *more, "-in", str(path), "-noout", "-text"], capture_output=True, text=True
        )
        assert "ED25519" in done.stdout.upper(), done.stderr


def test_the_environment_can_name_the_key(place: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = new(command)
    command("keys", "sign", "--private", str(private))
    monkeypatch.setenv("DUALPRIV_PUBLIC_KEY", str(public))
    assert "- signature: verified" in command("audit")[1]


def test_a_later_statement_follows_the_one_before(place: Path, command: Command) -> None:
    private, public = new(command)
    command("keys", "sign", "--private", str(private))
    first = (place / SIGNATURE).read_bytes()
    Path("../held.json").write_bytes(first)
    assert "signs this evidence already" in command("keys", "sign", "--private", str(private))[1]
    assert (place / SIGNATURE).read_bytes() == first
    written(place, files_of(HONEST))
    assert command("keys", "verify", "--public", str(public))[0] == 1, "what was signed is not here any more"
    assert "is number 2" in command("keys", "sign", "--private", str(private))[1]
    assert command("audit", "--public-key", str(public), "--latest", "../held.json")[0] == 0
    later = (place / SIGNATURE).read_bytes()
    written(place, {**files_of(BEFORE), SIGNATURE: first})
    Path("../held.json").write_bytes(later)
    code, page, _ = command("audit", "--public-key", str(public), "--latest", "../held.json")
    assert code == 1 and "is an old one: it has number 1, the one that you hold 2" in page
    assert "was cut: it has 8 entries" in page


def test_a_ledger_that_was_cut_is_not_signed(place: Path, command: Command) -> None:
    private, _ = new(command)
    written(place, files_of(HONEST))
    command("keys", "sign", "--private", str(private))
    written(place, files_of(BEFORE))
    code, said, error = command("keys", "sign", "--private", str(private))
    assert (code, said) == (2, "") and f"{LEDGER} was cut: it has 8 entries" in error


def test_what_the_audit_contradicts_is_not_signed(place: Path, command: Command) -> None:
    private, _ = new(command)
    written(place, FORGERIES["fewer steps in the trace"].forge(files_of(HONEST)))
    code, said, error = command("keys", "sign", "--private", str(private))
    assert (code, said) == (
        2,
        "",
    ) and "not signed, for the audit contradicts data/finetune/trace.json" in error
    assert not (place / SIGNATURE).exists() and error.count("\n") == 1


def test_a_statement_by_another_key_is_not_followed(place: Path, command: Command) -> None:
    command("keys", "sign", "--private", str(new(command)[0]))
    code, _, error = command("keys", "sign", "--private", str(new(command, "other")[0]))
    assert code == 2 and "is not by this key" in error


def test_evidence_without_a_ledger_is_not_signed(place: Path, command: Command) -> None:
    private, _ = new(command)
    for file in files_of(BEFORE):
        (place / file).unlink()
    written(place, stored("1.2"))
    code, _, error = command("keys", "sign", "--private", str(private))
    assert code == 2 and f"{LEDGER} is missing or empty" in error
    (place / PLAN).unlink()
    code, _, error = command("keys", "sign", "--private", str(private))
    assert code == 2 and f"{PLAN} missing: there is nothing to sign" in error


@pytest.mark.parametrize("private", ["key.pem", "data/key.pem", "../tree/key.pem", "../link/key.pem"])
def test_a_private_key_inside_a_git_work_tree_is_refused(private: str, place: Path, command: Command) -> None:
    (place.parent / "link").symlink_to(place)
    code, said, error = command("keys", "new", "--private", private, "--public", "../k.pub.pem")
    assert (code, said) == (2, "") and "lies in the Git work tree" in error
    assert not (place / private).exists() and not Path("../k.pub.pem").exists()


def test_keys_that_are_there_stay(place: Path, command: Command) -> None:
    private, public = new(command)
    before = private.read_bytes(), public.read_bytes()
    for private_name, public_name in (("mine.pem", "fresh.pub.pem"), ("fresh.pem", "mine.pub.pem")):
        code, _, error = command(
            "keys", "new", "--private", f"../{private_name}", "--public", f"../{public_name}"
        )
        assert code == 2 and "name a new file" in error
    assert (private.read_bytes(), public.read_bytes()) == before
    assert not Path("../fresh.pem").exists() and not Path("../fresh.pub.pem").exists()


def test_a_private_key_that_others_can_read_signs_nothing(place: Path, command: Command) -> None:
    private, _ = new(command)
    os.chmod(private, 0o640)
    code, _, error = command("keys", "sign", "--private", str(private))
    assert code == 2 and "can be read by others (mode 0640)" in error and not (place / SIGNATURE).exists()


def test_a_key_for_sealing_signs_nothing(place: Path, command: Command) -> None:
    key = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    Path("../seal.pem").write_bytes(key)
    os.chmod("../seal.pem", 0o600)
    code, _, error = command("keys", "sign", "--private", "../seal.pem")
    assert code == 2 and "is not the PEM file of an Ed25519 private key" in error


def test_nothing_signed_verifies_nothing(place: Path, command: Command) -> None:
    _, public = new(command)
    code, said, _ = command("keys", "verify", "--public", str(public))
    assert (code, said) == (1, f"ERROR {SIGNATURE} is missing: nobody vouches for this evidence\n")


def test_the_signed_document_names_everything(place: Path, command: Command) -> None:
    private, _ = new(command)
    command("keys", "sign", "--private", str(private))
    document = json.loads((place / SIGNATURE).read_text())
    named = {"models/adapter/adapter_config.json", "models/adapter/adapter_model.safetensors"}
    assert document["artifacts"].keys() == {*files_of(BEFORE), *named}
    assert document["ledger"]["length"] == 8 and document["ledger"]["population"] == "patients"
