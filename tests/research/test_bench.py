"""A researcher opens a verified model, asks it, and is told by name what was wrong."""

import sys
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

import fedtwin.demo
from fedtwin_protocol.card_writing import RunFacts, write_card
from fedtwin_protocol.encoding import encode
from fedtwin_protocol.errors import ConfigurationError, ReleaseError, SignatureError
from fedtwin_protocol.release import build_release, sign_release, verify_release
from fedtwin_protocol.signing import PLAN_TYPE, TrustRoot, public_key, sign
from fedtwin_protocol.study import StudyPlan, plan_from_yaml
from fedtwin_research.bench import ReleasedModel, open_release
from fedtwin_research.library import Library, default_folder
from fedtwin_research.units import conversions_to

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLANS = Path(fedtwin.demo.__file__).parent / "plans"
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2)]
TRUST = TrustRoot(
    consortium="demo", keys=tuple(public_key(key, "a signer") for key in KEYS), threshold=2
)
PATIENT: dict[str, Any] = {
    "age": 63.0,
    "sex": "male",
    "systolic": 145.0,
    "cholesterol": 233.0,
    "hdl_cholesterol": 45.0,
    "hba1c": 6.1,
    "creatinine": 1.0,
    "body_mass_index": 27.0,
    "heart_rate": 70.0,
    "smoking": "SNOMED//8517006",
    "diabetes": 0,
    "hypertension": True,
    "antihypertensive": 1,
    "statin": 0,
}


def a_plan(name: str = "synthetic.yaml") -> StudyPlan:
    return plan_from_yaml(PLANS / name)


def a_release(plan: StudyPlan, created: datetime = NOW) -> dict[str, bytes]:
    columns = len(plan.contract.columns)
    arrays = {"weights": np.linspace(-0.5, 0.5, columns), "intercept": np.array([-1.0])}
    facts = RunFacts(patients={"a": 500.0}, rounds_used={"a": 1}, rounds=1, created=created)
    envelope = sign(PLAN_TYPE, plan.to_bytes(), KEYS)
    files = build_release(arrays, write_card(plan, facts), envelope, created)
    return sign_release(files, KEYS, TRUST)


@pytest.fixture(scope="module")
def model() -> ReleasedModel:
    return ReleasedModel(verify_release(a_release(a_plan()), TRUST))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library(tmp_path)
    library.pin(TRUST)
    library.add(a_release(a_plan()), "demo")
    return library


def columns(**changes: Any) -> dict[str, list[Any]]:
    return {name: [value] for name, value in {**PATIENT, **changes}.items()}


def test_one_line_opens_a_model_and_it_predicts_what_its_weights_say(library: Library) -> None:
    model = open_release("coronary-risk-5y", folder=library.folder)
    prediction = model.predict([PATIENT, {**PATIENT, "age": 40.0}])
    raw = {name: [value, value] for name, value in {**PATIENT, "sex": 1.0}.items()}
    raw["age"] = [63.0, 40.0]
    matrix = encode(model.contract, raw).matrix
    expected = 1 / (1 + np.exp(1.0 - matrix @ np.linspace(-0.5, 0.5, matrix.shape[1])))
    np.testing.assert_allclose(np.asarray(prediction), expected, rtol=1e-12)
    assert len(prediction) == 2
    assert prediction[1] == pytest.approx(expected[1])
    assert prediction.card.study == "coronary-risk-5y"


def test_columns_rows_and_a_single_patient_say_the_same(model: ReleasedModel) -> None:
    by_column = model.predict(columns())
    assert list(model.predict([PATIENT])) == list(by_column) == list(model.predict(PATIENT))


def test_tables_of_other_libraries_say_the_same(model: ReleasedModel) -> None:
    plain = list(model.predict(PATIENT))
    assert list(model.predict(pyarrow.table(columns()))) == plain
    assert list(model.predict({name: np.array(v) for name, v in columns().items()})) == plain
    kinds = [(name, "U20" if isinstance(v, str) else float) for name, v in PATIENT.items()]
    assert list(model.predict(np.array([tuple(PATIENT.values())], dtype=kinds))) == plain


