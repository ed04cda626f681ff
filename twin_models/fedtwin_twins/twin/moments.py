"""When something happened: hours from a patient's origin, or a point in time with a time zone."""

from dataclasses import dataclass
from datetime import datetime

from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal

Moment = Quantity | datetime
"""A time after the origin (such as `Quantity(12, "h")`), or a datetime that knows its zone."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Turns moments into hours.

    Attributes:
        origin: hour 0 for datetimes; none if every moment is a time after the origin.

    Raises:
        Refusal: an origin without a time zone.
    """

    origin: datetime | None = None

    def __post_init__(self) -> None:
        if self.origin is not None and self.origin.utcoffset() is None:
            raise Refusal(_without_zone("origin", self.origin))

    def hours(self, moment: Moment, field: str) -> float:
        """Hours from the origin; across changes of summer time, as time passes.

        Raises:
            Refusal: a datetime without a zone or without an origin, or not a time at all.
        """
        if isinstance(moment, Quantity):
            return moment.to("h", field=field)
        if moment.utcoffset() is None:
            raise Refusal(_without_zone(field, moment))
        if self.origin is None:
            raise Refusal(
                Problem(
                    field=field,
                    value=moment.isoformat(),
                    allowed="hours from the origin",
                    remedy="give the patient an origin, the datetime of hour 0",
                )
            )
        return (moment - self.origin).total_seconds() / 3_600.0


def _without_zone(field: str, moment: datetime) -> Problem:
    return Problem(
        field=field,
        value=moment.isoformat(),
        allowed="a datetime with its time zone",
        remedy="add the offset of the hospital's clock, such as +01:00",
    )
