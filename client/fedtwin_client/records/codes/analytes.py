"""The codes this node knows the unit of, and conversions that need to know the substance.

What is known stands in tables (`code_tables`): `analytes.csv`, which is shipped, and the site's.
"""

from fedtwin_client.records.codes.analyte_table import Analyte
from fedtwin_client.records.codes.tables import in_use
from fedtwin_client.records.codes.unit_table import Conversion

__all__ = ["Analyte", "analyte", "analyte_conversion"]


def analyte(code: str) -> Analyte | None:
    """What a code measures, if this node knows it."""
    return in_use().analytes.get(code)


def analyte_conversion(code: str, source: str, target: str) -> Conversion | None:
    """How to convert a code's values between two units in UCUM spelling.

    Args:
        code: `<VOCABULARY>//<code>`; a known substance opens further conversions.
        source: the unit values are in.
        target: the unit they are wanted in.

    Returns:
        The conversion, or none if there is no honest one.
    """
    return in_use().convert(code, source, target)
