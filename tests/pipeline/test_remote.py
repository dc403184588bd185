"""Artifacts go to a DVC remote and come back; keys, scratch and diagnostics never leave."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import dvc, run

from tests.pipeline.conftest import commit_all

pytestmark = pytest.mark.slow
AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "artifacts"


class Remote:
    """Where artifacts go: how DVC names it, and every object that lies there."""

    def __init__(self, checkout: Path, url: str, *options: tuple[str, str]) -> None:
        """Make it the default remote of a checkout."""
        dvc(checkout, "remote", "add", "--default", "store", url)
        for key, value in options:
            dvc(checkout, "remote", "modify", "store", key, value)
        self.url = url

    def objects(self) -> dict[str, bytes]:
        """Return the contents of a folder."""
        root = Path(self.url)
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class Bucket(Remote):
    """A remote on an S3-compatible server."""

    def objects(self) -> dict[str, bytes]:
        """Return the contents of the bucket."""
        from moto.backends import get_backend

        [accounts] = [get_backend("s3")["123456789012"]["aws"]]
        return {name: key.value for name, key in accounts.buckets[BUCKET].keys.items()}


@pytest.fixture(params=["folder", "s3"])
def remote(
    request: pytest.FixtureRequest, ran_checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Remote]:
    if request.param == "folder":
        yield Remote(ran_checkout, str(tmp_path / "remote"))
        return
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET)
        yield Bucket(ran_checkout, f"s3://{BUCKET}/dualpriv", ("endpointurl", url))
    finally:
        server.stop()


def test_a_fresh_clone_takes_everything_from_the_remote_and_runs_and_spends_nothing(
    ran_checkout: Path, remote: Remote, tmp_path: Path
) -> None:
    commit_all(ran_checkout)
    dvc(ran_checkout, "push", "--run-cache")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ran_checkout), str(clone)], check=True)
    assert not (clone / "models/release").exists()
    said = dvc(clone, "repro", "--pull").stdout
    assert "Running stage" not in said, said
    assert not (clone / "scratch").exists(), "no ledger was opened and no key was made"
    assert run(clone, sys.executable, "-m", "pipeline.cli", "audit", "--require-weights").returncode == 0
    for path in ("models/adapter", "models/release"):
        ours = {file.name: file.read_bytes() for file in (ran_checkout / path).iterdir() if file.is_file()}
        assert ours == {file.name: file.read_bytes() for file in (clone / path).iterdir() if file.is_file()}
    assert run(clone, "git", "status", "--porcelain").stdout == ""


def test_nothing_of_scratch_leaves(ran_checkout: Path, remote: Remote) -> None:
    secret = ran_checkout / "scratch/finetune/run.key"
    secret.write_bytes(hashlib.sha256(b"a key that a stopped run has left").digest())
    (ran_checkout / "scratch/finetune/preflight.json").write_text('{"diagnostics": "of private rows"}')
    commit_all(ran_checkout)
    dvc(ran_checkout, "push", "--run-cache")
    there = remote.objects()
    assert any(name.endswith(".dir") or "/md5/" in name for name in there), "the remote has our artifacts"
    contents = {hashlib.md5(value).hexdigest() for value in there.values()}
    for path in (ran_checkout / "scratch").rglob("*"):
        if path.is_file() and path.stat().st_size > 16:
            assert hashlib.md5(path.read_bytes()).hexdigest() not in contents, path
    assert all(secret.read_bytes() not in value for value in there.values())
    released = (ran_checkout / "models/adapter/adapter_model.safetensors").read_bytes()
    assert hashlib.md5(released).hexdigest() in contents, "control: what may leave is found this way"
