"""From a plan in a file to a folder with a report: what is refused, and that it repeats itself."""

import csv
import hashlib
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import fedtwin_research.trials
from fedtwin_protocol.errors import ConfigurationError, PlanError
from fedtwin_research.trials.models import cards_of, find_model, laboratory_for
from fedtwin_research.trials.reading import ReadPlan, read_plan
from fedtwin_research.trials.running import Finished, check_trial, pieces_of, run_trial
from fedtwin_research.trials.writing import check_folder, trial_files, write_folder
from fedtwin_twins.trials.plan import TrialPlan

EXAMPLES = Path(fedtwin_research.trials.__file__).parent / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))


def plain(name: str = "vancomycin", **changes: Any) -> dict[str, Any]:
    """A shipped plan, made small."""
    found = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    small = {"patients": 24, "replicates": 3, "what_if_replicates": 2, "days": 3}
    found |= small | {"what_if": found["what_if"][:1]}
    for endpoint in found["endpoints"]:
        endpoint["day"] = 3
    found["analysis"]["prognosis"] = {"by": "twin", "draws": 2}
    return dict(found | changes)


def written(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def done(path: Path, executor: Any = None) -> tuple[ReadPlan, Finished, dict[str, bytes]]:
    read = read_plan(path)
    finished = run_trial(read.plan, laboratory_for(read), executor)
    return read, finished, trial_files(read, finished, cards_of(read.plan))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished, dict[str, bytes]]:
    path = written(tmp_path_factory.mktemp("trial"), plain())
    _, finished, files = done(path)
    return path, finished, files


def rows(files: dict[str, bytes], name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(files[name].decode())))


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_add_up_and_fit_their_models(name: str) -> None:
    read = read_plan(EXAMPLES / f"{name}.yaml")
    check_trial(read.plan, laboratory_for(read))
    assert read.plan.drug.truth.model != read.plan.drug.dosing_model
    assert read.text.startswith(b"#"), "with comments"


def test_the_same_plan_gives_the_same_bytes_whoever_works(
    small: tuple[Path, Finished, dict[str, bytes]],
) -> None:
    path, _, files = small
    with ThreadPoolExecutor(2) as threads:
        assert done(path, threads)[2] == files


def test_another_seed_gives_other_results(
    small: tuple[Path, Finished, dict[str, bytes]], tmp_path: Path
) -> None:
    content = plain(seed=1, what_if=[])
    other = done(written(tmp_path, content))[2]
    assert other["replicates.csv"] != small[2]["replicates.csv"]


def test_the_manifest_holds_every_hash(small: tuple[Path, Finished, dict[str, bytes]]) -> None:
    path, finished, files = small
    manifest = json.loads(files["manifest.json"])
    assert manifest["plan_sha256"] == finished.plan.digest
    assert files["plan.yaml"] == path.read_bytes()
    named = manifest["files"]
    assert named == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in files.items()
        if name != "manifest.json"
    }
    cards = {"vancomycin_goti_2018", "vancomycin_thomson_2009"}
    assert set(manifest["cards"]) == cards
    for name in cards:
        assert manifest["cards"][name]["sha256"] == find_model(name).card.digest
        assert find_model(name).card.digest in files["report.html"].decode()


def test_tables_say_what_the_result_says(small: tuple[Path, Finished, dict[str, bytes]]) -> None:
    _, finished, files = small
    arms = rows(files, "arms.csv")
    assert [(row["arm"], row["endpoint"]) for row in arms] == [
        (row.arm, row.endpoint) for row in finished.result.arms
    ]
    for row, result in zip(arms, finished.result.arms, strict=True):
        assert float(row["mean"]) == pytest.approx(result.mean, rel=1e-8)
    single = rows(files, "replicates.csv")
    plan = finished.plan
    plain_rows = [row for row in single if row["analysis"] == "not adjusted"]
    assert len(plain_rows) == plan.replicates * (len(plan.arms) - 1) * len(plan.endpoints)
    effects = {
        (row["arm"], row["endpoint"], row["analysis"]): row for row in rows(files, "effects.csv")
    }
    for key, row in effects.items():
        values = [
            float(one["effect"])
            for one in single
            if (one["arm"], one["endpoint"], one["analysis"]) == key and one["effect"]
        ]
        assert float(row["effect"]) == pytest.approx(np.mean(values), rel=1e-6)
    assert len(rows(files, "sample_size.csv")) == 19
    assert {row["label"] for row in rows(files, "what_if.csv")} == {
        "as planned",
        plan.what_if[0].label,
    }


