"""A reference's file: what fits, and a sentence for each thing that does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_client.readiness.reference import read_reference
from fedtwin_protocol.errors import ConfigurationError

from .conftest import plan

GOOD = [float(number) for number in range(1, 20)]


def read(folder: Path, value: Any):
    path = folder / "reference.json"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return read_reference(path, plan().features)


def test_features_of_other_studies_are_passed_over(tmp_path: Path) -> None:
    parts = {"glucose": {"unit": "mmol/l", "quantiles": GOOD}, "other": {"unit": 7}}
    found = read(tmp_path, {"features": parts})
    assert found.quantiles == {"glucose": tuple(GOOD)}
    assert found.name == "reference.json"


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"unit": "mg/dL", "quantiles": GOOD}, "'glucose' is in 'mg/dL', the study asks for"),
        ({"unit": "mmol/L", "quantiles": GOOD[:18]}, "needs 19 quantiles"),
        ({"unit": "mmol/L", "quantiles": [*GOOD[:18], "x"]}, "needs 19 quantiles"),
        ({"unit": "mmol/L", "quantiles": [*GOOD[:18], True]}, "needs 19 quantiles"),
        ({"unit": "mmol/L", "quantiles": [*GOOD[:18], float("nan")]}, "needs 19 quantiles"),
        ({"unit": "mmol/L", "quantiles": GOOD[::-1]}, "must not fall"),
        ({"unit": "mmol/L"}, "is no reference"),
        ([], "is no reference"),
    ],
)
def test_wrong_quantiles_name_the_file_and_the_feature(
    tmp_path: Path, part: Any, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        read(tmp_path, {"features": {"glucose": part}})


def test_a_reference_of_another_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no quantiles for any feature"):
        read(tmp_path, {"features": {}})
    with pytest.raises(ConfigurationError, match="cannot read the reference"):
        read_reference(tmp_path / "absent.json", plan().features)


@given(st.one_of(st.binary(max_size=60), st.just(b"[" * 100_000), st.just(b"null")))
def test_no_file_whatever_ends_in_anything_but_a_sentence(tmp_path_factory, data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        read(tmp_path_factory.mktemp("any"), data)