def test_an_array_without_names_and_units_without_columns_are_refused(model: ReleasedModel) -> None:
    with pytest.raises(ReleaseError, match=r"shape \(1, 14\) whose columns have no names"):
        model.predict(np.zeros((1, 14)))
    with pytest.raises(ReleaseError, match="expected units by column"):
        model.predict(PATIENT, units="mmol/L")  # type: ignore[arg-type]
    with pytest.raises(ReleaseError, match="column 'age', row 0: expected 18 to 110"):
        model.predict(columns(age=10**400))


def test_what_is_shown_at_a_prompt_is_short_and_says_what_the_card_says(
    model: ReleasedModel,
) -> None:
    shown = repr(model.predict(PATIENT))
    assert model.card.recalibration in shown
    assert "predicts [0." in shown
    assert len(shown) < 400
    assert len(repr(model)) < 200


def test_a_data_frame_is_taken_without_importing_pandas(
    model: ReleasedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DataFrame:
        columns = tuple(PATIENT)

        def __getitem__(self, name: str) -> np.ndarray:
            return np.array([PATIENT[name]], dtype=object)

    loaded = types.ModuleType("pandas")
    loaded.DataFrame = DataFrame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", loaded)
    assert list(model.predict(DataFrame())) == list(model.predict(PATIENT))


def test_units_are_converted_by_substance(model: ReleasedModel) -> None:
    molar = {"cholesterol": 233.0 / 38.665, "hba1c": (6.1 - 2.152) / 0.09148, "creatinine": 88.4}
    units = {"cholesterol": "mmol/L", "hba1c": "mmol/mol", "creatinine": "µmol/l"}
    converted = model.predict(columns(**molar), units=units)
    assert converted[0] == pytest.approx(model.predict(columns())[0], rel=1e-9)
    months = model.predict(columns(age=63 * 12), units={"age": "months"})
    assert months[0] == pytest.approx(converted[0], rel=1e-9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cholesterol": 6.0}, r"'cholesterol', row 0: expected 60 to 700 mg/dL.*mmol/L"),
        ({"age": 12.0}, r"'age', row 0: expected 18 to 110 a, found 12"),
        ({"systolic": "high"}, r"'systolic', row 0: expected a number, found 'high'"),
        ({"systolic": True}, r"'systolic', row 0: expected a number, found True"),
        ({"systolic": float("inf")}, r"'systolic', row 0: expected 60 to 280"),
        ({"diabetes": 2}, r"'diabetes', row 0: expected 0 or 1, found 2"),
        ({"sex": "unknown"}, r"'sex', row 0: expected male, female, 1 or 0"),
        ({"smoking": "often"}, r"'smoking', row 0: expected one of SNOMED//266919005"),
        ({"smoking": True}, r"'smoking', row 0: expected one of"),
    ],
)
def test_a_wrong_value_is_refused_with_column_row_and_range(
    model: ReleasedModel, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ReleaseError, match=said):
        model.predict(columns(**change))


def test_the_row_is_named(model: ReleasedModel) -> None:
    with pytest.raises(ReleaseError, match="'heart_rate', row 2"):
        model.predict([PATIENT, PATIENT, {**PATIENT, "heart_rate": 999.0}])


@pytest.mark.parametrize(
    ("features", "units", "said"),
    [
        ({**PATIENT, "colesterol": 1.0}, {}, r"colesterol \(did you mean cholesterol\?\)"),
        ({"age": [50.0]}, {}, "missing: sex, systolic"),
        (PATIENT, {"cholestrol": "mmol/L"}, "unknown columns: cholestrol"),
        (PATIENT, {"cholesterol": "furlong"}, r"'cholesterol': cannot convert 'furlong'"),
        (PATIENT, {"body_mass_index": "mmol/L"}, r"'body_mass_index': cannot convert"),
        (PATIENT, {"smoking": "1"}, "'smoking' is a category"),
        ({**columns(), "age": 50.0}, {}, "'age' holds one value"),
        ({**columns(), "age": [50.0, 51.0]}, {}, "differ in length: age 2"),
        ([], {}, "at least one patient"),
        ([PATIENT, {"age": 50.0}], {}, "row 1 has other columns"),
        ([1.0], {}, "row 0: expected a mapping"),
        ("age", {}, "expected a mapping of columns"),
        (7, {}, "got int"),
    ],
)
def test_a_wrong_table_is_refused_in_words(
    model: ReleasedModel, features: Any, units: dict[str, str], said: str
) -> None:
    with pytest.raises(ReleaseError, match=said):
        model.predict(features, units=units)


