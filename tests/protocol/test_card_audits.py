"""Audits enter a card whole, with their thresholds, of the right plan and model, or not at all."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import fedtwin.demo
from fedtwin_protocol.card import card_from_bytes, check_card
from fedtwin_protocol.card_audits import (
    NO_AUDITS,
    Audit,
    AuditFile,
    audit_file,
    audits_for_card,
    audits_from_bytes,
)
from fedtwin_protocol.card_page import card_page
from fedtwin_protocol.card_writing import RunFacts, write_card
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.study import plan_from_yaml

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAN = plan_from_yaml(Path(fedtwin.demo.__file__).parent / "plans" / "heart-disease.yaml")
MODEL, OTHER = "a" * 64, "b" * 64


def audit(**changes: Any) -> Audit:
    told = {
        "name": "membership",
        "asks": "members are found",
        "result": 0.0123,
        "threshold": 0.0272,
        "passed": True,
        "reading": "1.23 % of members found <b>",
        "by": "outside",
        "performed": NOW,
        "software": "fedtwin 0.1.0",
        "seed": 7,
    }
    return Audit.model_validate({**told, **changes})


def card_with(*audits: Audit) -> Any:
    facts = RunFacts(
        patients={"a": 300.0}, rounds_used={"a": 3}, rounds=3, created=NOW, audits=audits
    )
    return write_card(PLAN, facts)


def test_a_card_shows_its_audits() -> None:
    card = card_with(audit())
    assert card_from_bytes(card.to_bytes()) == card
    check_card(card, PLAN)
    page = card_page(card)
    for said in ("membership", "0.0123", "0.0272", "passed", "seed 7", "2026-03-01", "&lt;b&gt;"):
        assert said in page
    assert NO_AUDITS not in page
    assert NO_AUDITS not in card.limits


def test_a_card_without_audits_says_so() -> None:
    card = card_with()
    assert card.audits == ()
    assert NO_AUDITS in card.limits
    assert NO_AUDITS in card_page(card)


def test_a_card_of_before_there_were_audits_is_read() -> None:
    data = card_with().model_dump(mode="json")
    del data["audits"]
    assert type(card_with()).model_validate(data).audits == ()


def files(*audits: Audit, model: str | None = None, **changes: Any) -> list[AuditFile]:
    return [audit_file(PLAN, audits, model).model_copy(update=changes)]


def test_audits_of_this_plan_and_model_are_taken_in_order() -> None:
    own = files(audit(name="moments", by="site software"))
    outside = files(audit(), model=MODEL)
    found = audits_for_card(PLAN, MODEL, [*own, *outside])
    assert [one.name for one in found] == ["moments", "membership"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (files(audit(), plan_hash=OTHER), "audit this plan"),
        (files(audit(), model=OTHER), "audit the drafted one"),
        (files(audit(), audit()), "given twice: membership"),
        (files(audit(passed=False)), "failed: membership"),
    ],
)
def test_other_doubled_and_failed_audits_are_refused(given: list[AuditFile], reason: str) -> None:
    with pytest.raises(ReleaseError, match=reason):
        audits_for_card(PLAN, MODEL, given)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format": "other"}', b"x" * (2**20 + 1)])
def test_what_is_no_file_of_audits_is_refused(data: bytes) -> None:
    with pytest.raises(ReleaseError, match=r"audits\.json"):
        audits_from_bytes(data, "audits.json")


def test_a_file_of_audits_comes_back() -> None:
    (file,) = files(audit(), model=MODEL)
    assert audits_from_bytes(file.to_bytes(), "it") == file
