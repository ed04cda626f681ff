"""Audits of a model: results that stand in its card, and the file in which they travel.

Rules:
1. An audit says what it tests, what it found beside its threshold, when, with which software and
   seed, and who can repeat it.
2. A file of audits names the plan by hash, and the model by hash where a model was audited; results
   of another plan or model never enter a card.
3. An audit that failed is never left out: a file with one is refused for a release.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, ValidationError

from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.contract import Part, faults
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.study import StudyPlan

Sentence = Annotated[str, Field(max_length=600)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MOST_BYTES = 2**20
NO_AUDITS = "No results of privacy audits were given with this release."


class Audit(Part):
    """One audit and its result.

    Attributes:
        name: short and stable, such as `membership`.
        asks: what is tested.
        result: the figure that was found.
        threshold: what it is held against.
        passed: whether it is on the right side.
        reading: the result in words.
        by: whose software was audited: a site's, or the plan's mechanism written again elsewhere.
        performed: when.
        software: name and version.
        seed: of everything that can be repeated.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,40}$")
    asks: Sentence
    result: float
    threshold: float
    passed: bool
    reading: Sentence
    by: Literal["site software", "outside"]
    performed: AwareDatetime
    software: str = Field(max_length=120)
    seed: int = Field(ge=0)


class AuditFile(Part):
    """Audits of one study.

    Attributes:
        study: its name.
        version: of the plan.
        plan_hash: of the plan.
        model_sha256: of model.safetensors; none where no model was looked at.
        audits: the results.
    """

    format: Literal["fedtwin-audits-1"] = "fedtwin-audits-1"
    study: str = Field(max_length=80)
    version: int = Field(ge=1)
    plan_hash: Hash
    model_sha256: Hash | None = None
    audits: tuple[Audit, ...] = Field(max_length=100)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_bytes(self.model_dump(mode="json"))


def audit_file(
    plan: StudyPlan, audits: Iterable[Audit], model_sha256: str | None = None
) -> AuditFile:
    """Put audits of a plan, or of a model of it, in a file."""
    return AuditFile(
        study=plan.study,
        version=plan.version,
        plan_hash=plan.hash,
        model_sha256=model_sha256,
        audits=tuple(audits),
    )


def audits_from_bytes(data: bytes, where: str) -> AuditFile:
    """Read a file of audits; `where` names it in errors.

    Raises:
        ReleaseError: it is none.
    """
    try:
        if len(data) > MOST_BYTES:
            raise ReleaseError(f"{where} is too large to be a file of audits")
        return AuditFile.model_validate_json(data)
    except ValidationError as error:
        raise ReleaseError(f"{where} is no file of audits: {faults(error)}") from error


def audits_for_card(
    plan: StudyPlan, model_sha256: str, files: Iterable[AuditFile]
) -> tuple[Audit, ...]:
    """The audits that a model's card may show, in the order of the files.

    Raises:
        ReleaseError: a file speaks of another plan or model, an audit stands twice, or one failed.
    """
    audits: list[Audit] = []
    for file in files:
        if file.plan_hash != plan.hash:
            raise ReleaseError(
                f"the audits are of {file.study} version {file.version} (plan "
                f"{file.plan_hash[:16]}…), the release is of {plan.study} version {plan.version} "
                f"(plan {plan.hash[:16]}…): audit this plan"
            )
        if file.model_sha256 not in {None, model_sha256}:
            raise ReleaseError(
                f"the audits are of another model of {plan.study}: audit the drafted one"
            )
        audits += file.audits
    names = [audit.name for audit in audits]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ReleaseError(f"audits were given twice: {', '.join(twice)}")
    failed = [f"{audit.name} ({audit.reading})" for audit in audits if not audit.passed]
    if failed:
        raise ReleaseError(f"a model is not released whose audit failed: {'; '.join(failed)}")
    return tuple(audits)
