"""OpenSSF's own verifier accepts what stands beside a release, and nothing that was changed."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from model_signing import verifying

import fedtwin.demo
from fedtwin_protocol.attestation import BUNDLE, BUNDLE_KEY, attest, check_attestation
from fedtwin_protocol.card_writing import RunFacts, write_card
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.release import CARD, MODEL, PAGE, PLAN, build_release, sign_release
from fedtwin_protocol.signing import PLAN_TYPE, TrustRoot, public_key, sign
from fedtwin_protocol.study import plan_from_yaml

PLANS = Path(fedtwin.demo.__file__).parent / "plans"
KEY = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
TRUST = TrustRoot(consortium="demo", keys=(public_key(KEY, "signer"),), threshold=1)
PROVENANCE = {"sites_count": 2, "plan_hash": "f" * 64}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    plan, now = plan_from_yaml(PLANS / "heart-disease.yaml"), datetime(2026, 3, 1, tzinfo=UTC)
    arrays = {"weights": np.zeros(len(plan.contract.columns)), "intercept": np.zeros(1)}
    facts = RunFacts(patients={"a": 500.0}, rounds_used={"a": 1}, rounds=1, created=now)
    envelope = sign(PLAN_TYPE, plan.to_bytes(), [KEY])
    card = write_card(plan, facts)
    made = build_release(arrays, card, envelope, now, provenance=PROVENANCE)
    return sign_release(made, [KEY], TRUST)


@pytest.fixture
def folder(files: dict[str, bytes], tmp_path: Path) -> Path:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "log.json").write_text("{}")
    return tmp_path


def model_signing_verifies(folder: Path) -> None:
    """What `model_signing verify key` does.

    Raises:
        ValueError: it does not accept the folder.
    """
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=folder / BUNDLE_KEY)
    verifier.verify(folder, folder / BUNDLE)


def test_model_signing_accepts_a_release_as_it_was_fetched(folder: Path) -> None:
    model_signing_verifies(folder)


@pytest.mark.parametrize("name", [MODEL, CARD, PAGE, PLAN])
def test_model_signing_refuses_a_flipped_bit(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(ValueError, match=f"Hash mismatch for .*{name}"):
        model_signing_verifies(folder)


def test_model_signing_refuses_an_extra_and_an_absent_file(folder: Path) -> None:
    (folder / "more.pkl").write_bytes(b"more")
    with pytest.raises(ValueError, match="Extra files found"):
        model_signing_verifies(folder)
    (folder / "more.pkl").unlink()
    (folder / CARD).unlink()
    with pytest.raises(ValueError, match="Missing files"):
        model_signing_verifies(folder)


def test_model_signing_refuses_another_key(folder: Path, files: dict[str, bytes]) -> None:
    other = attest({MODEL: files[MODEL]}, "other", {})
    (folder / BUNDLE_KEY).write_bytes(other[BUNDLE_KEY])
    with pytest.raises(ValueError, match="Key mismatch"):
        model_signing_verifies(folder)


def test_our_own_check_gives_the_provenance_and_refuses_the_same(files: dict[str, bytes]) -> None:
    assert check_attestation(files) == PROVENANCE
    other = attest({**files, CARD: b"{}"}, "m", PROVENANCE)
    for changed, says in (
        ({**files, CARD: b"{}"}, "other files"),
        ({**files, **other}, "other files"),
        ({**files, BUNDLE_KEY: other[BUNDLE_KEY]}, "does not fit"),
        ({**files, BUNDLE: b"{}"}, "no signature bundle"),
        ({**files, BUNDLE: files[BUNDLE].replace(b"application", b"Application")}, "not fit"),
    ):
        with pytest.raises(ReleaseError, match=says):
            check_attestation(changed)