def test_missing_values_follow_the_contract_and_are_counted(model: ReleasedModel) -> None:
    given_none = model.predict([PATIENT, {**PATIENT, "cholesterol": None, "age": float("nan")}])
    assert np.isfinite(given_none[0])
    assert np.isnan(given_none[1])
    told = " ".join(given_none.warnings)
    assert "age is missing for 1 of 2 patients: no prediction" in told
    assert "cholesterol is missing for 1 of 2 patients: the contract's centre" in told


def test_values_beyond_the_clip_are_told(model: ReleasedModel) -> None:
    warnings = model.predict(columns(systolic=270.0)).warnings
    assert any("systolic lies beyond" in line for line in warnings)
    assert not any("systolic lies" in line for line in model.predict(columns()).warnings)


def test_every_column_is_explained(model: ReleasedModel) -> None:
    text = "\n".join(model.explain())
    for feature in model.contract.features:
        assert feature.name in text
    assert "epsilon 1, delta 1e-05" in text


@given(st.sampled_from(sorted(conversions_to("mg/dL", ["LOINC//2093-3"]))), st.floats(60, 700))
def test_a_conversion_and_its_inverse_meet(unit: str, value: float) -> None:
    there = conversions_to(unit, ["LOINC//2093-3"])["mg/dL"]
    back = conversions_to("mg/dL", ["LOINC//2093-3"])[unit]
    assert back.of(there.of(value)) == pytest.approx(value, rel=1e-12)


def test_an_altered_file_in_the_library_is_found_on_opening(library: Library) -> None:
    (path,) = library.folder.glob("releases/demo/coronary-risk-5y/*/model.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ReleaseError, match="changed after signing"):
        open_release("coronary-risk-5y", folder=library.folder)


def test_a_pickle_beside_the_model_is_refused_and_never_opened(library: Library) -> None:
    (path,) = library.folder.glob("releases/demo/coronary-risk-5y/*/model.safetensors")
    (path.parent / "model.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ReleaseError, match=r"model\.pkl"):
        open_release("coronary-risk-5y", folder=library.folder)


def test_an_older_release_is_refused_and_a_newer_one_taken(library: Library) -> None:
    newer = a_release(a_plan(), NOW + timedelta(days=1))
    library.add(newer, "demo")
    with pytest.raises(ReleaseError, match="older release"):
        library.add(a_release(a_plan(), NOW), "demo")
    current = library.open("demo/coronary-risk-5y")
    assert current.statement.created == NOW + timedelta(days=1)


def test_trust_is_pinned_and_needed(library: Library, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="another trust root"):
        library.pin(TRUST.model_copy(update={"threshold": 1}))
    empty = Library(tmp_path / "empty")
    with pytest.raises(ConfigurationError, match="no trust root of demo"):
        empty.add(a_release(a_plan()), "demo")


def test_a_release_signed_by_too_few_never_enters(library: Library) -> None:
    files = a_release(a_plan("heart-disease.yaml"))
    stricter = TRUST.model_copy(
        update={"keys": (public_key(Ed25519PrivateKey.from_private_bytes(bytes(32)), "x"),),
                "threshold": 1}
    )  # fmt: skip
    elsewhere = Library(library.folder / "other")
    elsewhere.pin(stricter)
    with pytest.raises(SignatureError, match="expected 1 signatures"):
        elsewhere.add(files, "demo")
    assert elsewhere.studies() == ()


@pytest.mark.parametrize("study", ["nothing-like-it", "../../etc", "demo/none", ""])
def test_an_unknown_study_is_answered_with_those_there(library: Library, study: str) -> None:
    with pytest.raises(ReleaseError, match="there: demo/coronary-risk-5y"):
        open_release(study, folder=library.folder)


def test_the_folder_comes_from_the_environment_if_named() -> None:
    assert default_folder({"FEDTWIN_RELEASES": "/srv/models"}) == Path("/srv/models")
    assert default_folder({}).parts[-2:] == ("fedtwin", "releases")