def test_the_page_is_whole_and_holds_nothing_from_elsewhere(
    small: tuple[Path, Finished, dict[str, bytes]],
) -> None:
    page = small[2]["report.html"].decode()
    assert "default-src 'none'" in page
    assert not re.search(r"<script|<link|<img|https?://|url\(|\son\w+=|\sstyle=", page)
    for heading in ("Endpoints by arm", "Against the control", "What the result hangs on",
                    "Size of a real trial", "Cautions", "How to repeat it"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<svg") >= 6
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()
    assert not re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d", page), "no clock"


def test_words_of_a_plan_are_escaped(tmp_path: Path) -> None:
    content = plain(title="<script>alert(1)</script>", what_if=[], replicates=1)
    page = done(written(tmp_path, content))[2]["report.html"].decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_progress_counts_every_repetition(tmp_path: Path) -> None:
    read = read_plan(written(tmp_path, plain()))
    told: list[int] = []
    run_trial(read.plan, laboratory_for(read), None, told.append)
    assert sum(told) == pieces_of(read.plan) == 3 + 2 * 2


def test_patients_may_be_drawn_from_rows(tmp_path: Path) -> None:
    units = {"age": "a", "body_weight": "kg", "creatinine": "mg/dL", "female": "1"}
    lines = ["age,body_weight,creatinine,female,name"]
    lines += [f"{40 + place},{60 + place},0.9,{place % 2},x" for place in range(30)]
    data = "\n".join(lines)
    (tmp_path / "rows.csv").write_text(data)
    population = {"ancestry": {"EUR": 1.0}, "rows": {"file": "rows.csv", "units": units,
                  "source": "a register"}}  # fmt: skip
    content = plain(population=population, what_if=[], replicates=1)
    read, _, files = done(written(tmp_path, content))
    digest = hashlib.sha256(data.encode()).hexdigest()
    assert json.loads(files["manifest.json"])["rows_sha256"] == digest == read.rows_sha256
    assert "Whole rows drawn with replacement from rows.csv" in files["report.html"].decode()
    for change, sentence in (
        ({"file": "none.csv"}, "cannot read population.rows"),
        ({"sha256": "0" * 64}, "not the file that the plan means: its SHA-256 is"),
        ({"units": units | {"height": "cm"}}, "has no column height; it has age"),
        ({"units": units | {"name": "1"}}, "line 2: expected a number in column name, found 'x'"),
    ):
        wrong = population | {"rows": {**population["rows"], **change}}  # type: ignore[dict-item]
        with pytest.raises(PlanError, match=sentence):
            read_plan(written(tmp_path, content | {"population": wrong}))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("age,name\n50,x,y,z\n", "line 2: expected 2 cells, .* found 4"),
        ("age,age\n50,51\n", "has several columns age; it has age, age"),
        ("name\nx\n", "has no column age; it has name"),
        ("age,name\n50,x\n,y\n", "line 3: expected a number in column age"),
        ("age,name\n", "holds no patients"),
        ("", "holds no patients"),
    ],
)
def test_rows_that_are_no_table(data: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(data)
    rows = {"file": "rows.csv", "units": {"age": "a"}, "source": "a register"}
    content = plain(what_if=[])
    for name, expected in (("rows.csv", sentence), ("rows\0.csv", "cannot read population.rows")):
        content["population"] = {"ancestry": {"EUR": 1.0}, "rows": rows | {"file": name}}
        with pytest.raises(PlanError, match=expected):
            read_plan(written(tmp_path, content))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"arms": None}, "arms: "),
        ({"colour": "red"}, "colour: unknown key"),
        ({"what_if": [{"label": "x", "setting": "patience", "low": 1, "high": 2}]},
         "what_if: there is no setting patience"),
        ({"what_if": [{"label": "x", "setting": "population.adherence.taken_share", "low": 2,
                       "high": 3}]}, "what_if population.adherence.taken_share = 2: Input should"),
        ({"what_if": [{"label": "x", "setting": "population.adherence.taken_share", "low": 1,
                       "high": 0.5}]}, "x: expected low below high"),
        ({"sample_size": {"difference": 0}}, "difference: expected one other than 0"),
    ],
)  # fmt: skip
def test_a_plan_that_does_not_add_up_is_refused_with_its_field(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=sentence):
        read_plan(written(tmp_path, plain(**change)))


