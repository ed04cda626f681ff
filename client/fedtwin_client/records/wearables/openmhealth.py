"""Open mHealth and IEEE 1752.1 data points, and HealthKit samples in that form, into events.

A data point is a header (who, when, which schema) and a body, or several bodies (a data series); a
body may also stand alone. Schemas: openmhealth.org/schemas and IEEE Std 1752.1-2021
(w3id.org/ieee/ieee-1752-schema), HealthKit samples as Granola writes them
(github.com/openmhealth/granola). A measure is known by its member's name, which the schemas never
use twice for different things. Where LOINC has no code that fits, the code is `OMH//<member>`. A
mean, minimum or other summary of a time span is not a measurement: it is written
`OMH//<member>-<statistic>`.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from fedtwin_client.records.events import Event
from fedtwin_client.records.pseudonyms import Identity, Pseudonyms
from fedtwin_client.records.reading import (
    Number,
    Reading,
    Times,
    UnusableError,
    checked_number,
    finite,
)
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Version
from fedtwin_client.records.wearables.healthkit import quantity, quantity_code, short_name
from fedtwin_client.records.wearables.time_frames import read_frame

_LOINC = {
    "systolic_blood_pressure": "8480-6",
    "diastolic_blood_pressure": "8462-4",
    "heart_rate": "8867-4",
    "respiratory_rate": "9279-1",
    "oxygen_saturation": "59408-5",
    "body_temperature": "8310-5",
    "body_weight": "29463-7",
    "body_height": "8302-2",
    "body_mass_index": "39156-5",
    "step_count": "55423-8",
    "kcal_burned": "41981-2",
    "sleep_duration": "93832-4",
    "total_sleep_time": "93832-4",
}
# Blood glucose by the specimen it was measured in; without one, blood.
_GLUCOSE = {
    "": "2339-0",
    "whole blood": "2339-0",
    "capillary blood": "32016-8",
    "plasma": "2345-7",
    "serum": "2345-7",
    "interstitial fluid": "99504-3",
}
_PLAIN_UNITS = {"step_count": "steps", "number_of_awakenings": "1", "met_value": "1"}
_TEXTS = {"activity_name": "OMH//physical-activity"}
_CONSUMED = {"effective_time_frame", "descriptive_statistic", "descriptive_statistic_denominator"}
_CONSUMED |= {"specimen_source", "blood_specimen_type", "header"}
_PLACES = {"latitude", "longitude", "elevation"}
_MEMBER = re.compile(r"[a-z][a-z0-9_]{0,59}\Z")
_SCHEMA = re.compile(r"[a-z][a-z0-9-]{0,59}\Z")
_WORDS = re.compile(r"[a-z][a-z0-9 .()-]{0,39}\Z")
_ID_LIMIT = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    """A body with what is said about the whole of it."""

    body: dict[str, Any]
    header: dict[str, Any]
    subject: int
    source: str
    place: Place
    raw: dict[str, Any]

    @property
    def created(self) -> Any:
        """When it was made, as written."""
        header = self.header
        return header.get("creation_date_time") or header.get("source_creation_date_time")


class PointReader:
    """Reads data points of one source."""

    def __init__(
        self, reading: Reading, pseudonyms: Pseudonyms, system: str, patient: str | None = None
    ) -> None:
        """Start a reader.

        Args:
            reading: the import's rules and account.
            pseudonyms: gives out subject_ids.
            system: whose numbers name the patients.
            patient: whose points they all are; without it, each point's `user_id` says so.
        """
        self._reading = reading
        self._pseudonyms = pseudonyms
        self._system = system
        self._patient = patient
        self._users: set[str] = set()

    def read(self, value: dict[str, Any], place: Place) -> Iterator[Version]:
        """The version of one data point; what cannot be used of it is accounted for.

        Args:
            value: a data point, a body alone, or a HealthKit sample.
            place: where it stands.
        """
        origin: str | None = None
        events: list[Event] = []
        try:
            header, bodies = _parts(value)
            origin = self._origin(header, value)
            subject = self._subject(header)
        except UnusableError as error:
            self._reading.tally.read["data points"] += 1
            self._reading.unusable(error, place, value)
            bodies = []
        for number, body in enumerate(bodies):
            self._reading.tally.read["data points"] += 1
            point = _Point(
                body=body,
                header=header,
                subject=subject,
                source=f"{origin}#" if len(bodies) == 1 else f"{origin}#{number}/",
                place=place,
                raw=value if len(bodies) == 1 else {"header": header, "body": body},
            )
            try:
                _refuse_schema(header, body)
                events += self._events(point)
            except UnusableError as error:
                self._reading.unusable(error, place, point.raw)
        if origin is not None:
            yield Version(origin=origin, updated=None, events=events)

    def _origin(self, header: dict[str, Any], value: dict[str, Any]) -> str:
        """By the point's own id, or else by all that it says and of whom."""
        own = header.get("id") or header.get("uuid")
        if isinstance(own, str) and 0 < len(own) <= _ID_LIMIT and own.isprintable():
            return f"{self._reading.source}:point/{own.replace('#', '%23')}"
        content = json.dumps([self._patient, value], sort_keys=True).encode()
        digest = hashlib.sha256(content).hexdigest()[:32]
        return f"{self._reading.source}:point/sha256:{digest}"

    def _subject(self, header: dict[str, Any]) -> int:
        user = header.get("user_id")
        written = str(user).strip() if isinstance(user, str | int) else ""
        if self._patient is not None:
            self._users |= {written} if written else set()
            if len(self._users) > 1:
                self._users.discard(written)
                raise UnusableError("a second user_id, though all points are said to be of one")
            return self._pseudonyms.of(Identity(self._system, self._patient))
        if not written:
            raise UnusableError("no patient: the point has no user_id, and none was named for all")
        return self._pseudonyms.of(Identity(self._system, written))

    def _events(self, point: _Point) -> list[Event]:
        kind = point.body.get("quantity_type", point.body.get("category_type"))
        if kind is not None:
            return [self._sample(point, point.body, "0")]
        if "correlation_type" in point.body:
            return self._correlation(point)
        if _PLACES & point.body.keys():
            raise UnusableError("where a person was is not kept", wrong=False)
        names = [name for name in point.body if name not in _CONSUMED]
        if not any(self._is_measure(point.body[name], name) for name in names):
            raise UnusableError(_nothing_read(point.raw, point.body), wrong=False)
        frame = read_frame(point.body.get("effective_time_frame"), point.created, self._reading)
        events = []
        for name in names:
            try:
                events.append(self._measure(point, name, frame))
            except UnusableError as error:
                self._reading.unusable(error, point.place, point.raw)
        return events

    def _is_measure(self, value: Any, name: str) -> bool:
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        quantified = isinstance(value, dict) and "value" in value
        return (plain and name in _PLAIN_UNITS) or quantified or name in _TEXTS

    def _measure(self, point: _Point, name: str, times: Times) -> Event:
        value = point.body[name]
        shown = name if _MEMBER.match(name) else "of another name"
        if not self._is_measure(value, name):
            raise UnusableError(f"the member {shown} is not kept", wrong=False)
        if not _MEMBER.match(name):
            raise UnusableError("a measure whose name is none")
        event = Event(
            subject_id=point.subject,
            time=times.time,
            code=_code(point.body, name),
            source=f"{point.source}{name}",
            available_time=times.available_time,
        )
        if name in _TEXTS:
            if not isinstance(value, str) or not value.strip():
                raise UnusableError(f"expected text as {shown}")
            text = short_name(value) if value.startswith("HKWorkout") else value.strip()[:200]
            return replace(event, text_value=text)
        written = value if isinstance(value, dict) else {"value": value}
        unit = written.get("unit", _PLAIN_UNITS.get(name))
        if unit is not None and not isinstance(unit, str):
            raise UnusableError("a unit that is not text")
        number = checked_number(event.code, finite(written["value"]), unit)
        return _with(replace(event, code=_summary(point.body, name, event.code)), number)

    def _sample(self, point: _Point, sample: Any, part: str) -> Event:
        """A HealthKit quantity or category sample."""
        if not isinstance(sample, dict):
            raise UnusableError("a sample that is not an object")
        frame = read_frame(sample.get("effective_time_frame"), point.created, self._reading)
        kind = sample.get("quantity_type", sample.get("category_type"))
        name = short_name(kind) if isinstance(kind, str) else ""
        if not name:
            raise UnusableError("a sample without a type")
        event = Event(
            subject_id=point.subject,
            time=frame.time,
            code=quantity_code(name),
            source=f"{point.source}{part}",
            available_time=frame.available_time,
        )
        if "category_type" in sample:
            text = sample.get("category_value")
            if not isinstance(text, str) or not text.strip():
                raise UnusableError("no value was recorded", wrong=False)
            return replace(event, code=f"HEALTHKIT//{name}", text_value=text.strip()[:200])
        written = sample.get("unit_value")
        if written is None:
            written = {"value": sample.get("count"), "unit": "count"}
        unit = written.get("unit") if isinstance(written, dict) else None
        if not isinstance(written, dict) or not isinstance(unit, str):
            raise UnusableError("a sample without a value and its unit")
        return _with(event, quantity(name, finite(written.get("value")), unit))

    def _correlation(self, point: _Point) -> list[Event]:
        """The samples that belong together, such as the parts of a meal; each is an event."""
        events = []
        found = 0
        for member in ("quantity_samples", "category_samples"):
            samples = point.body.get(member) or []
            if not isinstance(samples, list):
                raise UnusableError(f"expected a list as {member}")
            for number, sample in enumerate(samples):
                found += 1
                try:
                    events.append(self._sample(point, sample, f"{member}/{number}"))
                except UnusableError as error:
                    self._reading.unusable(error, point.place, point.raw)
        if not found:
            raise UnusableError("a correlation without samples")
        return events


