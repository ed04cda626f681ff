"""Payloads and Flower's records, either way; Flower itself is handed in, not imported.

Both ends convert, and neither may load Flower before it is needed, so the caller hands over the
module `flwr.app`.
"""

import io
from functools import cached_property, lru_cache
from math import prod
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy

from fedtwin_protocol.payload import Array, Payload

NPY: Final = "numpy.ndarray"


def to_payload(records: Any) -> Payload:
    """A payload with the contents of a Flower `RecordDict`."""
    return Payload(
        arrays={
            name: {key: _to_numpy(array) for key, array in record.items()}
            for name, record in records.array_records.items()
        },
        metrics={name: dict(record) for name, record in records.metric_records.items()},
        config={name: dict(record) for name, record in records.config_records.items()},
    )


def to_records(payload: Payload, flower_app: Any) -> Any:
    """A Flower `RecordDict` with the contents of a payload.

    Args:
        payload: what travelled.
        flower_app: the module `flwr.app`.
    """
    records, received = flower_app.RecordDict(), _received_kind(flower_app)
    for name, arrays in payload.arrays.items():
        content = {key: received(array) for key, array in arrays.items()}
        records[name] = flower_app.ArrayRecord(content)
    for name, values in payload.metrics.items():
        records[name] = flower_app.MetricRecord(dict(values))
    for name, values in payload.config.items():
        records[name] = flower_app.ConfigRecord(dict(values))
    return records


@lru_cache(maxsize=1)
def _received_kind(flower_app: Any) -> Any:
    """The class of arrays that came over the link."""

    class Received(flower_app.Array):  # type: ignore[misc]  # known only at run time
        """Flower's array over numbers that lie elsewhere, such as in a file.

        Flower keeps an array as an .npy file in memory; here it is made when somebody asks for it.
        """

        def __init__(self, values: Array) -> None:
            self.dtype, self.shape, self.stype = str(values.dtype), values.shape, NPY
            self.values = values

        @cached_property
        def data(self) -> bytes:
            """The .npy file."""
            head = io.BytesIO()
            values = np.ascontiguousarray(self.values)
            npy.write_array_header_1_0(head, npy.header_data_from_array_1_0(values))
            return b"".join((head.getvalue(), values.reshape(-1).view(np.uint8).data))

        def numpy(self) -> Array:
            """A copy that may be written to, as Flower's own method gives one."""
            return np.array(self.values)

    return Received


def _to_numpy(array: Any) -> Array:
    """The numbers of Flower's array, in place where its .npy file is a plain one."""
    if hasattr(array, "values"):
        return np.asarray(array.values)
    head = io.BytesIO(array.data[:256])
    try:
        if array.stype == NPY and npy.read_magic(head) == (1, 0):
            shape, reversed_axes, dtype = npy.read_array_header_1_0(head)
            whole = len(array.data) - head.tell() == prod(shape) * dtype.itemsize
            if whole and not reversed_axes and not dtype.hasobject:
                return np.frombuffer(array.data, dtype, offset=head.tell()).reshape(shape)
    except ValueError:
        pass  # Flower's own reader says what is wrong
    return np.asarray(array.numpy())
