"""A release is believed only when every rule holds; each test breaks one."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

import fedtwin.demo
from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.card import ModelCard
from fedtwin_protocol.card_writing import RunFacts, write_card
from fedtwin_protocol.errors import FedtwinError, ReleaseError, SignatureError
from fedtwin_protocol.release import (
    CARD,
    MODEL,
    PAGE,
    PLAN,
    STATEMENT,
    Release,
    Statement,
    build_release,
    sign_release,
    verify_release,
)
from fedtwin_protocol.signing import (
    PLAN_TYPE,
    RELEASE_TYPE,
    TrustRoot,
    envelope_from_bytes,
    public_key,
    sign,
)
from fedtwin_protocol.study import StudyPlan, plan_from_yaml
from fedtwin_protocol.tensors import read_tensors

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLANS = Path(fedtwin.demo.__file__).parent / "plans"
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3)]
TRUST = TrustRoot(
    consortium="demo",
    keys=tuple(public_key(key, f"signer {n}") for n, key in enumerate(KEYS)),
    threshold=2,
)
Files = dict[str, bytes]


def heart_plan() -> StudyPlan:
    value = plan_from_yaml(PLANS / "heart-disease.yaml").model_dump()
    value["privacy"] |= {
        "mode": "local",
        "vote_noise": None,
        "clipping_norm": 1.0,
        "noise_multiplier": 6.58,
        "evaluation_noise": 3.8,
    }
    value["training"] |= {"rounds": 3, "learning_rate": 1.0}
    return StudyPlan.model_validate(value)


def heart_card(plan: StudyPlan) -> ModelCard:
    facts = RunFacts(
        patients={"cleveland": 303.0, "hungary": 261.0},
        rounds_used={"cleveland": 3, "hungary": 3},
        rounds=3,
        created=NOW,
    )
    return write_card(plan, facts)


def arrays(plan: StudyPlan) -> dict[str, np.ndarray]:
    return {
        "weights": np.linspace(-1, 1, len(plan.contract.columns)),
        "intercept": np.array([0.25]),
    }


@pytest.fixture(scope="module")
def unsigned() -> Files:
    plan = heart_plan()
    envelope = sign(PLAN_TYPE, plan.to_bytes(), KEYS[:2])
    return build_release(arrays(plan), heart_card(plan), envelope, NOW)


@pytest.fixture(scope="module")
def files(unsigned: Files) -> Files:
    return sign_release(unsigned, KEYS[:2], TRUST)


def resigned(files: Files, change: Callable[[dict[str, object]], None] = lambda _: None) -> Files:
    """The same files with a fresh, honestly signed statement over whatever they are now."""
    statement = Statement.model_validate_json(envelope_from_bytes(files[STATEMENT]).body)
    value = statement.model_dump(mode="json")
    value["files"] = {
        name: {"sha256": sha256_hex(data), "size": len(data)}
        for name, data in files.items()
        if name != STATEMENT
    }
    change(value)
    body = Statement.model_validate(value).to_bytes()
    return {**files, STATEMENT: sign(RELEASE_TYPE, body, KEYS[:2]).to_bytes()}


def test_a_release_comes_back_as_it_was_built(files: Files) -> None:
    release = verify_release(files, TRUST)
    assert isinstance(release, Release)
    assert release.plan == heart_plan()
    for name, array in arrays(heart_plan()).items():
        np.testing.assert_array_equal(release.parameters[name], array)
        np.testing.assert_array_equal(load_tensors(files[MODEL])[name], array)


def test_signers_at_two_places_sign_one_after_the_other(unsigned: Files) -> None:
    with pytest.raises(SignatureError, match="expected 2 signatures"):
        verify_release(unsigned, TRUST)
    once = sign_release(unsigned, [KEYS[2]], TRUST)
    again = sign_release(once, [KEYS[2]], TRUST)
    with pytest.raises(SignatureError, match="found 1 "):
        verify_release(again, TRUST)
    verify_release(sign_release(again, [KEYS[0]], TRUST), TRUST)


def test_a_stranger_s_signature_does_not_count(unsigned: Files) -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(SignatureError, match="found 1 "):
        verify_release(sign_release(unsigned, [KEYS[0], stranger], TRUST), TRUST)


@pytest.mark.parametrize("name", [MODEL, CARD, PAGE])
def test_one_changed_byte_in_a_file_is_found(files: Files, name: str) -> None:
    data = bytearray(files[name])
    data[len(data) // 2] ^= 1
    with pytest.raises(ReleaseError, match=f"{name} was changed after signing"):
        verify_release({**files, name: bytes(data)}, TRUST)


def test_a_longer_file_is_found(files: Files) -> None:
    with pytest.raises(ReleaseError, match="the signed list says"):
        verify_release({**files, PAGE: files[PAGE] + b" "}, TRUST)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_changed_byte_anywhere_passes(data: st.DataObject) -> None:
    plan = heart_plan()
    envelope = sign(PLAN_TYPE, plan.to_bytes(), KEYS[:2])
    files = sign_release(
        build_release(arrays(plan), heart_card(plan), envelope, NOW), KEYS[:2], TRUST
    )
    name = data.draw(st.sampled_from([MODEL, CARD, PAGE]))
    place = data.draw(st.integers(0, len(files[name]) - 1))
    changed = bytearray(files[name])
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FedtwinError):
        verify_release({**files, name: bytes(changed)}, TRUST)


@pytest.mark.parametrize("name", [MODEL, CARD, PAGE, PLAN, STATEMENT])
def test_a_missing_file_is_named(files: Files, name: str) -> None:
    rest = {key: value for key, value in files.items() if key != name}
    with pytest.raises(ReleaseError, match=f"lacks {name}"):
        verify_release(rest, TRUST)


def test_an_extra_file_is_named(files: Files) -> None:
    with pytest.raises(ReleaseError, match=r"nobody signed: model\.pkl"):
        verify_release({**files, "model.pkl": b"cos\nsystem"}, TRUST)


def test_a_statement_that_lists_more_is_refused(files: Files) -> None:
    more = resigned({**files, "notes.txt": b"hello"})
    with pytest.raises(ReleaseError, match="the statement lists"):
        verify_release(more, TRUST)


def test_a_plan_altered_after_signing_is_refused(files: Files) -> None:
    envelope = envelope_from_bytes(files[PLAN])
    louder = heart_plan().model_copy(update={"title": "another title"})
    forged = sign(PLAN_TYPE, louder.to_bytes(), []).model_copy(
        update={"signatures": envelope.signatures}
    )
    with pytest.raises(SignatureError, match="changed after signing"):
        verify_release(resigned({**files, PLAN: forged.to_bytes()}), TRUST)


def test_another_signed_plan_cannot_be_slipped_in(files: Files) -> None:
    other = plan_from_yaml(PLANS / "heart-disease-all-rows.yaml")
    swapped = {**files, PLAN: sign(PLAN_TYPE, other.to_bytes(), KEYS[:2]).to_bytes()}
    with pytest.raises(ReleaseError, match=r"release's study is 'heart-disease-risk'"):
        verify_release(resigned(swapped), TRUST)


def test_a_signed_plan_does_not_pass_for_a_statement(files: Files) -> None:
    with pytest.raises(SignatureError, match="expected a document of type"):
        verify_release({**files, STATEMENT: files[PLAN]}, TRUST)


def test_another_consortium_s_release_is_refused(files: Files) -> None:
    elsewhere = TRUST.model_copy(update={"consortium": "other"})
    with pytest.raises(ReleaseError, match="consortium is 'demo', expected 'other'"):
        verify_release(files, elsewhere)


def test_a_wrong_hash_of_the_plan_is_refused(files: Files) -> None:
    wrong = resigned(files, lambda value: value.update(plan_hash="0" * 64))
    with pytest.raises(ReleaseError, match="plan_hash"):
        verify_release(wrong, TRUST)


def test_a_card_that_flatters_is_refused_even_if_signed(files: Files) -> None:
    card = json.loads(files[CARD])
    card["privacy"]["epsilon"] = 0.1
    flattering = ModelCard.model_validate(card).to_bytes()
    with pytest.raises(ReleaseError, match=r"privacy\.epsilon says 0\.1, the signed plan 1\.0"):
        verify_release(resigned({**files, CARD: flattering}), TRUST)


def test_a_card_with_another_contract_is_refused(files: Files) -> None:
    card = json.loads(files[CARD])
    card["features"][0]["center"] = 54.0
    with pytest.raises(ReleaseError, match="feature contract"):
        verify_release(resigned({**files, CARD: ModelCard.model_validate(card).to_bytes()}), TRUST)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(files: Files, value: float) -> None:
    plan = heart_plan()
    bad = {**arrays(plan), "intercept": np.array([value])}
    with pytest.raises(ReleaseError, match="'intercept' holds 1 numbers"):
        verify_release(resigned({**files, MODEL: save_tensors(bad)}), TRUST)
    with pytest.raises(ReleaseError, match="not finite"):
        build_release(bad, heart_card(plan), sign(PLAN_TYPE, plan.to_bytes(), KEYS), NOW)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": np.zeros(12)}, "has the shape"),
        ({"weights": np.zeros((13, 1))}, "has the shape"),
        ({"weights": np.zeros(13, dtype=np.int64)}, "expected F32 or F64"),
        ({"weights": np.zeros(13, dtype=np.float16)}, "expected F32 or F64"),
        ({"bias": np.zeros(1)}, "holds the arrays"),
    ],
)
def test_other_arrays_than_the_plan_s_are_refused(
    files: Files, change: dict[str, np.ndarray], said: str
) -> None:
    model = save_tensors({**arrays(heart_plan()), **change})
    with pytest.raises(ReleaseError, match=said):
        verify_release(resigned({**files, MODEL: model}), TRUST)


def header(text: str, numbers: bytes = b"") -> bytes:
    return len(text.encode()).to_bytes(8, "little") + text.encode() + numbers


ENTRY = '"x": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}'


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "claims a header"),
        (b"\xff" * 7, "claims a header"),
        ((2**63).to_bytes(8, "little") + b"{}", "claims a header of 9223372036854775808"),
        (header("{"), "not JSON"),
        (header("[" * 100_000), "not JSON"),
        (header("[1]"), "not a table"),
        (header(f"{{{ENTRY}, {ENTRY}}}", bytes(8)), "twice"),
        (header(f"{{{ENTRY}}}", bytes(16)), "take 8 bytes, the file holds 16"),
        (header(f"{{{ENTRY}}}", bytes(4)), "take 8 bytes, the file holds 4"),
        (header(f"{{{ENTRY.replace('[0, 8]', '[8, 16]')}}}", bytes(16)), "a gap"),
        (header(f"{{{ENTRY.replace('[0, 8]', '[-8, 0]')}}}", bytes(8)), "a gap"),
        (header(f"{{{ENTRY.replace('[0, 8]', '[0, 9]')}}}", bytes(9)), "do not fit its shape"),
        (header(f"{{{ENTRY.replace('[0, 8]', '[0.0, 8.0]')}}}", bytes(8)), "do not fit"),
        (header(f"{{{ENTRY.replace('[1]', '[1099511627776]')}}}", bytes(8)), "the shape"),
    ],
)
def test_a_malicious_header_is_refused_in_words(data: bytes, said: str) -> None:
    with pytest.raises(ReleaseError, match=said):
        read_tensors(data, {"x": (1,)})


@given(st.binary(max_size=300))
def test_garbage_never_ends_in_anything_but_our_error(data: bytes) -> None:
    with pytest.raises(ReleaseError):
        read_tensors(data, {"x": (1,)})


def test_sites_sign_only_what_holds(unsigned: Files) -> None:
    with pytest.raises(ReleaseError, match="changed after signing"):
        sign_release({**unsigned, CARD: unsigned[CARD].replace(b"2026", b"2025")}, KEYS, TRUST)