def test_models_that_are_not_there_or_do_not_fit_are_refused(tmp_path: Path) -> None:
    drug = plain()["drug"]
    for change, sentence in (
        ({"dosing_model": "vancomycin_nobody_2001"}, "drug.dosing_model: model card"),
        ({"level_unit": "ug/L"}, "drug.level_unit is ug/L, but vancomycin_thomson_2009 is in mg/L"),
        ({"route": "oral"}, "route is oral; expected intravenous"),
        (
            {"truth": {"model": "vancomycin_thomson_2009", "parameter_factors": {"speed": 2.0}}},
            "factor on is speed",
        ),
    ):
        # Of a window, so that the endpoint's own unit does not refuse the plan before the cards do.
        asked = plain()["endpoints"][:1]
        read = read_plan(written(tmp_path, plain(drug=drug | change, endpoints=asked)))
        with pytest.raises(PlanError, match=sentence):
            check_trial(read.plan, laboratory_for(read))


def wrong(path: str, value: object) -> dict[str, Any]:
    """The small plan with one place of it changed."""
    content = plain()
    *way, last = path.split(".")
    inside: Any = content
    for name in way:
        inside = inside[int(name)] if name.isdigit() else inside[name]
    inside[int(last) if last.isdigit() else last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("endpoints.2.unit", "ug.h/L", "endpoint area: its values are in mg/L.h"),
        ("endpoints.0.unit", "mg/L", "endpoint area-in-window: its values are in 1"),
        ("arms.1.adjust.days", [2, 3], "adjust.days has 3, expected days before"),
        ("arms.0.start", {"amount": 5000}, "start.amount of 5000, expected 250 to 3000"),
        (
            "arms.0.start",
            {"amount": 500, "gene": "CYP2C19", "factors": {"Fast Metabolizer": 2}},
            "names 'Fast Metabolizer', expected phenotypes of CYP2C19: Indeterminate",
        ),
        ("population.covariates.0.mean", 500, "age: mean 500 .* expected at least 1 in 100"),
        (
            "population.covariates.0.by_ancestry",
            {"EUR": {"mean": -50, "sd": 1}},
            "age: mean -50 and sd 1 in EUR, expected at least 1 in 100",
        ),
        ("population.covariates.0.by_ancestry", {"MARS": {"mean": 50, "sd": 9}}, "Input should be"),
    ],
)
def test_what_would_silently_change_nothing_is_refused(
    path: str, value: object, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=sentence):
        read_plan(written(tmp_path, wrong(path, value)))


def test_a_covariate_that_a_model_needs_and_the_plan_lacks_is_named(tmp_path: Path) -> None:
    content = plain()
    population = content["population"]
    population["covariates"] = [one for one in population["covariates"] if one["name"] != "age"]
    population["correlations"] = []
    read = read_plan(written(tmp_path, content))
    with pytest.raises(PlanError, match="age"):
        check_trial(read.plan, laboratory_for(read))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"a: [", "is not YAML"), (b"- 1", "holds no trial"), (b"\xff\xfe", "is not YAML")],
)
def test_files_that_hold_no_plan_are_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_bytes(content)
    with pytest.raises(PlanError, match=sentence):
        read_plan(tmp_path / "plan.yaml")
    with pytest.raises(PlanError, match="cannot read the trial's plan"):
        read_plan(tmp_path / "no.yaml")


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    write_folder(tmp_path / "new", {"report.html": b"x", "manifest.json": b"{}"})
    check_folder(tmp_path / "new")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigurationError, match="holds other things than a trial's report"):
        check_folder(tmp_path / "mine")
    with pytest.raises(ConfigurationError, match="is a file: name a folder"):
        check_folder(tmp_path / "mine" / "letter.txt")


def test_the_truth_is_worse_than_it_looks_to_a_model_that_is_right(tmp_path: Path) -> None:
    """Why both must differ: the plan refuses one card for both."""
    drug = plain()["drug"] | {"dosing_model": "vancomycin_thomson_2009"}
    with pytest.raises(PlanError, match="looks better than it is: choose another card"):
        read_plan(written(tmp_path, plain(drug=drug)))


def test_every_field_of_a_plan_has_a_name_that_the_guide_explains() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "trials.md").read_text()
    named = set(re.findall(r"`([a-z0-9_.]+)`", guide))
    schema = TrialPlan.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    fields = {field for part in parts for field in part.get("properties", {})}
    explained = {part for name in named for part in name.split(".")}
    assert sorted(fields - explained) == []


def test_an_arm_that_is_wrong_is_said_once(tmp_path: Path) -> None:
    content = plain()
    content["arms"][0]["start"] = {"amount": -1}
    with pytest.raises(PlanError) as caught:
        read_plan(written(tmp_path, content))
    assert "arms.0.start.amount: " in str(caught.value)
    assert "at least 2 items" not in str(caught.value)
