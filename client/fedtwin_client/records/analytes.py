"""The codes this node knows the unit of, and conversions that need to know the substance.

mg/dL and mmol/L are joined by the molar mass, computed from the formula by the standard atomic
weights (IUPAC 2021, abridged): C 12.011, H 1.008, N 14.007, O 15.999, Ca 40.078. Triglycerides are
counted as triolein and urea by its two nitrogen atoms, as laboratories do (AMA Manual of Style,
SI conversion table). HbA1c: NGSP % = 0.09148 * IFCC mmol/mol + 2.152 (the IFCC-NGSP master
equation, ngsp.org; Weykamp et al., Clin Chem 2008;54:240). Bicarbonate, sodium, potassium and
chloride carry one charge, so 1 meq/L is 1 mmol/L; calcium carries two.
"""

from dataclasses import dataclass
from functools import cache

from fedtwin_client.records.units import Conversion, conversion

_WEIGHTS = {"C": 12.011, "H": 1.008, "N": 14.007, "O": 15.999, "Ca": 40.078}


@dataclass(frozen=True, kw_only=True, slots=True)
class Analyte:
    """What is measured.

    Attributes:
        name: in words, for messages.
        unit: the UCUM unit its values are kept in.
        formula: atoms of one molecule as it is counted; none where no molar mass is used.
        charge: charges of one ion; none where equivalents have no meaning.
        hba1c: whether the NGSP/IFCC equation joins % and mmol/mol.
    """

    name: str
    unit: str
    formula: tuple[tuple[str, int], ...] = ()
    charge: int | None = None
    hba1c: bool = False

    @property
    def molar_mass(self) -> float | None:
        """In g/mol; none without a formula."""
        return sum(_WEIGHTS[atom] * count for atom, count in self.formula) or None


def _of(name: str, unit: str, **formula: int) -> Analyte:
    return Analyte(name=name, unit=unit, formula=tuple(formula.items()))


