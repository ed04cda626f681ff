"""What several devices counted at once, and what an export holds twice.

A watch and a telephone worn together both count the same steps. For what adds up (steps, distance,
energy ...), a sample is left out where a better source counted at any time within its span. Other
measurements (heart rate, weight) are kept from every source: they do not add up.
"""

import re
from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b

import numpy as np

from fedtwin_client.records.wearables.healthkit import SUMMED

_PREFIX = "HKQuantityTypeIdentifier"
_WATCH = re.compile(r"watch", re.IGNORECASE)
_PHONE = re.compile(r"i?phone", re.IGNORECASE)
TWICE = "a sample that the export holds twice"
COUNTED = "counted at the same time by a source that comes first"


class Overlaps:
    """Which samples of an export count, learnt in a first reading and asked in a second."""

    def __init__(self, prefer: Sequence[str]) -> None:
        """Start knowing nothing.

        Args:
            prefer: names of sources, or parts of them, best first.
        """
        self._prefer = [name.lower() for name in prefer]
        self._seen = array("Q")
        self._twice: dict[int, bool] = {}
        self._ranks: dict[str, int] = {}
        # type -> rank of the source -> starts and ends, in seconds
        self._spans: dict[str, dict[int, tuple[array[float], array[float]]]] = {}
        self._merged: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {}

    def learn(self, attributes: Mapping[str, str]) -> None:
        """Take note of a sample in the first reading."""
        self._seen.append(_digest(attributes))
        name = attributes.get("type", "").removeprefix(_PREFIX)
        span = _span(attributes) if name in SUMMED else None
        if span is None:
            return
        spans = self._spans.setdefault(name, {})
        starts, ends = spans.setdefault(self._rank(attributes), (array("d"), array("d")))
        if ends and starts[-1] <= span[0] <= ends[-1]:
            ends[-1] = max(ends[-1], span[1])
        else:
            starts.append(span[0])
            ends.append(span[1])

    def settle(self) -> None:
        """End the first reading."""
        digests = np.sort(np.frombuffer(self._seen, dtype=np.uint64))
        self._twice = {int(one): False for one in digests[1:][digests[1:] == digests[:-1]]}
        self._seen = array("Q")
        for name, spans in self._spans.items():
            self._merged[name] = [(rank, *_merge(*spans[rank])) for rank in sorted(spans)]
        self._spans.clear()

    def why_not(self, attributes: Mapping[str, str]) -> str | None:
        """Why a sample is left out in the second reading; none if it counts."""
        digest = _digest(attributes)
        if digest in self._twice:
            if self._twice[digest]:
                return TWICE
            self._twice[digest] = True
        name = attributes.get("type", "").removeprefix(_PREFIX)
        span = _span(attributes) if name in SUMMED else None
        if span is None:
            return None
        own = self._rank(attributes)
        for rank, starts, ends in self._merged.get(name, ()):
            if rank >= own:
                break
            at = int(np.searchsorted(ends, span[0], side="right"))
            if at < len(starts) and starts[at] < max(span[1], np.nextafter(span[0], np.inf)):
                return COUNTED
        return None

    def _rank(self, attributes: Mapping[str, str]) -> int:
        """The place of a sample's source; lower comes first, and of equals the one seen first."""
        name = attributes.get("sourceName", "")
        device = attributes.get("device", "")
        rank = self._ranks.get(name)
        if rank is None:
            rank = self._ranks[name] = self._place(name, device)
        return rank

    def _place(self, name: str, device: str) -> int:
        for place, part in enumerate(self._prefer):
            if part in name.lower():
                return 1_000_000 * place + len(self._ranks)
        kinds = (_WATCH, _PHONE)
        kind = next((at for at, mark in enumerate(kinds) if mark.search(f"{name} {device}")), 2)
        return 1_000_000 * (len(self._prefer) + kind) + len(self._ranks)


def _digest(attributes: Mapping[str, str]) -> int:
    said = "\0".join(
        attributes.get(key, "")
        for key in ("type", "sourceName", "unit", "value", "startDate", "endDate")
    )
    return int.from_bytes(blake2b(said.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def _span(attributes: Mapping[str, str]) -> tuple[float, float] | None:
    """Start and end in seconds; none where they cannot be read, which the reader says."""
    try:
        start, end = (
            datetime.fromisoformat(attributes[f"{key}Date"].replace(" +", "+").replace(" -", "-"))
            for key in ("start", "end")
        )
        first, last = start.timestamp(), end.timestamp()
    except (KeyError, ValueError, OverflowError):
        return None
    return (first, last) if first <= last else None


def _merge(starts: "array[float]", ends: "array[float]") -> tuple[np.ndarray, np.ndarray]:
    """Spans in order and without overlaps."""
    first, last = np.frombuffer(starts), np.frombuffer(ends)
    order = np.argsort(first, kind="stable")
    first, reach = first[order], np.maximum.accumulate(last[order])
    opens = np.concatenate(([True], first[1:] > reach[:-1]))
    closes = np.concatenate((opens[1:], [True]))
    return first[opens], reach[closes]
