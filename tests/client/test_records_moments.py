"""Dates and times of any precision."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_client.records.moments import (
    format_precision,
    read_moment,
    read_with_format,
    read_zone,
    years_before,
)
from fedtwin_protocol.errors import RecordError

ZURICH = read_zone("Europe/Zurich")


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "start", "known"),
    [
        ("2020-06-01T12:00:00+02:00", at(2020, 6, 1, 10), at(2020, 6, 1, 10)),
        ("2020-06-01T12:00:00.250Z", at(2020, 6, 1, 12, 0, 0, 250000), None),
        ("2020-06-01 12:00", at(2020, 6, 1, 10), at(2020, 6, 1, 10)),
        ("2020-06-01", at(2020, 5, 31, 22), at(2020, 6, 1, 21, 59, 59)),
        ("2020-12", at(2020, 11, 30, 23), at(2020, 12, 31, 22, 59, 59)),
        ("2020", at(2019, 12, 31, 23), at(2020, 12, 31, 22, 59, 59)),
    ],
)
def test_what_is_not_said_is_not_known_early(
    text: str, start: datetime, known: datetime | None
) -> None:
    moment = read_moment(text, ZURICH)
    assert moment is not None
    assert moment.start == start
    assert moment.known == (known or start)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2020-13-01", "2020-02-30", "20200101", "1.2.20"]
)
def test_other_text_is_no_moment(text: str) -> None:
    assert read_moment(text, ZURICH) is None


def test_a_format_without_an_hour_means_the_whole_day() -> None:
    moment = read_with_format("01.06.2020", "%d.%m.%Y", ZURICH)
    assert moment is not None
    assert (moment.precision, moment.start) == ("day", at(2020, 5, 31, 22))
    assert read_with_format("2020-06-01", "%d.%m.%Y", ZURICH) is None


def test_an_unknown_zone_is_named() -> None:
    with pytest.raises(RecordError, match="Mars/Olympus"):
        read_zone("Mars/Olympus")


def test_whole_years_keep_the_day() -> None:
    assert years_before(at(1988, 7, 1), 63) == at(1925, 7, 1)
    assert years_before(at(2024, 2, 29), 1) == at(2023, 2, 28)


@given(st.text(max_size=12))
def test_no_text_breaks_the_reader(text: str) -> None:
    read_moment(text, ZURICH)


@given(st.floats(min_value=0, max_value=120), st.datetimes(min_value=datetime(1960, 1, 1)))
def test_more_years_are_earlier(years: float, moment: datetime) -> None:
    later = moment.replace(tzinfo=UTC)
    assert years_before(later, years + 0.5) < years_before(later, years) <= later


@pytest.mark.parametrize(
    ("form", "precision"),
    [
        ("%d.%m.%y", "day"),
        ("%Y-%j", "day"),
        ("%m/%Y", "month"),
        ("%b %Y", "month"),
        ("%Y", "year"),
        ("%m/%d/%Y %I:%M %p", "time"),
        ("%Y-%m-%dT%H:%M:%S%z", "time"),
    ],
)
def test_a_format_tells_how_exact_a_time_is(form: str, precision: str) -> None:
    assert format_precision(form) == precision
    moment = read_with_format(at(2024, 2, 1, 13).strftime(form), form, read_zone("UTC"))
    assert moment is not None
    assert moment.precision == precision
    ends = {"year": at(2024, 12, 31, 23, 59, 59), "month": at(2024, 2, 29, 23, 59, 59)}
    ends |= {"day": at(2024, 2, 1, 23, 59, 59), "time": at(2024, 2, 1, 13)}
    assert moment.end == ends[precision]


@pytest.mark.parametrize("form", ["", "%d.%m", "%Q", "%Y %d", "%Y-%m %H", "%d.%m.%Y %I", "%%Y"])
def test_a_format_that_tells_no_time_is_refused(form: str) -> None:
    with pytest.raises(ValueError, match="%"):
        format_precision(form)
