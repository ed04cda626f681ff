"""A column that is how many values or events there were, as a researcher gives it."""

import pytest

from fedtwin_protocol.contract import Feature, FeatureContract
from fedtwin_protocol.errors import ReleaseError
from fedtwin_research.columns import contract_columns

CONTRACT = FeatureContract(
    features=(
        Feature(
            name="pressures",
            kind="number",
            codes=("LOINC//8480-6",),
            unit="mm[Hg]",
            plausible=(40, 300),
            summary="count",
        ),
    )
)


def test_numbers_below_the_plausible_range_of_a_value_are_counts_all_the_same() -> None:
    found = contract_columns(CONTRACT, {"pressures": [0, 3, 400]}, {})
    assert found.values == {"pressures": [0.0, 3.0, 400.0]}


@pytest.mark.parametrize("value", [-1, 1.5, float("inf")])
def test_what_is_no_count_is_refused(value: float) -> None:
    with pytest.raises(ReleaseError, match=r"pressures.*how many values there are: 0, 1, 2"):
        contract_columns(CONTRACT, {"pressures": [value]}, {})
