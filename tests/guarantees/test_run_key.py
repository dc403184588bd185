"""The key of a run is found nowhere but in its folder, and later in its archive, sealed, where it has one."""

import base64
import json
import sqlite3
import sys
import zlib
from pathlib import Path

import pytest
from checkout import dvc, edit_params, run
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from runs import prepared, the_folder

from stages.privacy.sealing import unseal


def spellings(key: bytes) -> dict[str, bytes]:
    return {
        "raw": key,
        "hex": key.hex().encode(),
        "HEX": key.hex().upper().encode(),
        "base64": base64.b64encode(key).rstrip(b"="),
        "base64url": base64.urlsafe_b64encode(key).rstrip(b"="),
        "decimal": str(int.from_bytes(key, "big")).encode(),
        "little-endian decimal": str(int.from_bytes(key, "little")).encode(),
    }


def contents(path: Path):
    """Yield a file as it is, uncompressed (Git objects, gzip), and the cells of a SQLite database."""
    content = path.read_bytes()
    yield content
    for bits in (zlib.MAX_WBITS, zlib.MAX_WBITS | 16):
        try:
            yield zlib.decompressobj(bits).decompress(content)
        except zlib.error:
            pass
    if content.startswith(b"SQLite format 3"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            for (table,) in database.execute(
                "select name from sqlite_master where type = 'table'"
            ).fetchall():
                for row in database.execute(f'select * from "{table}"'):
                    for cell in row:
                        yield cell if isinstance(cell, bytes) else str(cell).encode()


def found_in(root: Path, key: bytes) -> list[str]:
    wanted = spellings(key)
    return [
        f"{path.relative_to(root)}: {name}"
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and "scratch" not in path.relative_to(root).parts
        for content in contents(path)
        for name, text in wanted.items()
        if text in content
    ]


def archived(checkout: Path) -> X25519PrivateKey:
    """Choose an archive for the run keys of a checkout, and return its private key."""
    owner = X25519PrivateKey.generate()
    pem = owner.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (checkout / "archive.pem").write_bytes(pem)
    edit_params(checkout, {"archive_to: null": "archive_to: archive.pem"})
    return owner


@pytest.mark.slow
def test_the_run_key_is_found_nowhere_and_a_planted_one_is(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    log = run(checkout, sys.executable, "-m", "dvc", "repro", "finetune", "--verbose")
    (checkout / "run.log").write_text(log.stdout + log.stderr)
    folder = the_folder(checkout)
    key = (folder / "run.key").read_bytes()
    owner = archived(checkout)
    dvc(checkout, "repro")
    run(checkout, "git", "add", "--all")
    run(
        checkout,
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "commit",
        "--quiet",
        "--message",
        "evidence",
    )
    assert not folder.exists(), "destroyed once the output was recorded"
    assert not list((checkout / "scratch").rglob("run.key")), "no run began anew for another archive"
    release = json.loads((checkout / "data/finetune/trace.json").read_text())["release"]
    sealed = checkout / f"scratch/finetune/retired/{release}/run.key.sealed"
    assert unseal(sealed.read_bytes(), owner, release).secret == key
    assert not [name for name, text in spellings(key).items() if text in sealed.read_bytes()]
    assert found_in(checkout, key) == []
    for name, text in spellings(key).items():
        (checkout / "planted").write_bytes(b"before" + text + b"after")
        assert f"planted: {name}" in found_in(checkout, key)
    (checkout / "planted").write_bytes(zlib.compress(b"x" + key))
    assert set(found_in(checkout, key)) == {"planted: raw"}  # zlib may store so short a text as it is
    (checkout / "planted").unlink()
    with sqlite3.connect(checkout / "planted.db") as database:
        database.execute("create table log (line text)")
        database.execute("insert into log values (?)", (f"key {key.hex()}",))
    assert "planted.db: hex" in found_in(checkout, key)
