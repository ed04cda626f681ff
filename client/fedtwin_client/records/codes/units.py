"""One spelling for every unit, and conversion between units of one kind.

Spelling comes first: hospitals write `mmHg`, `MM HG`, `mm[Hg]` (UCUM) for one unit, and a UCUM
parser would take `C` for coulomb and `K/uL` for kelvin. A spelling that no table lists is not
known; it is never guessed. The tables are those in use (`code_tables`): what this node ships with,
and the site's own additions.
"""

from fedtwin_client.records.codes.tables import in_use
from fedtwin_client.records.codes.unit_table import SAME, Conversion

__all__ = ["SAME", "Conversion", "conversion", "normal_unit"]


def normal_unit(text: str | None) -> str | None:
    """The UCUM spelling of a unit that is known here.

    Args:
        text: as the hospital wrote it.

    Returns:
        The unit, `1` for an annotation such as `{score}`, or none if it is not known.
    """
    return None if text is None else in_use().units.normal(text)


def conversion(source: str, target: str) -> Conversion | None:
    """How to convert between two units of one kind, in UCUM spelling.

    Returns:
        The conversion, or none if they are of different kinds or not known.
    """
    return in_use().units.conversion(source, target)