_CHOLESTEROL = {"C": 27, "H": 46, "O": 1}
_TABLE: tuple[tuple[Analyte, str], ...] = (
    (_of("total cholesterol", "mmol/L", **_CHOLESTEROL), "2093-3 14647-2"),
    (_of("HDL cholesterol", "mmol/L", **_CHOLESTEROL), "2085-9 14646-4"),
    (
        _of("LDL cholesterol", "mmol/L", **_CHOLESTEROL),
        "2089-1 13457-7 18262-6 22748-8 39469-2 69419-0 96259-7",
    ),
    (_of("non-HDL cholesterol", "mmol/L", **_CHOLESTEROL), "43396-1 70204-3"),
    (_of("triglycerides", "mmol/L", C=57, H=104, O=6), "2571-8 14927-8 3043-7"),
    (
        _of("glucose", "mmol/L", C=6, H=12, O=6),
        "2339-0 2345-7 1558-6 14749-6 15074-8 41653-7 2340-8 76629-5 14771-0 32016-8 99504-3"
        " 105272-9",
    ),
    (_of("creatinine", "umol/L", C=4, H=7, N=3, O=1), "2160-0 38483-4 14682-9"),
    (_of("urea nitrogen", "mmol/L", N=2), "3094-0 6299-2 22664-7"),
    (_of("urate", "umol/L", C=5, H=4, N=4, O=3), "3084-1 14933-6"),
    (_of("bilirubin", "umol/L", C=33, H=36, N=4, O=6), "1975-2 14631-6 42719-5"),
    (
        Analyte(name="calcium", unit="mmol/L", formula=(("Ca", 1),), charge=2),
        "17861-6 49765-1 2000-8",
    ),
    (Analyte(name="sodium", unit="mmol/L", charge=1), "2951-2 2947-0"),
    (Analyte(name="potassium", unit="mmol/L", charge=1), "2823-3 6298-4"),
    (Analyte(name="chloride", unit="mmol/L", charge=1), "2075-0 2069-3"),
    (Analyte(name="bicarbonate", unit="mmol/L", charge=1), "2028-9 1963-8 20565-8"),
    (Analyte(name="HbA1c", unit="%", hba1c=True), "4548-4 17856-6 59261-8 4549-2 41995-2"),
    (_of("systolic pressure", "mm[Hg]"), "8480-6 8459-0 8460-8 8461-6 76534-7"),
    (_of("diastolic pressure", "mm[Hg]"), "8462-4 8453-3 8454-1 8455-8 76535-4"),
    (_of("mean arterial pressure", "mm[Hg]"), "8478-0"),
    (_of("body temperature", "Cel"), "8310-5 8331-1 8332-9 8333-7"),
    (_of("body height", "cm"), "8302-2 3137-7 3138-5 8306-3"),
    (_of("head circumference", "cm"), "9843-4"),
    (_of("body weight", "kg"), "29463-7 3141-9 3142-7 18833-4"),
    (_of("body mass index", "kg/m2"), "39156-5"),
    (_of("heart rate", "/min"), "8867-4 76282-3 8893-0 40443-4"),
    (_of("respiratory rate", "/min"), "9279-1"),
    (_of("oxygen saturation", "%"), "2708-6 59408-5"),
    (_of("haemoglobin", "g/dL"), "718-7 20509-6"),
    (_of("albumin", "g/L"), "1751-7"),
    (
        _of("filtration rate", "mL/min/{1.73_m2}"),
        "33914-3 48642-3 48643-1 62238-1 69405-9 77147-7 98979-8 98980-6",
    ),
    (_of("C-reactive protein", "mg/L"), "1988-5 30522-7"),
    (_of("leukocytes", "10*9/L"), "6690-2 26464-8"),
    (_of("platelets", "10*9/L"), "777-3 26515-7"),
    (_of("steps", "1"), "55423-8 41950-7"),
    (_of("energy burned", "kcal"), "41981-2 41979-6"),
    (_of("sleep duration", "h"), "93832-4"),
    (_of("heart rate variability", "ms"), "80404-7"),
    (_of("body fat", "%"), "41982-0"),
)
# What wearables measure and LOINC has no code for that fits; names as their makers give them.
_WORN: tuple[tuple[Analyte, str], ...] = (
    (
        _of("distance", "m"),
        "OMH//distance HEALTHKIT//DistanceWalkingRunning HEALTHKIT//DistanceCycling"
        " HEALTHKIT//DistanceSwimming HEALTHKIT//DistanceWheelchair",
    ),
    (
        _of("duration", "min"),
        "OMH//duration OMH//minutes-moderate-activity OMH//latency-to-sleep-onset"
        " OMH//latency-to-arising OMH//wake-after-sleep-onset HEALTHKIT//AppleExerciseTime"
        " HEALTHKIT//AppleStandTime HEALTHKIT//AppleMoveTime HEALTHKIT//Workout",
    ),
    (_of("time asleep or in bed", "h"), "HEALTHKIT//SleepAnalysis"),
    (_of("resting energy", "kcal"), "HEALTHKIT//BasalEnergyBurned"),
    (_of("speed", "m/s"), "OMH//speed HEALTHKIT//WalkingSpeed HEALTHKIT//RunningSpeed"),
    (_of("pace", "min/km"), "OMH//pace"),
    (_of("RR interval", "ms"), "OMH//rr-interval"),
    (_of("heart rate", "/min"), "HEALTHKIT//WalkingHeartRateAverage"),
    (_of("oxygen uptake", "mL/min/kg"), "HEALTHKIT//VO2Max"),
    (_of("insulin", "U"), "CGM//insulin-fast-acting CGM//insulin-long-acting CGM//insulin"),
    (_of("carbohydrates", "g"), "CGM//carbohydrates"),
    (Analyte(name="ketones", unit="mmol/L"), "CGM//ketones"),
)
_ANALYTES = {f"LOINC//{code}": analyte for analyte, codes in _TABLE for code in codes.split()} | {
    code: analyte for analyte, codes in _WORN for code in codes.split()
}


def analyte(code: str) -> Analyte | None:
    """What a code measures, if this node knows it."""
    return _ANALYTES.get(code)


@cache
def analyte_conversion(code: str, source: str, target: str) -> Conversion | None:
    """How to convert a code's values between two units in UCUM spelling.

    Args:
        code: `<VOCABULARY>//<code>`; a known substance opens further conversions.
        source: the unit values are in.
        target: the unit they are wanted in.

    Returns:
        The conversion, or none if there is no honest one.
    """
    known = analyte(code)
    if known is not None and known.hba1c:
        return _hba1c(source, target)
    plain = conversion(source, target)
    if plain is not None or known is None:
        return plain
    return _through_moles(known, source, target)


def _hba1c(source: str, target: str) -> Conversion | None:
    if source == target:
        return Conversion(factor=1.0)
    to_percent = Conversion(factor=0.09148, offset=2.152)
    return {("mmol/mol", "%"): to_percent, ("%", "mmol/mol"): to_percent.inverse()}.get(
        (source, target)
    )


def _through_moles(known: Analyte, source: str, target: str) -> Conversion | None:
    into, out_of = _to_moles(known, source), _to_moles(known, target)
    return None if into is None or out_of is None else into.then(out_of.inverse())


def _to_moles(known: Analyte, unit: str) -> Conversion | None:
    """From a unit of any of the three kinds of concentration to mol/L."""
    moles = conversion(unit, "mol/L")
    if moles is not None:
        return moles
    grams, equivalents = conversion(unit, "g/L"), conversion(unit, "eq/L")
    if grams is not None and known.molar_mass is not None:
        return grams.then(Conversion(factor=1.0 / known.molar_mass))
    if equivalents is not None and known.charge is not None:
        return equivalents.then(Conversion(factor=1.0 / known.charge))
    return None
