"""What leaves the search for a clinician's desk: a proposal, which gives nothing by itself.

A proposal holds one allowed regimen with its probabilities and reasons. It is checked against the
hard limits when it is made and again when it is signed; it counts as an order only once a named
clinician has signed it, and nothing here signs for them.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from fedtwin_twins.advice.assessment import Assessment
from fedtwin_twins.advice.limits import Limits, check_limits
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.twin.refusals import Problem, Refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A regimen that may be given if somebody answers for it.

    Attributes:
        assessment: the regimen and its probabilities.
        limits: that it was checked against.
        current: what the patient has now.
        reasons: why this one, in sentences made from numbers.
        cautions: what a reader must know beside the numbers.
        signed_by: the clinician who answers for it; empty: nobody yet.
        signed_at: when; none: not yet.

    Raises:
        Refusal: the regimen breaks a limit.
    """

    assessment: Assessment
    limits: Limits
    current: Regimen | None = None
    reasons: tuple[str, ...] = ()
    cautions: tuple[Problem, ...] = ()
    signed_by: str = ""
    signed_at: datetime | None = None

    def __post_init__(self) -> None:
        check_limits(self.assessment.regimen, self.limits, self.current)

    @property
    def is_signed(self) -> bool:
        """Whether a clinician answers for it."""
        return bool(self.signed_by) and self.signed_at is not None

    def signed(self, clinician: str, now: datetime) -> "Proposal":
        """The same proposal with a name under it; the limits are checked once more.

        Raises:
            Refusal: no name, or a time without a time zone.
        """
        if not clinician.strip():
            raise Refusal(
                Problem(field="clinician", allowed="a name", remedy="a proposal needs a person")
            )
        if now.tzinfo is None:
            raise Refusal(Problem(field="now", value=str(now), allowed="a time with its time zone"))
        return replace(self, signed_by=clinician.strip(), signed_at=now)
