"""Many lines of FHIR Observations of few shapes: found without parsing."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.records.fhir.alike_columns import Alike, Group
from fedtwin_client.records.fhir.meanings import Meanings
from fedtwin_client.records.fhir.shapes import Shape, shape_of, words

Mask = NDArray[np.bool_]
_FEWEST: Final = 4
_WORTH_LEARNING: Final = 8
_ATTEMPTS: Final = 64
_LINES_FOR_AN_ATTEMPT: Final = 128
_MOST_SHAPES: Final = 4_096
_LONGEST: Final = 4_096
_AT_ONCE: Final = 1 << 20  # bytes that are looked at several times: what fits the processor's cache
_NEVER: Final = tuple(b'"\\')


class Shapes:
    """The shapes that were met so far in one import."""

    def __init__(self, meanings: Meanings) -> None:
        self._meanings = meanings
        self._known: dict[int, list[Shape]] = {}
        self._count = 0
        self._attempts = float(_ATTEMPTS)

    def read(self, data: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Alike:
        """The lines of shapes that are known or can be learnt.

        Args:
            data: whole lines.
            starts: (rows,) where each line that is not blank begins.
            lengths: (rows,) of each line, without its line end.
        """
        if b'"Observation"' not in data:
            return Alike(self._meanings, [])
        # Short whole numbers are sorted several times as fast.
        short = np.minimum(lengths, _LONGEST + 1).astype(np.uint16)
        short[starts + lengths > len(data) - 8] = 0  # the last line: whole words go beyond it
        order = np.argsort(short, kind="stable")
        edges = np.flatnonzero(np.diff(short[order])) + 1
        groups: list[Group] = []
        for rows in np.split(order, edges):
            length = int(short[rows[0]]) if len(rows) else 0
            if len(rows) >= _FEWEST and 0 < length <= _LONGEST:
                for group in self._groups(_Lines(data, starts, length), rows):
                    groups.append(group)
                    self._attempts += len(group.rows) / _LINES_FOR_AN_ATTEMPT
        return Alike(self._meanings, groups)

    def _groups(self, lines: "_Lines", rows: NDArray[np.int64]) -> Iterator[Group]:
        """Lines of one length by their shape; learning is worth its while only where many come."""
        known = self._known.setdefault(lines.length, [])
        left = rows
        for shape in tuple(known):
            if len(left) < _FEWEST:
                return
            left, group = lines.parted(left, shape)
            if group is not None:
                yield group
        while len(left) >= _WORTH_LEARNING and self._attempts >= 1 and self._count < _MOST_SHAPES:
            self._attempts -= 1
            learnt = shape_of(lines.line(int(left[0])), self._meanings)
            group = None
            if learnt is not None:
                learnt = learnt._replace(probe=_probe(learnt, known))
                known.append(learnt)
                self._count += 1
                left, group = lines.parted(left, learnt)
            if group is None:  # the texts of this line are not those that lines of a shape may hold
                left = left[1:]
            else:
                yield group


def _probe(shape: Shape, known: list[Shape]) -> int:
    """A word in which a shape differs from the one that was learnt before."""
    if not known:
        return 0
    both = shape.mask & known[-1].mask
    return int(np.argmax((shape.line & both) != (known[-1].line & both)))


class _Lines:
    """Lines of one length.

    Attributes:
        length: without line ends.
    """

    def __init__(self, data: bytes, starts: NDArray[np.int64], length: int) -> None:
        self.length = length
        self._data, self._starts = data, starts
        self._width = words(length)
        self._words = np.ndarray((len(data) - 7,), np.uint64, data, strides=(1,))
        last = len(data) - self._width
        self._whole = np.ndarray((last + 1,), f"V{self._width}", data, strides=(1,))

    def line(self, row: int) -> bytes:
        """One of them."""
        start = int(self._starts[row])
        return self._data[start : start + self.length]

    def parted(
        self, rows: NDArray[np.int64], shape: Shape
    ) -> tuple[NDArray[np.int64], Group | None]:
        """Find lines of a shape.

        Args:
            rows: numbers of lines.
            shape: to look for.

        Returns:
            Which are left, and those that were found.
        """
        probed = self._words[self._starts[rows] + 8 * shape.probe] & shape.mask[shape.probe]
        like: Mask = probed == shape.line[shape.probe]
        chosen = np.flatnonzero(like)
        if not len(chosen):
            return rows, None
        pieces = np.array_split(chosen, -(-len(chosen) * self._width // _AT_ONCE))
        parts = [self._like(rows[piece], shape) for piece in pieces]
        like[chosen] = _joined([part.fit for part in parts])
        if not like.any():
            return rows, None
        fields = _joined([part.fields for part in parts])
        values = tuple(map(_joined, zip(*(part.values for part in parts), strict=True)))
        return rows[~like], Group(shape, rows[like], fields, values)

    def _like(self, rows: NDArray[np.int64], shape: Shape) -> "_Found":
        """Which of some lines are of a shape."""
        lines = self._whole[self._starts[rows]].view(np.uint8).reshape(len(rows), self._width)
        texts = np.concatenate([lines[:, start:end] for start, end in shape.texts], axis=1)
        values = [lines[:, value.span[0] : value.span[1]].copy() for value in shape.values]
        whole = lines.view(np.uint64)
        whole &= shape.mask
        other = whole != shape.line
        fit = ~other.any(axis=1) if other.any() else np.ones(len(rows), dtype=np.bool_)
        if not _all_safe(texts):
            fit &= _safe(texts)
        fields = texts[:, : sum(width for width in shape.widths if width > 0)]
        if fit.all():
            return _Found(fit, fields, values)
        return _Found(fit, fields[fit], [value[fit] for value in values])


class _Found(NamedTuple):
    """Which lines are of a shape, and of these `fields` and `values` as in `Group`."""

    fit: Mask
    fields: NDArray[np.uint8]
    values: list[NDArray[np.uint8]]


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _all_safe(texts: NDArray[np.uint8]) -> bool:
    """Whether `_safe` holds of all rows, as it mostly does."""
    if not texts.size:
        return True
    plain = texts.tobytes()
    return (
        all(byte not in plain for byte in _NEVER)
        and bool(texts.min() >= 32)
        and bool(texts.max() <= 126)
    )


def _safe(texts: NDArray[np.uint8]) -> Mask:
    """Which rows hold nothing but characters of ASCII that stand for themselves in a JSON text."""
    odd: Mask = (texts < 32) | (texts > 126)
    for byte in _NEVER:
        odd |= texts == byte
    safe: Mask = ~np.any(odd, axis=1)
    return safe
