"""Servers of FHIR that are not there, and nodes' connections that are shut behind each test."""

from collections.abc import Iterator

import pytest

from .fhir_double import Double, double
from .fhir_exports import OPEN


@pytest.fixture(autouse=True)
def shut() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().shut()


@pytest.fixture
def server() -> Iterator[Double]:
    with double() as found:
        yield found


@pytest.fixture
def elsewhere() -> Iterator[Double]:
    with double() as found:
        yield found
