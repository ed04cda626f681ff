"""What a task or an answer carries: named records of arrays and values, and their bytes.

A payload has the shape of a Flower `RecordDict` (array, metric and config records), but its arrays
travel as raw little-endian frames behind a table of heads, so that a large model is never copied
into a message. Nothing that a head claims is believed before its bytes are there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.errors import WireError
from fedtwin_protocol.v1 import exchange_pb2 as pb

Array = NDArray[Any]
Scalar = float | int | str | bool | bytes
FieldValue = Scalar | list[float] | list[int] | list[str] | list[bool] | list[bytes]
Arrays = Mapping[str, Array]
Fields = Mapping[str, FieldValue]

_NAMES: Final = "float16 float32 float64 int8 int16 int32 int64 uint8 uint32 uint64"
DTYPES: Final = {name: np.dtype(name).newbyteorder("<") for name in _NAMES.split()}
INLINE_LIMIT: Final = 64 * 1024
MOST_ARRAYS: Final = 10_000
MOST_FIELDS: Final = 10_000
MOST_DIMENSIONS: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """Named records of a task or an answer."""

    arrays: Mapping[str, Arrays] = field(default_factory=dict)
    metrics: Mapping[str, Fields] = field(default_factory=dict)
    config: Mapping[str, Fields] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """Where one array lies among the frames.

    Attributes:
        record: the record it belongs to.
        name: its name in the record.
        dtype: little-endian.
        shape: lengths of its axes.
        offset: of its first byte in the frames.
    """

    record: str
    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.size * self.dtype.itemsize


def pack(payload: Payload) -> tuple[list[pb.Record], list[memoryview]]:
    """Turn a payload into record heads and raw frames.

    Raises:
        WireError: an array's type cannot travel.
    """
    records: list[pb.Record] = []
    frames: list[memoryview] = []
    for name, arrays in payload.arrays.items():
        record = pb.Record(name=name, kind=pb.Record.ARRAYS)
        for key, array in arrays.items():
            if array.dtype.name not in DTYPES:
                known = ", ".join(DTYPES)
                raise WireError(f"array '{key}' has type {array.dtype.name}, not one of {known}")
            record.arrays.append(
                pb.ArrayHead(name=key, dtype=array.dtype.name, shape=list(array.shape))
            )
            frames.append(_frame(array))
        records.append(record)
    for kind, group in ((pb.Record.METRICS, payload.metrics), (pb.Record.CONFIG, payload.config)):
        for name, fields in group.items():
            items = [pb.Field(name=key, value=_to_value(value)) for key, value in fields.items()]
            records.append(pb.Record(name=name, kind=kind, fields=items))
    return records, frames


def heads_of(records: Iterable[pb.Record], total_bytes: int) -> list[Head]:
    """Read the table of arrays and hold it against the bytes that are there.

    Args:
        records: as received.
        total_bytes: length of the frames.

    Raises:
        WireError: an unknown type, an absurd shape, or a table that does not fill the frames
            exactly. Nothing is allocated before this is known.
    """
    heads: list[Head] = []
    offset = 0
    for record in records:
        for item in record.arrays:
            dtype = DTYPES.get(item.dtype)
            shape = tuple(int(length) for length in item.shape)
            if dtype is None:
                raise WireError(
                    f"array '{item.name[:60]}' has the unknown type '{item.dtype[:20]}'"
                )
            if len(shape) > MOST_DIMENSIONS or len(heads) >= MOST_ARRAYS:
                raise WireError("the array table is too large to be a model's")
            head = Head(record=record.name, name=item.name, dtype=dtype, shape=shape, offset=offset)
            heads.append(head)
            offset += head.nbytes
    if offset != total_bytes:
        raise WireError(f"the arrays claim {offset} bytes, but {total_bytes} were sent")
    return heads


def unpack(records: Sequence[pb.Record], frames: bytes | memoryview) -> Payload:
    """Rebuild a payload from its records and the bytes of its arrays.

    Raises:
        WireError: the table and the bytes do not agree, or a record is not well formed.
    """
    arrays: dict[str, dict[str, Array]] = {
        record.name: {} for record in records if record.kind == pb.Record.ARRAYS
    }
    for head in heads_of(records, len(frames)):
        if head.record not in arrays:
            raise WireError(f"record '{head.record[:60]}' holds arrays but is of another kind")
        values = np.frombuffer(frames, dtype=head.dtype, count=head.size, offset=head.offset)
        arrays[head.record][head.name] = values.reshape(head.shape)
    return Payload(
        arrays=arrays,
        metrics=_fields_of(records, pb.Record.METRICS),
        config=_fields_of(records, pb.Record.CONFIG),
    )


def _fields_of(records: Sequence[pb.Record], kind: int) -> dict[str, dict[str, FieldValue]]:
    if sum(len(record.fields) for record in records) > MOST_FIELDS:
        raise WireError(f"a message may hold {MOST_FIELDS} values beside its arrays, not more")
    return {
        record.name: {item.name: _from_value(item) for item in record.fields}
        for record in records
        if record.kind == kind
    }


def _frame(array: Array) -> memoryview:
    little = np.ascontiguousarray(array, dtype=DTYPES[array.dtype.name])
    return memoryview(little.reshape(-1).view(np.uint8).data)


def _to_value(value: FieldValue) -> pb.Value:
    if isinstance(value, list):
        return _to_list_value(value)
    match value:
        case bool():
            return pb.Value(truth=value)
        case int():
            return pb.Value(integer=value)
        case float():
            return pb.Value(number=value)
        case str():
            return pb.Value(text=value)
        case bytes():
            return pb.Value(raw=value)
    raise WireError(f"a value of type {type(value).__name__} cannot travel")


def _to_list_value(values: Sequence[Scalar]) -> pb.Value:
    kinds = {type(item) for item in values}
    if kinds == {bool}:
        return pb.Value(truths=pb.Value.Truths(items=values))  # type: ignore[arg-type]
    if kinds == {int}:
        return pb.Value(integers=pb.Value.Integers(items=values))  # type: ignore[arg-type]
    if kinds <= {float, int}:
        return pb.Value(numbers=pb.Value.Numbers(items=values))  # type: ignore[arg-type]
    if kinds == {str}:
        return pb.Value(texts=pb.Value.Texts(items=values))  # type: ignore[arg-type]
    if kinds == {bytes}:
        return pb.Value(raws=pb.Value.Raws(items=values))  # type: ignore[arg-type]
    raise WireError("a list that travels must hold values of one kind")


def _from_value(item: pb.Field) -> FieldValue:
    kind = item.value.WhichOneof("value")
    if kind is None:
        raise WireError(f"the value '{item.name[:60]}' is empty")
    value = getattr(item.value, kind)
    if kind in {"numbers", "integers", "texts", "truths", "raws"}:
        return list(value.items)
    return value  # type: ignore[no-any-return]
