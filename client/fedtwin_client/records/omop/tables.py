"""Which columns of an OMOP Common Data Model 5.3 or 5.4 are read, and what each one means.

Names and conventions: ohdsi.github.io/CommonDataModel (5.3, 5.4). Every clinical table is brought
to the same columns (`Meaning`), so that one rule maps all of them. Where 5.3 and 5.4 name a column
differently both names stand, the newer first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fedtwin_protocol.errors import RecordError


class Meaning(StrEnum):
    """What a column of a table is for; a table without such a column has nothing there."""

    ID = "id"
    PERSON = "person"
    DATE = "date"
    DATETIME = "datetime"
    END_DATE = "end_date"
    END_DATETIME = "end_datetime"
    CONCEPT = "concept"
    SOURCE_CONCEPT = "source_concept"
    SOURCE_VALUE = "source_value"
    NUMBER = "number"
    TEXT = "text"
    SOURCE_TEXT = "source_text"
    ANSWER = "answer"
    END_ANSWER = "end_answer"
    OPERATOR = "operator"
    UNIT = "unit"
    UNIT_TEXT = "unit_text"
    QUALIFIER = "qualifier"


CONCEPT_MEANINGS = (
    Meaning.CONCEPT, Meaning.SOURCE_CONCEPT, Meaning.ANSWER, Meaning.END_ANSWER, Meaning.OPERATOR,
    Meaning.UNIT, Meaning.QUALIFIER,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of the model.

    Attributes:
        name: in lower case.
        columns: by meaning, the column's name in 5.4, then in 5.3 where it differs.
        needed: meanings whose column must be there.
    """

    name: str
    columns: Mapping[Meaning, tuple[str, ...]]
    needed: tuple[Meaning, ...] = (Meaning.ID, Meaning.PERSON, Meaning.DATE, Meaning.CONCEPT)

    def found(self, there: frozenset[str]) -> dict[Meaning, str]:
        """The columns to read, by meaning.

        Args:
            there: names of the table's columns in this database, in lower case.

        Raises:
            RecordError: a column that is needed is not there.
        """
        chosen = {
            meaning: next((name for name in names if name in there), None)
            for meaning, names in self.columns.items()
        }
        for meaning in self.needed:
            if chosen[meaning] is None:
                raise RecordError(
                    f"expected a column {self.columns[meaning][0]} in the table {self.name}, found "
                    f"{', '.join(sorted(there)) or 'no column'}; the tables of the OMOP model 5.3 "
                    "and 5.4 have it: mend the table or the view, and import again"
                )
        return {meaning: name for meaning, name in chosen.items() if name is not None}


def _clinical(name: str, stem: str, start: str, **others: str) -> Table:
    """A table whose columns are named as the model names them: `<stem>_concept_id` and so on."""
    columns = {
        "id": f"{name}_id",
        "person": "person_id",
        "date": f"{start}_date",
        "datetime": f"{start}_datetime",
        "concept": f"{stem}_concept_id",
        "source_concept": f"{stem}_source_concept_id",
        "source_value": f"{stem}_source_value",
        **others,
    }
    return Table(
        name=name,
        columns={Meaning(meaning): tuple(names.split()) for meaning, names in columns.items()},
    )


PERSON = "person"
DEATH = "death"
CONCEPT = "concept"
PERSON_COLUMNS = (
    "person_id", "gender_concept_id", "year_of_birth", "month_of_birth", "day_of_birth",
    "birth_datetime", "person_source_value",
)  # fmt: skip
DEATH_COLUMNS = ("person_id", "death_date", "death_datetime")
CONCEPT_COLUMNS = ("concept_id", "vocabulary_id", "concept_code", "standard_concept")

VISITS = _clinical(
    "visit_occurrence",
    "visit",
    "visit_start",
    end_date="visit_end_date",
    end_datetime="visit_end_datetime",
    answer="admitted_from_concept_id admitting_source_concept_id",
    end_answer="discharged_to_concept_id discharge_to_concept_id",
)
CLINICAL = (
    _clinical("condition_occurrence", "condition", "condition_start"),
    _clinical("drug_exposure", "drug", "drug_exposure_start"),
    _clinical("procedure_occurrence", "procedure", "procedure"),
    _clinical("device_exposure", "device", "device_exposure_start"),
    _clinical(
        "measurement",
        "measurement",
        "measurement",
        number="value_as_number",
        answer="value_as_concept_id",
        source_text="value_source_value",
        operator="operator_concept_id",
        unit="unit_concept_id",
        unit_text="unit_source_value",
    ),
    _clinical(
        "observation",
        "observation",
        "observation",
        number="value_as_number",
        text="value_as_string",
        answer="value_as_concept_id",
        source_text="value_source_value",
        unit="unit_concept_id",
        unit_text="unit_source_value",
        qualifier="qualifier_concept_id",
    ),
    VISITS,
)
READ = (PERSON, DEATH, *(table.name for table in CLINICAL))
# Rows about patients that make no event; they are counted.
NOT_READ = (
    "visit_detail", "note", "note_nlp", "specimen", "observation_period", "condition_era",
    "drug_era", "dose_era", "episode", "episode_event", "payer_plan_period", "cost",
    "fact_relationship",
)  # fmt: skip
