"""What is audited: a plan with the card and the hash of a model, of a release or of its draft."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.card import ModelCard, card_from_bytes, check_card
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.release import CARD, MODEL, PLAN, Release
from fedtwin_protocol.signing import envelope_from_bytes
from fedtwin_protocol.study import StudyPlan, plan_from_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A plan, a card that says what it says, and the SHA-256 of the model."""

    plan: StudyPlan
    card: ModelCard
    model_sha256: str


def subject_of_release(release: Release) -> Subject:
    """Of a release that was verified."""
    model = release.statement.files[MODEL].sha256
    return Subject(plan=release.plan, card=release.card, model_sha256=model)


def subject_of_draft(files: Mapping[str, bytes]) -> Subject:
    """Of a draft, whose statement nobody has signed: its card is held against its plan.

    Raises:
        ReleaseError: a file is missing, or the card says something else than the plan.
        PlanError: the plan is none.
    """
    missing = [name for name in (PLAN, CARD, MODEL) if name not in files]
    if missing:
        raise ReleaseError(
            f"the draft lacks {', '.join(missing)}: 'fedtwin server release STUDY --draft FOLDER' "
            "writes one"
        )
    plan = plan_from_bytes(envelope_from_bytes(files[PLAN]).body)
    card = card_from_bytes(files[CARD])
    check_card(card, plan)
    return Subject(plan=plan, card=card, model_sha256=sha256_hex(files[MODEL]))