def _with(event: Event, number: Number) -> Event:
    return replace(event, numeric_value=number.value, unit=number.unit, src_unit=number.src_unit)


def _parts(value: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and body, several of a data series; the header is empty where a body stands alone.

    Raises:
        UnusableError: a header without a body, a body that is empty or of another kind.
    """
    if "header" not in value and "body" not in value:
        if "schema_id" in value:
            raise UnusableError("a header without a body")
        if not value:
            raise UnusableError("an empty object")
        return {}, [value]
    header, body = value.get("header"), value.get("body")
    if header is None:
        header = {}
    bodies: list[Any] = body if isinstance(body, list) else [body]
    if not isinstance(header, dict) or not all(isinstance(one, dict) for one in bodies):
        raise UnusableError("a data point needs a header and a body, both objects")
    if not bodies:
        raise UnusableError("an empty data series")
    return header, bodies


def _refuse_schema(header: dict[str, Any], body: dict[str, Any]) -> None:
    """Refuse what no schema could mean: no schema in the header, or nothing in the body."""
    schema = header.get("schema_id")
    if header:
        name = schema.get("name") if isinstance(schema, dict) else None
        version = schema.get("version") if isinstance(schema, dict) else None
        if not isinstance(name, str) or not isinstance(version, str | int | float):
            raise UnusableError("a header whose schema_id has no name or no version")
        told = name.replace("-", "_")
        if told in _LOINC | {"blood_glucose": ""} and told not in body:
            raise UnusableError(f"the body does not hold what its schema {name} names")
    if not body:
        raise UnusableError("an empty body")


def _nothing_read(value: dict[str, Any], body: dict[str, Any]) -> str:
    header = value.get("header")
    schema = header.get("schema_id") if isinstance(header, dict) else None
    name = schema.get("name") if isinstance(schema, dict) else None
    if isinstance(name, str) and _SCHEMA.match(name):
        return f"the schema {name} is not read"
    return "a medication is not read" if "medication" in body else "no measure that is read"


def _code(body: dict[str, Any], name: str) -> str:
    """The code of a measure, by what else the body says of it."""
    if name in _TEXTS:
        return _TEXTS[name]
    if name == "blood_glucose":
        specimen = body.get("specimen_source", body.get("blood_specimen_type")) or ""
        loinc = _GLUCOSE.get(specimen) if isinstance(specimen, str) else None
        if loinc is None:
            raise UnusableError("glucose in a specimen that is not known")
        return f"LOINC//{loinc}"
    if name == "base_movement_quantity":
        unit = body[name].get("unit") if isinstance(body[name], dict) else None
        if unit in ("steps", "step"):
            return "LOINC//55423-8"
    if name in _LOINC:
        return f"LOINC//{_LOINC[name]}"
    return f"OMH//{name.replace('_', '-')}"


def _summary(body: dict[str, Any], name: str, code: str) -> str:
    """The code of a summary over a time span; the measure's own where it is none."""
    statistic = body.get("descriptive_statistic")
    if statistic is None or statistic == "count":
        return code
    denominator = body.get("descriptive_statistic_denominator")
    words = [statistic] if denominator is None else [statistic, "per", denominator]
    if not all(isinstance(word, str) and _WORDS.match(word) for word in words):
        raise UnusableError("a descriptive statistic that is not known")
    return f"OMH//{'-'.join([name.replace('_', '-'), *words]).replace(' ', '-')}"
