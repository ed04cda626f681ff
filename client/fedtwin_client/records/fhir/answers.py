"""What the FHIR door answers with: OperationOutcome in words, and what the door can do."""

from datetime import datetime
from typing import Any

MOST_ISSUES = 20


class RefusalError(Exception):
    """A request that is not carried out.

    Attributes:
        status: of HTTP.
        code: of FHIR's IssueType.
        sentences: why, and how to mend it; nothing of a patient.
    """

    def __init__(self, status: int, code: str, *sentences: str) -> None:
        super().__init__(sentences)
        self.status = status
        self.code = code
        self.sentences = sentences


def outcome(severity: str, code: str, *sentences: str) -> dict[str, Any]:
    """An OperationOutcome, one issue a sentence, at most 20.

    Args:
        severity: of FHIR's IssueSeverity.
        code: of FHIR's IssueType.
        sentences: what to say.
    """
    issues = [
        {"severity": severity, "code": code, "diagnostics": sentence}
        for sentence in sentences[:MOST_ISSUES]
    ]
    return {"resourceType": "OperationOutcome", "issue": issues}


def capabilities(now: datetime) -> dict[str, Any]:
    """The CapabilityStatement of FHIR R4 (hl7.org/fhir/R4/capabilitystatement.html).

    Args:
        now: aware; the time it is made.
    """
    create = [{"code": "create", "documentation": "kept before it is answered"}]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": now.isoformat(timespec="seconds"),
        "kind": "instance",
        "software": {"name": "fedtwin"},
        "implementation": {"description": "takes Observations in for this hospital's twins"},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json"],
        "rest": [
            {
                "mode": "server",
                "security": {"description": "a bearer token of the hospital's own"},
                "resource": [{"type": "Observation", "interaction": create}],
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
            }
        ],
    }
