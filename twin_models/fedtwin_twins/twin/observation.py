"""What was measured of a patient, and how far down the laboratory could see."""

from dataclasses import dataclass

from fedtwin_twins.twin.moments import Moment
from fedtwin_twins.twin.quantities import Quantity


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """One measurement.

    Attributes:
        time: when the sample was drawn.
        observable: one of the model's by name or LOINC code.
        value: what was measured; none only where `below`.
        below: the value lies below the limit of quantification.
        quantification_limit: of this assay; none: the model's.
    """

    time: Moment
    observable: str
    value: Quantity | None = None
    below: bool = False
    quantification_limit: Quantity | None = None
