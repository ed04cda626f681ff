"""Apple HealthKit's types as codes, and its units as UCUM.

A type that LOINC has a code for is written with that; the codes are those of HealthKitOnFHIR
(github.com/StanfordBDHG/HealthKitOnFHIR, MIT). Others are `HEALTHKIT//<type>`, without Apple's
`HKQuantityTypeIdentifier` in front. HealthKit counts percentages from 0 to 1 (Apple Developer
Documentation, HKUnit.percent()), and so do its exports, under the unit `%`.
"""

import re
from functools import lru_cache

from fedtwin_client.records.reading import Number, UnusableError, checked_number, finite

_LOINC = {
    "HeartRate": "8867-4",
    "RestingHeartRate": "40443-4",
    "HeartRateVariabilitySDNN": "80404-7",
    "StepCount": "55423-8",
    "OxygenSaturation": "59408-5",
    "RespiratoryRate": "9279-1",
    "BodyTemperature": "8310-5",
    "BodyMass": "29463-7",
    "Height": "8302-2",
    "BodyMassIndex": "39156-5",
    "BodyFatPercentage": "41982-0",
    "BloodPressureSystolic": "8480-6",
    "BloodPressureDiastolic": "8462-4",
    "BloodGlucose": "2339-0",
    "ActiveEnergyBurned": "41981-2",
}
# What adds up over time, so that two devices worn at once would count twice.
SUMMED = frozenset(
    {"StepCount", "DistanceWalkingRunning", "DistanceCycling", "DistanceSwimming"}
    | {"DistanceWheelchair", "DistanceDownhillSnowSports", "FlightsClimbed", "PushCount"}
    | {"ActiveEnergyBurned", "BasalEnergyBurned", "AppleExerciseTime", "AppleStandTime"}
    | {"AppleMoveTime", "SwimmingStrokeCount"}
)
_NAME = re.compile(
    r"(?:HK(?:Quantity|Category|Correlation|Data)TypeIdentifier|HKDataType|HKWorkoutActivityType)"
    r"([A-Za-z0-9]{1,80})\Z"
)
_SUBSTANCE = re.compile(r"<[0-9.]+>")  # mmol<180.1558800000541>/L
_OWN_UNITS = {"st": "[stone_av]", "count/s": "/s"}  # in UCUM, `st` is a stere
_UNITLESS = {"BodyMassIndex": "kg/m2"}  # HealthKit's unit for it is `count`


@lru_cache(maxsize=4096)
def short_name(identifier: str) -> str:
    """A type's name without Apple's prefix.

    Raises:
        UnusableError: it is none of HealthKit's identifiers.
    """
    match = _NAME.match(identifier)
    if match is None:
        raise UnusableError("a type that is none of HealthKit's")
    return match[1]


def quantity_code(name: str) -> str:
    """`<VOCABULARY>//<code>` of a quantity type's short name."""
    loinc = _LOINC.get(name)
    return f"LOINC//{loinc}" if loinc else f"HEALTHKIT//{name}"


def quantity(name: str, value: float, unit: str | None) -> Number:
    """A quantity in the unit that its code is kept in.

    Args:
        name: the type's short name.
        value: as it was written.
        unit: as it was written.

    Raises:
        UnusableError: no finite number, a unit that does not fit, or a percentage above 1.
    """
    written = _SUBSTANCE.sub("", unit) if unit else unit
    written = _OWN_UNITS.get(written, written) if written else written
    number = finite(value)
    if name in _UNITLESS and written == "count":
        written = _UNITLESS[name]
    if written == "%":
        if not 0.0 <= number <= 1.0:
            raise UnusableError("a percentage outside 0 to 1, as which Apple counts them")
        number *= 100.0
    return checked_number(quantity_code(name), number, written)._replace(src_unit=unit)
