"""A run key is sealed before it is destroyed where there is an archive, and leaves nothing elsewhere."""

import os
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stages.privacy.sealing import unseal
from stages.privacy.stream import RunKey
from stages.training.intents import Intents
from stages.training.key_archive import SEALED, RunKeyArchive, sealed_key
from stages.training.run_folder import RunFolder, open_run, retire_run

RELEASE = "0" * 32
OWNER = X25519PrivateKey.generate()


@pytest.fixture(autouse=True)
def _checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "public.pem").write_bytes(
        OWNER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )


def choose(archive_to: str) -> None:
    Path("params.yaml").write_text(f"run_key:\n  archive_to: {archive_to}\n")


def begun_run(release: str = RELEASE) -> tuple[RunFolder, RunKey]:
    """Return a run that has begun one step."""
    with open_run("finetune", "a", None) as folder:
        key = folder.run_key()
        Intents(folder.intents, {"release": release, "plan": {}}).record(0, {})
    return folder, key


def retired(release: str = RELEASE) -> Path:
    return Path("scratch/finetune/retired") / release


def test_the_archived_key_of_a_retired_run_is_the_key_that_is_gone() -> None:
    choose("public.pem")
    folder, key = begun_run()
    assert retire_run("finetune", RELEASE)
    assert not folder.path.exists()
    assert sorted(file.name for file in retired().iterdir()) == ["intents.jsonl", SEALED]
    assert (retired() / SEALED).stat().st_mode & 0o777 == 0o600
    assert unseal(sealed_key(RELEASE), OWNER, RELEASE) == key


def test_the_key_of_any_stage_is_found_by_its_release() -> None:
    choose("public.pem")
    _, key = begun_run()
    assert retire_run("finetune", RELEASE)
    Path("scratch/finetune").rename("scratch/evaluate")
    assert unseal(sealed_key(RELEASE), OWNER, RELEASE) == key


def test_without_an_archive_nothing_is_left_of_the_key() -> None:
    choose("null")
    _, key = begun_run()
    assert retire_run("finetune", RELEASE)
    left = [file for file in Path("scratch").rglob("*") if file.is_file()]
    assert {file.name for file in left} == {"intents.jsonl", "a.lock"}
    assert not [file for file in left if key.secret in file.read_bytes()]
    with pytest.raises(ValueError, match=f"no sealed run key of release {RELEASE}"):
        sealed_key(RELEASE)


def test_a_run_that_is_set_aside_is_archived_too(tmp_path: Path) -> None:
    choose("public.pem")
    folder, key = begun_run()
    (tmp_path / "trace.json").write_text("{}")
    folder.finish(tmp_path / "trace.json")
    with open_run("finetune", "a", folder.finished_as()) as fresh:
        assert fresh.run_key() != key
        assert unseal(sealed_key(RELEASE), OWNER, RELEASE) == key


def test_each_release_finds_its_own_key() -> None:
    choose("public.pem")
    keys = {}
    for release in (RELEASE, "1" * 32):
        _, keys[release] = begun_run(release)
        retire_run("finetune", release)
    for release, key in keys.items():
        assert unseal(sealed_key(release), OWNER, release) == key


def test_a_key_that_a_crash_left_half_destroyed_does_not_take_the_place_of_the_sealed_one() -> None:
    choose("public.pem")
    folder, key = begun_run()
    RunKeyArchive.load().keep(key, RELEASE, folder.path)
    folder.key.write_bytes(os.urandom(32))  # killed after the overwriting and before the removal
    assert retire_run("finetune", RELEASE)
    assert unseal(sealed_key(RELEASE), OWNER, RELEASE) == key


def test_a_key_under_which_nothing_began_is_destroyed_without_a_trace() -> None:
    choose("public.pem")
    with open_run("finetune", "a", None) as folder:
        folder.run_key()
        folder.destroy_secrets(RunKeyArchive.load())
        assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize("pem", [None, b"", b"nonsense"])
def test_a_public_key_that_is_missing_or_none_is_refused_and_the_run_key_stays(pem: bytes | None) -> None:
    choose("other.pem")
    folder, key = begun_run()
    if pem is not None:
        Path("other.pem").write_bytes(pem)
    for act in (RunKeyArchive.load, lambda: retire_run("finetune", RELEASE)):
        with pytest.raises(ValueError, match=r"^run_key.archive_to: other.pem (cannot be|is not)"):
            act()
    assert folder.run_key() == key
    gone = RunKeyArchive(archive_to=Path("other.pem"))  # it went between the first look and the sealing
    with pytest.raises(ValueError, match="other.pem"):
        folder.destroy_secrets(gone)
    assert folder.run_key() == key
    choose("public.pem")
    assert retire_run("finetune", RELEASE), "the way out"
    assert unseal(sealed_key(RELEASE), OWNER, RELEASE) == key


@pytest.mark.parametrize("text", ["", "run_key: {}", "run_key: {archive: null}", "run_key: {archive_to: 7}"])
def test_a_section_that_is_missing_or_wrong_is_named(text: str) -> None:
    Path("params.yaml").write_text(f"seed: {{public: 7, start: 7}}\n{text}\n")
    with pytest.raises((KeyError, TypeError), match=r"section 'run_key'"):
        RunKeyArchive.load()


@pytest.mark.parametrize("release", ["", "../retired", "A" * 32, "0" * 31])
def test_a_release_that_cannot_be_is_named(release: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"32 hex digits, got {release!r}")):
        sealed_key(release)
