"""The arithmetic from raw values to the model's columns."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_protocol.contract import Feature, FeatureContract
from fedtwin_protocol.encoding import encode, spell_category
from fedtwin_protocol.errors import RecordError


def number(**fields: object) -> Feature:
    given_fields: dict[str, object] = {
        "name": "pressure",
        "kind": "number",
        "codes": ("LOINC//8480-6",),
        "unit": "mm[Hg]",
        "plausible": (40, 300),
        "center": 130,
        "scale": 20,
        "clip": (-3, 3),
    }
    return Feature.model_validate(given_fields | fields)


PAIN = Feature(
    name="pain",
    kind="category",
    codes=("LOCAL//pain",),
    categories=("none", "mild", "3"),
    missing="flag",
)


def test_a_number_is_centred_scaled_and_clipped() -> None:
    encoded = encode(FeatureContract(features=(number(),)), {"pressure": [130, 150, 300, 40]})
    assert encoded.matrix[:, 0].tolist() == [0.0, 1.0, 3.0, -3.0]
    assert encoded.keep.all()


@pytest.mark.parametrize("value", [None, math.nan, 39.9, 300.1, math.inf, "high"])
@pytest.mark.parametrize("rule", ["exclude", "center", "flag"])
def test_what_is_missing_or_implausible_follows_the_rule(value: object, rule: str) -> None:
    contract = FeatureContract(features=(number(missing=rule),))
    encoded = encode(contract, {"pressure": [150.0, value]})  # type: ignore[list-item]
    assert encoded.matrix[:, 0].tolist() == [1.0, 0.0]
    assert encoded.keep.tolist() == [True, rule != "exclude"]
    assert encoded.missing == {"pressure": 1}
    absent = value is None or (isinstance(value, float) and math.isnan(value))
    assert encoded.implausible == {"pressure": 0 if absent else 1}
    if rule == "flag":
        assert encoded.matrix[:, 1].tolist() == [0.0, 1.0]
    assert encoded.matrix.shape[1] == len(contract.columns)


@pytest.mark.parametrize("kind", ["number", "presence"])
def test_a_count_is_any_whole_number_whatever_range_its_values_have(kind: str) -> None:
    counted = number(kind=kind, summary="count", center=2, scale=4)
    contract = FeatureContract(features=(counted,))
    encoded = encode(contract, {"pressure": [0, 6, 200, 1.5, -1, math.inf, None]})
    assert encoded.matrix[:, 0].tolist() == [-0.5, 1.0, 3.0, 0.0, 0.0, 0.0, 0.0]
    assert encoded.keep.tolist() == [True] * 3 + [False] * 4
    assert (encoded.missing, encoded.implausible) == ({"pressure": 4}, {"pressure": 3})


@pytest.mark.parametrize("kind", ["flag", "category", "age", "sex"])
def test_nothing_else_is_counted(kind: str) -> None:
    with pytest.raises(ValueError, match="'count' belongs to the kinds 'number' and 'presence'"):
        number(kind=kind, summary="count", categories=("a", "b"))


def test_a_category_has_no_column_for_its_reference() -> None:
    contract = FeatureContract(features=(PAIN,))
    encoded = encode(contract, {"pain": ["none", "mild", 3.0, "worse", None]})
    assert contract.columns == ("pain=mild", "pain=3", "pain missing")
    assert encoded.matrix.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert encoded.implausible == {"pain": 1}
    assert encoded.missing == {"pain": 2}


def test_a_sex_is_zero_or_one_and_may_be_centred() -> None:
    sex = Feature(name="sex", kind="sex", center=0.5, missing="center")
    encoded = encode(FeatureContract(features=(sex,)), {"sex": [1, 0, 2, None]})
    assert encoded.matrix[:, 0].tolist() == [0.5, -0.5, 0.0, 0.0]
    assert encoded.implausible == {"sex": 1}


def test_an_absent_column_is_named() -> None:
    with pytest.raises(RecordError, match="found none for pressure among weight"):
        encode(FeatureContract(features=(number(),)), {"weight": [1.0]})


def test_columns_of_different_length_are_named() -> None:
    contract = FeatureContract(features=(number(), PAIN))
    with pytest.raises(RecordError, match="pressure: 1, pain: 2"):
        encode(contract, {"pressure": [130], "pain": ["none", "mild"]})


def test_no_rows_make_an_empty_matrix_of_the_right_width() -> None:
    contract = FeatureContract(features=(number(), PAIN))
    assert encode(contract, {"pressure": [], "pain": []}).matrix.shape == (0, 4)


def test_numbers_as_categories_are_spelled_alike() -> None:
    assert [spell_category(value) for value in (3, 3.0, "3", 2.5)] == ["3", "3", "3", "2.5"]


@given(
    st.lists(
        st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.text(max_size=3)),
        max_size=30,
    ),
    st.sampled_from(["exclude", "center", "flag"]),
)
def test_whatever_comes_the_matrix_is_finite_and_within_the_clip_range(
    values: list[float | str | None], rule: str
) -> None:
    contract = FeatureContract(features=(number(missing=rule),))
    encoded = encode(contract, {"pressure": values})
    assert np.isfinite(encoded.matrix).all()
    assert (np.abs(encoded.matrix) <= 3).all()
    assert encoded.implausible["pressure"] <= encoded.missing["pressure"] <= len(values)


@given(st.lists(st.floats(allow_nan=True), min_size=1, max_size=30))
def test_an_array_and_a_list_give_the_same(values: list[float]) -> None:
    contract = FeatureContract(features=(number(missing="flag"),))
    from_list = encode(contract, {"pressure": values})
    from_array = encode(contract, {"pressure": np.array(values)})
    np.testing.assert_array_equal(from_list.matrix, from_array.matrix)
    assert from_list.implausible == from_array.implausible
