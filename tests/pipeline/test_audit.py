"""``dualpriv audit`` says of any revision what holds, in a page to paste, and exits 0, 1 or 2."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from checkout import run
from commands import Command, commands
from stored_evidence import edited, stored, written

from pipeline.audit import audit
from pipeline.graph import stage_classes
from stages.ledger.evidence import EXPORTED
from stages.privacy.evidence import (
    ATTACHED,
    CALIBRATION,
    CANARIES,
    EXPORTS,
    FILES,
    LEDGER,
    LOCK,
    PLAN,
    PRUNING,
    TRACE,
)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return commands(capsys, monkeypatch)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, where commands run, with evidence and nothing else: no data, model, code or Git."""
    monkeypatch.chdir(written(tmp_path / "kept", stored("1.2")))
    return tmp_path / "kept"


def test_evidence_alone_passes_and_says_what_was_recomputed(kept: Path, command: Command) -> None:
    code, said, error = command("audit", "--json")
    verdict = json.loads(said)
    assert (code, error, verdict["verdict"]) == (0, "", "pass")
    assert {"epsilon", "delta", "population", "unit", "relation", "accountant", "releases"} <= set(verdict)
    (release,) = verdict["recomputed"]
    assert (
        abs(release["epsilon"] - verdict["epsilon"]) < 1e-6 and release["checks"]["RDP"] > release["epsilon"]
    )
    assert (verdict["weights"], verdict["signature"]["status"]) == ("not checked", "absent")
    assert verdict["evidence"].keys() == {*FILES, LOCK} - {LEDGER, CANARIES, PRUNING}


def test_a_contradiction_fails_and_is_on_the_page(kept: Path, command: Command) -> None:
    def fewer(trace):
        trace["steps"] = trace["steps"][:-1]

    written(kept, edited(stored("1.2"), TRACE, fewer))
    code, said, error = command("audit")
    assert (code, error) == (1, "")
    assert f"- ERROR   {TRACE}: holds 39 steps, not the 40 planned ones" in said
    assert said.endswith("\nverdict: fail\n")


def test_the_page_shows_nothing_but_printable_ascii(kept: Path, command: Command) -> None:
    def mislead(plan):
        plan["population"]["name"] = "p\u0430tients\x1b[2K\r\u202e"

    written(kept, edited(stored("1.2"), PLAN, mislead))
    page = command("audit")[1]
    assert "p\\u0430tients\\x1b[2K\\r\\u202e" in page
    assert all(char == "\n" or " " <= char <= "~" for char in page)


@pytest.mark.parametrize("missing", [PLAN, TRACE, LOCK])
def test_missing_evidence_is_one_sentence_and_exit_2(missing: str, kept: Path, command: Command) -> None:
    (kept / missing).unlink()
    code, said, error = command("audit")
    assert (code, said) == (2, "")
    assert error.startswith(f"dualpriv: {missing} missing from this checkout") and error.count("\n") == 1


def test_evidence_of_another_version_is_a_finding(kept: Path, command: Command) -> None:
    written(kept, edited(stored("1.2"), PLAN, lambda plan: plan.update(version=99)))
    found = audit(kept)["findings"]
    assert (PLAN, "has version 99; this dualpriv reads [1, 2, 3]") in {
        (finding["file"], finding["problem"]) for finding in found
    }


def test_a_symbolic_link_in_the_place_of_evidence_is_a_finding(kept: Path, command: Command) -> None:
    (kept / PLAN).rename(kept / "plan.json")
    (kept / PLAN).symlink_to("../plan.json")
    found = audit(kept)["findings"]
    assert [(PLAN, "is or lies behind a symbolic link")] == [
        (finding["file"], finding["problem"]) for finding in found if finding["file"] == PLAN
    ]


def test_rev_and_all_revs_exclude_each_other(kept: Path, command: Command) -> None:
    code, said, error = command("audit", "--rev", "HEAD", "--all-revs")
    assert code == 2 and "give one of the two" in error


def test_a_key_that_is_none_is_one_sentence(kept: Path, command: Command) -> None:
    (kept / "key.pem").write_text("words")
    for name, words in (("none.pem", "cannot be read"), ("key.pem", "is not the PEM file of an Ed25519")):
        code, said, error = command("audit", "--public-key", name)
        assert (code, said) == (2, "") and words in error


def test_with_a_key_unsigned_evidence_fails(kept: Path, command: Command) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    verdict = audit(kept, public=Ed25519PrivateKey.generate().public_key())
    assert verdict["verdict"] == "fail" and verdict["signature"]["status"] == "absent"


def test_a_fresh_clone_without_cache_data_or_model_passes_and_says_so(ran_checkout, tmp_path):
    clone = tmp_path / "clone"
    for file in (*FILES, LOCK, "pipeline", "stages"):
        source = ran_checkout / file
        if source.exists():
            (clone / file).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, clone / file)
    command = (sys.executable, "-m", "pipeline.cli", "audit")
    done = run(clone, *command, "--json", check=False)
    verdict = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert (verdict["verdict"], verdict["weights"]) == ("pass", "not checked")
    assert 0 < verdict["epsilon"] <= 8.0
    required = run(clone, *command, "--require-weights", check=False)
    assert required.returncode == 1 and "models/adapter: is not here to be checked" in required.stdout


def test_present_weights_are_checked_and_swapped_ones_are_noticed(ran_checkout):
    assert audit(ran_checkout)["weights"] == "checked"
    weights = ran_checkout / "models/adapter/adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    verdict = audit(ran_checkout)
    assert (verdict["verdict"], verdict["weights"]) == ("fail", "differ")
    assert ["models/adapter/adapter_model.safetensors"] == [
        finding["file"] for finding in verdict["findings"] if finding["severity"] == "error"
    ]


def test_the_audit_and_the_ledger_agree_where_exports_lie() -> None:
    assert Path(EXPORTS) == EXPORTED


def test_all_evidence_of_all_stages_is_read() -> None:
    written_by = {
        port.path.as_posix() for stage in stage_classes() for port in stage.ports() if port.evidence
    }
    once = {CALIBRATION, "data/calibrate/fidelity.csv"}
    assert written_by == {*FILES, *ATTACHED, "models/pretrained"} - once


def test_a_forger_does_not_choose_how_long_the_page_is(kept: Path, command: Command) -> None:
    def many(trace):
        trace["steps"] = [{"step": number, "x" * 10_000: 1} for number in range(2000)]
        trace["adapter"] = {f"../{number}": "y" * 10_000 for number in range(2000)}

    written(kept, edited(stored("1.2"), TRACE, many))
    code, page, _ = command("audit")
    assert code == 1 and len(page) < 60_000 and "more findings" in page
