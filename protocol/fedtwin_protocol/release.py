"""A release: a model with its card, its signed plan and the signatures of the consortium.

Seven files and no others: `model.safetensors`, `card.json`, `card.html`, `plan.json` (the signed
plan), `model.sig` with `model.pem` (see attestation.py) and `statement.json` (a signed list of the
others with sizes and hashes). Nothing here reads or writes a disk, and nothing is unpickled.

A release is believed when these rules hold, checked in this order; the first that fails raises:
1. `statement.json` is signed by the threshold of the consortium's signers.
2. `plan.json` is signed by the same threshold.
3. The statement names the plan's study, version and hash, and the trust root's consortium.
4. The files are exactly those listed, each with the size and SHA-256 that is listed.
5. The card is a card and says what the plan says: study, privacy numbers, feature contract.
6. The safetensors header is sane: small, without repeats, its tensors side by side and of the
   plan's names, shapes and a float type.
7. Every number of the model is finite.
8. The bundle `model.sig` fits its key and speaks of these files.

Where the consortium has replaced a signer's key, a release from before is signed by the former
signers. Who has the TUF list, in which the present signers vouch for every file of it, names the
former ones too (`former`); nobody else believes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from pydantic import AwareDatetime, Field, ValidationError
from safetensors.numpy import save as save_tensors

from fedtwin_protocol.attestation import BUNDLE, BUNDLE_KEY, attest, check_attestation
from fedtwin_protocol.canonical import canonical_bytes, sha256_hex
from fedtwin_protocol.card import ModelCard, card_from_bytes, check_card
from fedtwin_protocol.card_page import card_page
from fedtwin_protocol.contract import Part
from fedtwin_protocol.errors import ReleaseError, SignatureError
from fedtwin_protocol.parameters import parameter_shapes
from fedtwin_protocol.signing import (
    PLAN_TYPE,
    RELEASE_TYPE,
    Envelope,
    TrustRoot,
    envelope_from_bytes,
    sign,
    verify,
)
from fedtwin_protocol.study import StudyPlan, plan_from_bytes
from fedtwin_protocol.tensors import read_tensors

MODEL, CARD, PAGE = "model.safetensors", "card.json", "card.html"
PLAN, STATEMENT = "plan.json", "statement.json"
LISTED = (MODEL, CARD, PAGE, PLAN, BUNDLE, BUNDLE_KEY)
LARGEST_BYTES: Mapping[str, int] = {
    MODEL: 4 * 2**30,
    CARD: 4 * 2**20,
    PAGE: 8 * 2**20,
    PLAN: 8 * 2**20,
    BUNDLE: 8 * 2**20,
    BUNDLE_KEY: 2**12,
    STATEMENT: 2**18,
}

Shapes = Mapping[str, tuple[int, ...]]
Arrays = Mapping[str, NDArray[np.floating]]


class FileFact(Part):
    """A listed file: its SHA-256 in hexadecimal and its size in bytes."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Statement(Part):
    """What the signers sign: which files make this release of which study."""

    format: Literal["fedtwin-release-1"] = "fedtwin-release-1"
    study: str = Field(max_length=80)
    version: int = Field(ge=1)
    plan_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    files: dict[str, FileFact]
    created: AwareDatetime

    def to_bytes(self) -> bytes:
        """Canonical JSON: what is signed."""
        return canonical_bytes(self.model_dump(mode="json"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A release that was verified.

    Attributes:
        plan: the signed plan.
        card: the model card, which agrees with the plan.
        parameters: arrays by name, shapes as in `parameters.parameter_shapes`; all finite.
        statement: what was signed.
        provenance: how the model came about, as the bundle says.
    """

    plan: StudyPlan
    card: ModelCard
    parameters: dict[str, NDArray[np.floating]]
    statement: Statement
    provenance: Mapping[str, Any]


def model_bytes(parameters: Arrays) -> bytes:
    """A model's arrays as safetensors, the same bytes for the same numbers."""
    return save_tensors(
        {name: np.ascontiguousarray(parameters[name]) for name in sorted(parameters)}
    )


def build_release(
    parameters: Arrays,
    card: ModelCard,
    plan_envelope: Envelope,
    created: datetime,
    shapes: Shapes | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Put the files together; the statement bears no signature yet.

    Args:
        parameters: the model's arrays by name.
        card: of this model.
        plan_envelope: the signed plan.
        created: aware.
        shapes: of the arrays, for a model family that is not built in.
        provenance: how the model came about, JSON values.

    Returns:
        File contents by name, to be signed with `sign_release`.

    Raises:
        ReleaseError: the card or the arrays do not fit the plan, or a number is not finite.
    """
    plan = plan_from_bytes(plan_envelope.body)
    check_card(card, plan)
    files = {
        MODEL: model_bytes(parameters),
        CARD: card.to_bytes(),
        PAGE: card_page(card).encode("utf-8"),
        PLAN: plan_envelope.to_bytes(),
    }
    _model_of(files[MODEL], shapes or parameter_shapes(plan))
    files |= attest(files, f"{plan.study}-{plan.version}", provenance or {})
    statement = Statement(
        study=plan.study,
        version=plan.version,
        plan_hash=plan.hash,
        files={name: _fact(data) for name, data in files.items()},
        created=created,
    )
    return {**files, STATEMENT: sign(RELEASE_TYPE, statement.to_bytes(), []).to_bytes()}


def sign_release(
    files: Mapping[str, bytes],
    keys: Iterable[Ed25519PrivateKey],
    trust: TrustRoot,
    shapes: Shapes | None = None,
) -> dict[str, bytes]:
    """Add signatures to a release, after checking all of it but the number of signatures.

    Signers at different places call it one after the other.

    Raises:
        ReleaseError: a rule of `verify_release` is broken; nobody should sign that.
        SignatureError: the plan is not signed by the threshold.
    """
    envelope = envelope_from_bytes(_file(files, STATEMENT))
    _verify_contents(envelope.body, files, (trust,), shapes)
    fresh = sign(RELEASE_TYPE, envelope.body, list(keys)).signatures
    replaced = {signature.keyid for signature in fresh}
    kept = tuple(old for old in envelope.signatures if old.keyid not in replaced)
    signed = envelope.model_copy(update={"signatures": (*kept, *fresh)})
    return {**files, STATEMENT: signed.to_bytes()}


def verify_release(
    files: Mapping[str, bytes],
    trust: TrustRoot,
    shapes: Shapes | None = None,
    former: Sequence[TrustRoot] = (),
) -> Release:
    """Believe a release, or raise: the rules stand at the top of this module, in order.

    Args:
        files: contents by file name, from any source.
        trust: whose signatures count.
        shapes: of the arrays, for a model family that is not built in.
        former: signers of older TUF roots, where the TUF list vouches for the files.

    Raises:
        SignatureError: too few or wrong signatures on the statement or the plan.
        ReleaseError: any other rule is broken; says which, and by what.
        PlanError: the signed plan is no plan.
    """
    accepted = (trust, *former)
    statement = _signed_by_any(_file(files, STATEMENT), RELEASE_TYPE, accepted)
    return _verify_contents(statement, files, accepted, shapes)


def _verify_contents(
    body: bytes, files: Mapping[str, bytes], accepted: Sequence[TrustRoot], shapes: Shapes | None
) -> Release:
    plan_body = _signed_by_any(_file(files, PLAN), PLAN_TYPE, accepted)
    plan = plan_from_bytes(plan_body)
    statement = _statement_of(body, plan, accepted[0])
    _check_files(statement, files)
    card = card_from_bytes(files[CARD])
    check_card(card, plan)
    parameters = _model_of(files[MODEL], shapes or parameter_shapes(plan))
    return Release(
        plan=plan,
        card=card,
        parameters=parameters,
        statement=statement,
        provenance=check_attestation(files),
    )


def _signed_by_any(data: bytes, kind: str, accepted: Sequence[TrustRoot]) -> bytes:
    """The payload, if the threshold of the present signers, or else of former ones, signed it."""
    envelope = envelope_from_bytes(data)
    try:
        return verify(envelope, kind, accepted[0])
    except SignatureError:
        for trust in accepted[1:]:
            with suppress(SignatureError):
                return verify(envelope, kind, trust)
        raise


def _fact(data: bytes) -> FileFact:
    return FileFact(sha256=sha256_hex(data), size=len(data))


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        found = ", ".join(sorted(files)) or "nothing"
        raise ReleaseError(f"the release lacks {name}; found {found}")
    if len(files[name]) > LARGEST_BYTES[name]:
        raise ReleaseError(f"{name} has {len(files[name])} bytes; at most {LARGEST_BYTES[name]}")
    return files[name]


def _statement_of(body: bytes, plan: StudyPlan, trust: TrustRoot) -> Statement:
    try:
        statement = Statement.model_validate_json(body)
    except ValidationError as error:
        raise ReleaseError(
            "the signed payload of statement.json is no release statement"
        ) from error
    if statement.to_bytes() != body:
        raise ReleaseError("the release statement is not in canonical form")
    for name, said, signed in (
        ("study", statement.study, plan.study),
        ("version", statement.version, plan.version),
        ("plan_hash", statement.plan_hash, plan.hash),
        ("consortium", plan.consortium, trust.consortium),
    ):
        if said != signed:
            raise ReleaseError(f"the release's {name} is {said!r}, expected {signed!r}")
    return statement


def _check_files(statement: Statement, files: Mapping[str, bytes]) -> None:
    if set(statement.files) != set(LISTED):
        raise ReleaseError(
            f"the statement lists {sorted(statement.files)}, expected {sorted(LISTED)}"
        )
    extra = sorted(set(files) - set(LISTED) - {STATEMENT})
    if extra:
        raise ReleaseError(f"the release holds files that nobody signed: {', '.join(extra)}")
    for name in LISTED:
        data, fact = _file(files, name), statement.files[name]
        if len(data) != fact.size:
            raise ReleaseError(f"{name} has {len(data)} bytes, the signed list says {fact.size}")
        if sha256_hex(data) != fact.sha256:
            raise ReleaseError(f"{name} was changed after signing: its SHA-256 is another")


def _model_of(data: bytes, shapes: Shapes) -> dict[str, NDArray[np.floating]]:
    arrays = read_tensors(data, shapes)
    for name, array in arrays.items():
        wrong = int(array.size - np.isfinite(array).sum())
        if wrong:
            raise ReleaseError(f"the model's '{name}' holds {wrong} numbers that are not finite")
    return arrays
