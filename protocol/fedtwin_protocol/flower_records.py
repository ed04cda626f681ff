"""Payloads and Flower's records, either way; Flower itself is handed in, not imported.

Both ends convert, and neither may load Flower before it is needed, so the caller hands over the
module `flwr.app`.
"""

from typing import Any

from fedtwin_protocol.payload import Payload


def to_payload(records: Any) -> Payload:
    """A payload with the contents of a Flower `RecordDict`."""
    return Payload(
        arrays={
            name: {key: array.numpy() for key, array in record.items()}
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
        content = {key: flower_app.Array(array) for key, array in arrays.items()}
        records[name] = flower_app.ArrayRecord(content)
    for name, values in payload.metrics.items():
        records[name] = flower_app.MetricRecord(dict(values))
    for name, values in payload.config.items():
        records[name] = flower_app.ConfigRecord(dict(values))
    return records
