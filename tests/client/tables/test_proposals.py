"""Proposed mappings: realistic tables in four languages, what stays open, and wrong input."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.records.tables.mapping import read_mapping
from fedtwin_client.records.tables.proposals.judging import Judgement
from fedtwin_client.records.tables.proposals.proposing import Proposal, propose
from fedtwin_client.records.tables.proposals.showing import form_lines, open_questions, rows
from fedtwin_client.records.tables.proposals.sniffing import read_start
from fedtwin_client.records.tables.proposals.writing import proposal_text, write_proposal
from fedtwin_client.store.imports import import_table
from fedtwin_protocol.errors import RecordError
from fedtwin_protocol.strict_yaml import load_strictly

from .proposal_parts import lines_of, proposed

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
SHARED = Path(__file__).parents[4] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")


def column(proposal: Proposal, name: str) -> Judgement:
    (found,) = [item for item in proposal.columns if item.profile.name == name]
    return found


GERMAN = lines_of(
    "PatNr;Datum;Geschlecht;Geb.-Datum;Größe [cm];Gewicht;Cholesterin (mg/dl);Kreatinin;HbA1c %;"
    "Raucher;Diabetes;Temp °C;Bemerkung;Hb;Hb Einheit",
    lambda drawn, n: ";".join(
        [
            str(4000 + n),
            f"{drawn.randint(13, 28)}.{drawn.randint(1, 12):02}.2023",
            drawn.choice("mw"),
            f"{drawn.randint(13, 28)}.{drawn.randint(1, 12):02}.19{drawn.randint(30, 89)}",
            f"{drawn.gauss(170, 9):.0f}",
            f"{drawn.gauss(80, 12):.1f}".replace(".", ","),
            f"{drawn.gauss(200, 35):.0f}",
            f"{drawn.gauss(1.1, 0.2):.2f}".replace(".", ","),
            f"{drawn.gauss(6.2, 0.8):.1f}".replace(".", ","),
            drawn.choice(["ja", "nein"]),
            drawn.choice(["ja", "nein", "k.A."]),
            f"{drawn.gauss(36.8, 0.4):.1f}".replace(".", ","),
            f"Bemerkung {n}",
            f"{drawn.gauss(13.5, 1.5):.1f}".replace(".", ","),
            "g/dl",
        ]
    ),
)
FRENCH = lines_of(
    "IPP\tDate de visite\tSexe\tÂge\tPoids (kg)\tTaille (m)\tPAS\tPAD\tGlycémie (mmol/L)\t"
    "Créatinine (µmol/L)\tPlaquettes (G/L)\tFumeur",
    lambda drawn, n: "\t".join(
        [
            f"A{n:05}",
            f"{drawn.randint(13, 28)}/{drawn.randint(1, 12):02}/2023",
            drawn.choice("HF"),
            str(drawn.randint(30, 90)),
            f"{drawn.gauss(75, 12):.1f}",
            f"{drawn.gauss(1.7, 0.1):.2f}",
            f"{drawn.gauss(135, 15):.0f}",
            f"{drawn.gauss(80, 9):.0f}",
            f"{drawn.gauss(5.8, 1):.1f}",
            f"{drawn.gauss(85, 20):.0f}",
            f"{drawn.gauss(250, 60):.0f}",
            drawn.choice(["oui", "non"]),
        ]
    ),
)
SPANISH = lines_of(
    "nhc|fecha|sexo|edad|colesterol total|hemoglobina (g/dL)|frecuencia cardiaca|hipertensión",
    lambda drawn, n: "|".join(
        [
            str(90000 + n),
            f"2023-{drawn.randint(1, 12):02}-{drawn.randint(1, 28):02}",
            drawn.choice("HM"),
            str(drawn.randint(30, 90)),
            f"{drawn.gauss(195, 30):.0f}",
            f"{drawn.gauss(13, 1.5):.1f}",
            f"{drawn.gauss(75, 9):.0f}",
            drawn.choice(["sí", "no"]),
        ]
    ),
)
ITALIAN = lines_of(
    "id paziente,data prelievo,sesso,data di nascita,glicemia,colesterolo hdl,altezza,peso",
    lambda drawn, n: ",".join(
        [
            f"P{n}",
            f"2023-{drawn.randint(1, 12):02}-{drawn.randint(1, 28):02} 08:30",
            drawn.choice(["maschio", "femmina"]),
            f"19{drawn.randint(30, 89)}-{drawn.randint(1, 12):02}-{drawn.randint(1, 28):02}",
            f"{drawn.gauss(105, 15):.0f}",
            f"{drawn.gauss(50, 10):.0f}",
            f"{drawn.gauss(168, 9):.0f}",
            f"{drawn.gauss(72, 9):.0f}",
        ]
    ),
)


@pytest.mark.parametrize(
    ("text", "encoding", "form", "roles", "meant"),
    [
        (
            GERMAN,
            "cp1252",
            (";", ",", "cp1252"),
            {"patient": "PatNr", "time": "Datum", "birth": "Geb.-Datum", "sex": "Geschlecht"},
            {
                "Größe [cm]": ("LOINC//8302-2", "cm"),
                "Gewicht": ("LOINC//29463-7", "kg"),
                "Cholesterin (mg/dl)": ("LOINC//2093-3", "mg/dL"),
                "Kreatinin": ("LOINC//2160-0", "mg/dL"),
                "HbA1c %": ("LOINC//4548-4", "%"),
                "Temp °C": ("LOINC//8310-5", "Cel"),
                "Raucher": ("SNOMED//77176002", None),
                "Diabetes": ("SNOMED//73211009", None),
            },
        ),
        (
            FRENCH,
            "utf-8-sig",
            ("\t", ".", "utf-8"),
            {"patient": "IPP", "time": "Date de visite", "age": "Âge", "sex": "Sexe"},
            {
                "Poids (kg)": ("LOINC//29463-7", "kg"),
                "Taille (m)": ("LOINC//8302-2", "m"),
                "PAS": ("LOINC//8480-6", "mm[Hg]"),
                "PAD": ("LOINC//8462-4", "mm[Hg]"),
                "Glycémie (mmol/L)": ("LOINC//14749-6", "mmol/L"),
                "Créatinine (µmol/L)": ("LOINC//14682-9", "umol/L"),
                "Plaquettes (G/L)": ("LOINC//777-3", "10*9/L"),
                "Fumeur": ("SNOMED//77176002", None),
            },
        ),
        (
            SPANISH,
            "utf-16",
            ("|", ".", "utf-16"),
            {"patient": "nhc", "time": "fecha", "age": "edad", "sex": "sexo"},
            {
                "colesterol total": ("LOINC//2093-3", "mg/dL"),
                "hemoglobina (g/dL)": ("LOINC//718-7", "g/dL"),
                "frecuencia cardiaca": ("LOINC//8867-4", "/min"),
                "hipertensión": ("SNOMED//38341003", None),
            },
        ),
        (
            ITALIAN,
            "utf-8",
            (",", ".", "utf-8"),
            {
                "patient": "id paziente",
                "time": "data prelievo",
                "birth": "data di nascita",
                "sex": "sesso",
            },
            {
                "glicemia": ("LOINC//2345-7", "mg/dL"),
                "colesterolo hdl": ("LOINC//2085-9", "mg/dL"),
                "altezza": ("LOINC//8302-2", "cm"),
                "peso": ("LOINC//29463-7", "kg"),
            },
        ),
    ],
    ids=["german", "french", "spanish", "italian"],
)
def test_a_table_is_understood_and_imports_whole_once_a_person_has_reviewed_it(
    tmp_path: Path,
    text: str,
    encoding: str,
    form: tuple[str, str, str],
    roles: dict[str, str],
    meant: dict[str, tuple[str, str | None]],
) -> None:
    found = proposed(tmp_path, text.encode(encoding))
    table = found.table
    assert (table.delimiter, table.figures.decimal, table.encoding) == form
    assert {role: getattr(found, role).profile.name for role in roles} == roles
    for name, (code, unit) in meant.items():
        judged = column(found, name)
        assert (judged.code, judged.unit) == (code, unit), name
        assert judged.score >= 0.85, name
    map_file = tmp_path / "map.yaml"
    write_proposal(found, map_file)
    with pytest.raises(RecordError, match="nobody has reviewed"):
        read_mapping(map_file)
    map_file.write_text(re.sub("^reviewed: no\n", "", map_file.read_text(), flags=re.MULTILINE))
    report = import_table(
        tmp_path / "visits.csv", map_file, tmp_path / "store", secret=SECRET, now=NOW
    )
    assert report.patients == 120
    assert [reason for reason in report.reasons if not reason.endswith("not recorded")] == []


def test_what_is_sure_has_no_mark_and_what_is_told_by_values_has_one(tmp_path: Path) -> None:
    found = proposed(tmp_path, GERMAN)
    assert column(found, "Cholesterin (mg/dl)").unsure == []
    assert column(found, "Kreatinin").unsure == ["no unit in the name; the values look like mg/dL"]
    assert column(found, "Hb").unit_column == "Hb Einheit"
    assert column(found, "Hb Einheit").role == "beside"
    assert column(found, "Bemerkung").role == "left"
    assert column(found, "Diabetes").profile.marks == ("k.A.",)
    written = proposal_text(found)
    assert "Bemerkung 3" not in written
    assert '  "Cholesterin (mg/dl)": {code: LOINC//2093-3, unit: "mg/dL"}\n' in written


def test_two_units_in_one_column_leave_the_unit_open(tmp_path: Path) -> None:
    text = lines_of(
        "id,date,glucose,chol (mg/dL)",
        lambda drawn, n: (
            f"{n},2023-01-02,{drawn.gauss(*drawn.choice([(5.8, 0.6), (105, 12)])):.1f},"
            f"{drawn.gauss(200, 30) if n % 20 else 5.1:.1f}"
        ),
    )
    found = proposed(tmp_path, text)
    glucose, chol = column(found, "glucose"), column(found, "chol (mg/dL)")
    assert (glucose.unit, chol.unit) == (None, None)
    assert re.search(r"two units in one column: \d+ values look like m", glucose.unsure[0])
    assert "114 values look like mg/dL, 6 like mmol/L" in chol.unsure[0]
    (tmp_path / "m.yaml").write_text(proposal_text(found).replace("reviewed: no\n", ""))
    with pytest.raises(RecordError, match=r"glucose\.0: a number needs its 'unit'"):
        read_mapping(tmp_path / "m.yaml")


def numbers(name: str, mean: float, spread: float) -> str:
    return lines_of(f"id,{name}", lambda drawn, n: f"p{n},{drawn.gauss(mean, spread):.2f}")


@pytest.mark.parametrize(
    ("name", "mean", "spread", "unit", "says"),
    [
        ("chol (mg/dL)", 5.2, 0.8, None, "the name says mg/dL, the values look like mmol/L"),
        ("chol [quux]", 5.2, 0.8, None, "'quux' in the name is no unit of total cholesterol"),
        ("weight", 175.0, 25.0, "[lb_av]", "the values look like [lb_av]"),
        ("height", 1.7, 0.1, "m", "the values look like m"),
        ("hba1c", 44.0, 8.0, "mmol/mol", "the values look like mmol/mol"),
        ("temperature", 98.6, 0.7, "[degF]", "the values look like [degF]"),
        ("creatinine", 88.0, 20.0, "umol/L", "the values look like umol/L"),
        ("crp", 3.0, 0.5, None, "the values do not tell it"),
        ("creatinin", 88.0, 20.0, "umol/L", "is this creatinine?"),
    ],
)
def test_values_are_held_against_units(
    tmp_path: Path, name: str, mean: float, spread: float, unit: str | None, says: str
) -> None:
    judged = column(proposed(tmp_path, numbers(name, mean, spread)), name)
    assert judged.unit == unit
    assert any(says in line for line in judged.unsure)


@pytest.mark.parametrize(
    ("name", "mean", "spread"),
    [
        ("urine_creatinine", 88.0, 20.0),
        ("delta chol", 5.0, 0.5),
        ("glucose", 5000.0, 100.0),
        ("shoe size", 42.0, 2.0),
    ],
)
def test_what_is_something_else_is_not_proposed(
    tmp_path: Path, name: str, mean: float, spread: float
) -> None:
    assert column(proposed(tmp_path, numbers(name, mean, spread)), name).role == "left"


def test_grades_with_the_name_of_a_measure_are_not_taken_for_it(tmp_path: Path) -> None:
    """`ca` of the heart disease set: vessels from 0 to 3."""
    text = lines_of("id,ca", lambda drawn, n: f"p{n},{drawn.randint(0, 3)}")
    judged = column(proposed(tmp_path, text), "ca")
    assert judged.role == "left"
    assert "perhaps calcium" in judged.unsure[0]


def test_numbers_that_stand_for_nothing_are_asked_about(tmp_path: Path) -> None:
    text = lines_of(
        "id,chol",
        lambda drawn, n: f"p{n},{drawn.gauss(200, 30) if n % 4 else (0, -9)[n % 8 == 0]:.0f}",
    )
    judged = column(proposed(tmp_path, text), "chol")
    assert judged.missing == [-9.0, 0.0]
    assert "15 cells are -9: does that mean 'not recorded'?" in judged.unsure
    assert judged.unit == "mg/dL"


def test_dates_that_fit_two_formats_are_asked_about(tmp_path: Path) -> None:
    text = lines_of("id,date", lambda drawn, n: f"p{n},{1 + n % 12:02}/{1 + n % 9:02}/2023")
    found = proposed(tmp_path, text)
    assert "every date also fits %m/%d/%Y: which is it?" in found.unsure["time"]
    text = lines_of("id,date", lambda drawn, n: f"p{n},{1 + n % 12:02}/{1 + n % 28:02}/2023")
    assert column(proposed(tmp_path, text), "date").profile.formats == ("%m/%d/%Y",)
    text = lines_of("id,date", lambda drawn, n: f"p{n}," + ("2023-01-01" if n else "gestern"))
    assert "1 cells have another form" in proposed(tmp_path, text).unsure["time"]


@pytest.mark.parametrize(
    ("marks", "male", "female", "asks"),
    [
        ("M F", ("M",), ("F",), False),
        ("1_female 2_male", ("2_male",), ("1_female",), False),
        ("H M", ("H",), ("M",), True),
        ("0 1", (), (), True),
        ("M F X", ("M",), ("F",), True),
    ],
)
def test_marks_of_sex_are_told_or_asked_about(
    tmp_path: Path, marks: str, male: tuple[str, ...], female: tuple[str, ...], asks: bool
) -> None:
    listed = marks.split()
    text = lines_of("id,sex", lambda drawn, n: f"p{n},{listed[n % len(listed)]}")
    found = proposed(tmp_path, text)
    assert (found.male, found.female) == (male, female)
    assert ("sex" in found.unsure) == asks


def test_a_long_table_of_codes_is_joined_with_its_values_and_units(tmp_path: Path) -> None:
    text = lines_of(
        "patient_id,time,loinc,value,unit",
        lambda drawn, n: (
            f"p{n % 9},2023-01-0{1 + n % 9},{('2093-3', '718-7')[n % 2]},"
            f"{(200 + n, 13 + n / 100)[n % 2]},{('mg/dL', 'g/dL')[n % 2]}"
        ),
    )
    found = proposed(tmp_path, text)
    judged = column(found, "loinc")
    assert (judged.kind, judged.value_column, judged.unit_column) == ("code", "value", "unit")
    (tmp_path / "m.yaml").write_text(proposal_text(found).replace("reviewed: no\n", ""))
    report = import_table(
        tmp_path / "visits.csv", tmp_path / "m.yaml", tmp_path / "s", secret=SECRET, now=NOW
    )
    assert (report.patients, report.events) == (9, 120)


def test_words_among_the_values_of_a_long_table_are_asked_about(tmp_path: Path) -> None:
    text = lines_of(
        "patient_id,time,loinc,value,unit",
        lambda drawn, n: (
            f"p{n % 9},2023-01-0{1 + n % 9},{('2093-3', '72166-2')[n % 4 == 0]},"
            f"{(200 + n, 'Never smoked tobacco')[n % 4 == 0]},{('mg/dL', '')[n % 4 == 0]}"
        ),
    )
    judged = column(proposed(tmp_path, text), "loinc")
    assert (judged.value_column, judged.unit_column) == ("value", "unit")
    assert any("values are no numbers and would be put aside" in asked for asked in judged.unsure)


def test_the_guides_example_is_what_is_proposed(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "sources" / "proposals.md").read_text()
    (table,) = re.findall(r"^```text\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (mapping,) = re.findall(r"^```yaml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    assert proposal_text(proposed(tmp_path, table)) == mapping


def test_a_mapping_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    found = proposed(tmp_path, GERMAN)
    (tmp_path / "m.yaml").write_text("mine")
    with pytest.raises(RecordError, match="exists; give another name"):
        write_proposal(found, tmp_path / "m.yaml")
    assert (tmp_path / "m.yaml").read_text() == "mine"


def test_parquet_is_looked_at_by_its_content(tmp_path: Path) -> None:
    table = pa.table(
        {
            "mrn": [f"m{n}" for n in range(40)],
            "visit date": [datetime(2023, 1, 1 + n % 28) for n in range(40)],
            "hdl": [40.0 + n % 20 for n in range(40)],
            "smoker": [n % 3 == 0 for n in range(40)],
        }
    )
    pq.write_table(table, tmp_path / "visits.data")
    found = propose(read_start(tmp_path / "visits.data"))
    assert (found.table.format, column(found, "hdl").unit) == ("parquet", "mg/dL")
    assert column(found, "smoker").code == "SNOMED//77176002"
    assert "format: parquet" in proposal_text(found)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no line"),
        (b"id,chol\n", "has no row"),
        (b"PK\x03\x04rest", "Excel workbook"),
        (b"\x1f\x8brest", "compressed with gzip"),
        (b"id,id\n1,2\n", "names that come twice"),
        (b'id,b\n1,"open\n' + b"x" * 140_000, "quotation mark"),
        (b"a,b\n" + b"\0\0,\0\n" * 9, "zero bytes"),
        (b"a,b\n1,2,3\n4,5,6\n", "names 2 columns in its first line"),
        (b"\xff\xfea", "UTF-16"),
        (b"PAR1rest", "not a whole Parquet file"),
        (",".join(f"c{n}" for n in range(2001)).encode() + b"\n" + b"x," * 2000 + b"x\n", "2,001"),
    ],
)
def test_what_is_no_table_is_a_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(RecordError, match=says) as raised:
        proposed(tmp_path, content, "t.csv")
    assert "t.csv" in str(raised.value)


@settings(max_examples=120, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(alphabet=',;\t|"\n ab1.-?/é#:{}[]&*!%@`\x85\u2028', max_size=200).map(str.encode),
    )
)
def test_any_bytes_are_a_proposal_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(data)
    try:
        found = propose(read_start(file))
    except RecordError:
        return
    written = load_strictly(proposal_text(found))
    assert written["reviewed"] is False
    assert len(rows(found)) == len(found.table.names)
    assert form_lines(found)


def test_the_screen_names_each_column_and_each_open_question(tmp_path: Path) -> None:
    found = proposed(tmp_path, GERMAN.encode("cp1252"))
    shown = {row[0]: row for row in rows(found)}
    assert shown["Größe [cm]"][4:7] == ["LOINC//8302-2", "cm", "1.00"]
    assert shown["Hb"][5] == "in Hb Einheit"
    assert shown["Kreatinin"][4] == "LOINC//2160-0 ?"
    questions = open_questions(found)
    assert any(line.startswith("encoding: it is not UTF-8") for line in questions)
    assert any(line.startswith("Kreatinin: no unit") for line in questions)
