"""Reading a safetensors file that nobody is trusted to have written well.

The layout (github.com/huggingface/safetensors, README "Format"): 8 bytes with the header's length,
little-endian; the header, JSON: name -> {dtype, shape, data_offsets}; then the numbers, side by
side. The header is judged before a single number is read, and numbers are read with numpy alone.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.errors import ReleaseError

_FLOATS: Mapping[str, np.dtype[np.floating]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
_LARGEST_HEADER = 2**20


def read_tensors(
    data: bytes, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.floating]]:
    """Read exactly the arrays that are expected.

    Args:
        data: the file.
        shapes: expected shape by name.

    Returns:
        Arrays by name in the order of `shapes`; read-only views of `data` where memory allows.

    Raises:
        ReleaseError: the header or the layout is not sane, or the arrays are not those expected.
    """
    header, start = _header(data)
    if set(header) != set(shapes):
        raise ReleaseError(
            f"the model holds the arrays {_names(header)}, the plan asks for {_names(shapes)}"
        )
    spans = {name: _span(name, header[name], shapes[name]) for name in shapes}
    _check_side_by_side(spans, len(data) - start)
    return {
        name: np.frombuffer(data, dtype, math.prod(shapes[name]), start + begin).reshape(
            shapes[name]
        )
        for name, (dtype, begin, _) in spans.items()
    }


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_LARGEST_HEADER, len(data) - 8):
        raise ReleaseError(
            f"the model file claims a header of {length} bytes; it has {len(data)} bytes in all "
            f"and a header may have {_LARGEST_HEADER}"
        )
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"the model file's header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ReleaseError("the model file's header is not a table of arrays")
    header.pop("__metadata__", None)
    return header, 8 + length


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ReleaseError("the model file's header names something twice")
    return value


def _span(name: str, entry: Any, shape: tuple[int, ...]) -> tuple[np.dtype[np.floating], int, int]:
    """The type of an array and where its bytes begin and end."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ReleaseError(f"the model file's entry for '{name}' is not type, shape and offsets")
    dtype = _FLOATS.get(str(entry["dtype"]))
    if dtype is None:
        raise ReleaseError(f"'{name}' is of type {entry['dtype']!r}, expected F32 or F64")
    if entry["shape"] != list(shape):
        raise ReleaseError(f"'{name}' has the shape {entry['shape']}, the plan asks for {shape}")
    offsets = entry["data_offsets"]
    whole = isinstance(offsets, list) and [type(value) for value in offsets] == [int, int]
    if not whole or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise ReleaseError(f"the offsets {offsets} of '{name}' do not fit its shape {shape}")
    return dtype, offsets[0], offsets[1]


def _check_side_by_side(
    spans: Mapping[str, tuple[np.dtype[np.floating], int, int]], available: int
) -> None:
    at = 0
    for name, (_, begin, end) in sorted(spans.items(), key=lambda item: item[1][1:]):
        if begin != at:
            raise ReleaseError(
                f"'{name}' begins at byte {begin}, expected {at}: a gap or an overlap"
            )
        at = end
    if at != available:
        raise ReleaseError(f"the model's arrays take {at} bytes, the file holds {available}")


def _names(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"
