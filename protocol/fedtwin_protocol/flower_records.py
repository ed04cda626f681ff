"""Payloads and Flower's records, either way; Flower itself is handed in, not imported.

Both ends convert, and neither may load Flower before it is needed, so the caller hands over the
module `flwr.app`.
"""

import io
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy

from fedtwin_protocol.payload import Array, Payload


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
    records = flower_app.RecordDict()
    for name, arrays in payload.arrays.items():
        content = {key: _to_flower(array, flower_app) for key, array in arrays.items()}
        records[name] = flower_app.ArrayRecord(content)
    for name, values in payload.metrics.items():
        records[name] = flower_app.MetricRecord(dict(values))
    for name, values in payload.config.items():
        records[name] = flower_app.ConfigRecord(dict(values))
    return records


def _to_flower(array: Array, flower_app: Any) -> Any:
    """Flower's array, which holds an .npy file; the numbers are copied once."""
    head = io.BytesIO()
    values = np.ascontiguousarray(array)
    npy.write_array_header_1_0(head, npy.header_data_from_array_1_0(values))
    data = b"".join((head.getvalue(), values.reshape(-1).view(np.uint8).data))
    return flower_app.Array(
        dtype=str(values.dtype), shape=array.shape, stype="numpy.ndarray", data=data
    )


def _to_numpy(array: Any) -> Array:
    """The numbers of Flower's array, in place where its .npy file is as `_to_flower` writes it."""
    head = io.BytesIO(array.data[:256])
    try:
        if array.stype == "numpy.ndarray" and npy.read_magic(head) == (1, 0):
            shape, reversed_axes, dtype = npy.read_array_header_1_0(head)
            whole = len(array.data) - head.tell() == prod(shape) * dtype.itemsize
            if whole and not reversed_axes and not dtype.hasobject:
                return np.frombuffer(array.data, dtype, offset=head.tell()).reshape(shape)
    except ValueError:
        pass  # Flower's own reader says what is wrong
    return np.asarray(array.numpy())
