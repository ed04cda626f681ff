"""Lines of FHIR of frames that were met before: found without parsing, and read as columns."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedtwin_client.records.fhir.frames import WORD, Frame, Range, frame_of
from fedtwin_client.records.fhir.members import Answers, Members, Quantities

Mask = NDArray[np.bool_]
_WORTH_LEARNING: Final = 8
_ATTEMPTS: Final = 200
_LINES_FOR_AN_ATTEMPT: Final = 128
_MOST_FRAMES: Final = 2_048
_MOST_ANCHORS: Final = 4_095
_MOST_QUOTES: Final = 16_383
_CHUNK: Final = 1 << 17  # bytes that are looked at several times: what fits the processor's cache
_AT_ONCE: Final = 1 << 16  # words likewise
_FEED, _RETURN, _SPACE, _QUOTE, _COLON, _BACKSLASH, _CODED = b'\n\r ":\\u'
_NONE: Final = np.zeros(0, dtype=np.int32)
_HEX: Final = np.isin(np.arange(256), list(b"0123456789abcdefABCDEF"))
_ESCAPES: Final = np.isin(np.arange(256), list(b'"/bfnrtu'))  # `\\\\` is left to the strict reader
_HALF: Final = np.isin(np.arange(256), list(b"89abcdefABCDEF"))
_D: Final = np.isin(np.arange(256), list(b"dD"))


class _Framed(NamedTuple):
    """Lines of one frame, in their order.

    Attributes:
        frame: of all.
        rows: (lines,) their numbers.
        anchors: (lines, anchors) where they stand in the data.
    """

    frame: Frame
    rows: NDArray[np.int64]
    anchors: NDArray[np.int32]


class Found(NamedTuple):
    """What lines of known frames hold.

    Attributes:
        rows: the numbers of those that are Observations.
        members: of these.
        left: the numbers of lines of no known frame.
    """

    rows: NDArray[np.int64]
    members: Members
    left: NDArray[np.int64]


class Frames:
    """The frames that were met so far in one import."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], list[Frame]] = {}
        self._count = 0
        self._attempts = float(_ATTEMPTS)

    def read(self, data: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Found:
        """The Observations of frames that are known or can be learnt.

        Args:
            data: whole lines.
            starts: (rows,) where each line that is not blank begins.
            lengths: (rows,) of each line, without its line end.

        """
        lines = _Lines(data, starts, lengths)
        found: list[_Framed] = []
        for rows, anchors in lines.alike():
            found += self._framed(lines, rows, anchors)
        self._attempts += sum(len(one.rows) for one in found) / _LINES_FOR_AN_ATTEMPT
        left = np.ones(len(starts), dtype=np.bool_)
        for one in found:
            left[one.rows] = False
        observed = [one for one in found if one.frame.observed is not None]
        return Found(*_members(data, observed), np.flatnonzero(left))

    def _framed(
        self, lines: "_Lines", rows: NDArray[np.int64], anchors: NDArray[np.int32]
    ) -> Iterator[_Framed]:
        """Lines with as many anchors and quotation marks by their frame."""
        quotes = int(lines.quotes[rows[0]])
        known = self._known.setdefault((anchors.shape[1], quotes), [])
        gaps = np.diff(anchors, axis=1)
        left = np.arange(len(rows))
        for frame in tuple(known):
            if not len(left):
                return
            like = lines.like(frame, anchors, gaps, left)
            if like.any():
                chosen = left[like]
                left = left[~like]
                yield _Framed(frame, rows[chosen], anchors[chosen])
        while len(left) >= _WORTH_LEARNING and self._attempts >= 1 and self._count < _MOST_FRAMES:
            self._attempts -= 1
            first = anchors[left[0]]
            learnt = frame_of(lines.text(first), (first - first[0]).tolist(), quotes)
            if learnt is None:
                left = left[1:]
                continue
            known.append(learnt)
            self._count += 1
            like = lines.like(learnt, anchors, gaps, left)
            chosen = left[like]
            yield _Framed(learnt, rows[chosen], anchors[chosen])
            like[0] = True  # as it is its frame, or is none as it stands there
            left = left[~like]


class _Lines:
    """Lines whose open places are looked into all at once.

    Attributes:
        quotes: (rows,) how many quotation marks each has that are not escaped.
    """

    def __init__(self, data: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        self._data = data
        self._bytes = np.frombuffer(data, dtype=np.uint8)
        self._starts = starts.astype(np.int32)
        ends = starts + lengths
        self._ends = (ends - (self._bytes[ends - 1] == _RETURN)).astype(np.int32)
        count = max(len(data) - WORD + 1, 0)
        self._words = np.ndarray((count,), f"V{WORD}", data, strides=(1,))
        self._backslashes = self._places(_BACKSLASH) if b"\\" in data else _NONE
        self._controls = 0
        self._find_anchors()

    def text(self, anchors: NDArray[np.int32]) -> bytes:
        """A line."""
        return self._data[anchors[0] : anchors[-1]]

    def alike(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        """Usable lines with as many anchors and quotation marks, and their anchors."""
        first = np.searchsorted(self._anchors, np.append(self._starts, np.int32(len(self._data))))
        counts = np.diff(first)
        usable = self._usable() & (counts > 0) & (counts <= _MOST_ANCHORS)
        usable &= (self.quotes >= 0) & (self.quotes <= _MOST_QUOTES)
        kinds = np.where(usable, counts * (_MOST_QUOTES + 1) + self.quotes, 0)
        order = np.argsort(kinds, kind="stable")
        borders = np.flatnonzero(np.diff(kinds[order])) + 1
        for rows in np.split(order, borders):
            if not len(rows) or not kinds[rows[0]]:
                continue
            count = int(counts[rows[0]])
            found = np.empty((len(rows), count + 2), dtype=np.int32)
            found[:, 0] = self._starts[rows]
            found[:, 1:-1] = self._anchors[first[rows][:, None] + np.arange(count)]
            found[:, -1] = self._ends[rows]
            yield rows, found

    def like(
        self,
        frame: Frame,
        anchors: NDArray[np.int32],
        gaps: NDArray[np.int32],
        rows: NDArray[np.int64],
    ) -> Mask:
        """Which of some lines are of a frame.

        Args:
            frame: to look for.
            anchors: of all lines with as many anchors and quotation marks.
            gaps: between them.
            rows: numbers of lines among these.
        """
        here = gaps if len(rows) == len(gaps) else gaps[rows]
        like: Mask = np.all(np.greater_equal(here, frame.gaps), axis=1)
        like &= np.all(np.equal(here[:, frame.tight], frame.gaps[frame.tight]), axis=1)
        chosen = np.flatnonzero(like)
        for some in np.array_split(chosen, -(-len(chosen) * len(frame.words) // _AT_ONCE) or 1):
            mine = anchors[rows[some]]
            places = np.take(mine, frame.anchor, axis=1) + frame.offset
            words = self._words[places].view(np.uint64).reshape(len(some), len(frame.words))
            words &= frame.mask
            fit: Mask = np.asarray((words == frame.words).all(axis=1))
            if len(self._backslashes):
                for anchor, offset in frame.texts:
                    last: NDArray[np.uint8] = self._bytes[mine[:, anchor] + (offset - 1)]
                    fit = fit & np.not_equal(last, _BACKSLASH)
            for number in frame.numbers:
                fit = fit & self._are_numbers(mine, number)
            like[some] = fit
        return like

    def _are_numbers(self, anchors: NDArray[np.int32], where: Range) -> Mask:
        """In which lines a number stands at a place: none of endless digits or with an exponent."""
        (first, from_first), (last, from_last) = where
        starts = anchors[:, first] + from_first
        lengths = anchors[:, last] + from_last - starts
        widest = int(lengths.max(initial=1))
        if widest > WORD:
            lengths = np.where(lengths > WORD, 0, lengths)
            widest = WORD
        texts = self._words[starts].view(np.uint8).reshape(len(starts), WORD)[:, :widest]
        return are_numbers(texts, lengths)

    def _find_anchors(self) -> None:
        """Anchors and quotation marks that are not escaped, where their lines are usable."""
        parts = [_NONE]
        bits = []
        marks, others = np.empty((2, _CHUNK + 1), dtype=np.bool_)  # taken anew each costs more
        for first in range(0, len(self._bytes), _CHUNK):
            some = self._bytes[first : first + _CHUNK + 1]
            here, there = marks[: len(some)], others[: len(some)]
            np.less(some, _SPACE, out=there)
            self._controls += int(np.count_nonzero(there[:_CHUNK]))
            np.equal(some, _QUOTE, out=here)
            np.equal(some, _COLON, out=there)
            bits.append(np.packbits(here[:_CHUNK], bitorder="little"))
            there[:-1] = there[1:]
            here &= there
            found = np.flatnonzero(here[:-1])
            found += first
            parts.append(found.astype(np.int32))
        anchors = np.concatenate(parts)
        bits.append(np.zeros(16, dtype=np.uint8))
        self.quotes = _counts(np.concatenate(bits), self._starts, self._ends)
        escaped = self._backslashes[self._bytes[self._backslashes + 1] == _QUOTE]
        if len(escaped):
            anchors = anchors[self._bytes[anchors - 1] != _BACKSLASH]
            rows = self._row_of(escaped)
            self.quotes -= np.bincount(rows[rows >= 0], minlength=len(self._starts))
        self._anchors = anchors

    def _places(self, byte: int) -> NDArray[np.int32]:
        """Where a byte stands that another comes after."""
        parts = [_NONE]
        for first in range(0, len(self._bytes) - 1, _CHUNK):
            some = self._bytes[first : min(first + _CHUNK, len(self._bytes) - 1)]
            parts.append((np.flatnonzero(some == byte) + first).astype(np.int32))
        return np.concatenate(parts)

    def _row_of(self, places: NDArray[Any]) -> NDArray[np.int64]:
        """In which row something stands; in the one before if it is behind its end."""
        after: NDArray[np.int64] = np.searchsorted(
            self._starts, places.astype(np.int32), side="right"
        )
        return after - 1

    def _usable(self) -> Mask:
        """Lines in which texts are what they may be, wherever these begin and end."""
        usable: Mask = self._ends <= len(self._data) - WORD  # of the last, whole words go beyond it
        for faulty in (self._control_characters(), self._odd_escapes(), self._not_utf8()):
            rows = self._row_of(faulty)
            usable[rows[rows >= 0]] = False
        return usable

    def _control_characters(self) -> NDArray[Any]:
        """Where they stand in lines."""
        if self._controls <= len(self._starts):
            fed = np.minimum(self._ends, len(self._bytes) - 1)
            if np.count_nonzero(self._bytes[fed] == _FEED) == self._controls:
                return _NONE
        places = np.flatnonzero(self._bytes < _SPACE)
        row = self._row_of(places)
        found: NDArray[np.int64] = places[(row >= 0) & (places < self._ends[row])]
        return found

    def _odd_escapes(self) -> NDArray[Any]:
        """Where backslashes stand that do not begin a simple escape."""
        near = np.minimum(self._backslashes, len(self._bytes) - 6)  # no usable line ends behind it
        after = self._bytes[near + 1]
        fine = _ESCAPES[after]
        coded = np.flatnonzero(after == _CODED)
        if len(coded):
            one, two, three, four = (self._bytes[near[coded] + n] for n in range(2, 6))
            fine[coded] = _HEX[one] & _HEX[two] & _HEX[three] & _HEX[four] & ~(_D[one] & _HALF[two])
        found: NDArray[np.int32] = self._backslashes[~fine]
        return found

    def _not_utf8(self) -> NDArray[Any]:
        """Where lines begin that are no text."""
        if self._data.isascii() or _is_text(self._data):
            return _NONE
        ends = zip(self._starts.tolist(), self._ends.tolist(), strict=True)
        odd = [start for start, end in ends if not _is_text(self._data[start:end])]
        return np.array(odd, dtype=np.int32)


def _counts(
    bits: NDArray[np.uint8], starts: NDArray[np.int32], ends: NDArray[np.int32]
) -> NDArray[np.int64]:
    """How many bits are set between places."""
    words = bits[: len(bits) // 8 * 8].view(np.uint64)
    before = np.concatenate([[0], np.cumsum(np.bitwise_count(words), dtype=np.int64)])

    def up_to(places: NDArray[np.int32]) -> NDArray[np.int64]:
        word = places >> 6
        some = (np.uint64(1) << (places & 63).astype(np.uint64)) - np.uint64(1)
        found: NDArray[np.int64] = before[word] + np.bitwise_count(words[word] & some)
        return found

    return up_to(ends) - up_to(starts)


def _is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8."""
    offsets = pa.py_buffer(np.array([0, len(data)], dtype=np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def texts_of(data: bytes, where: Range, anchors: NDArray[np.int32]) -> pa.Array:
    """What stands in a place of lines, which come in their order."""
    (first, from_first), (last, from_last) = where
    offsets = np.empty(2 * len(anchors), dtype=np.int32)
    offsets[::2] = anchors[:, first]
    offsets[::2] += from_first
    offsets[1::2] = anchors[:, last]
    offsets[1::2] += from_last
    count = max(len(offsets) - 1, 0)
    every = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data))
    return every.take(pa.array(np.arange(0, count, 2)))


def are_numbers(texts: NDArray[np.uint8], lengths: NDArray[Any]) -> Mask:
    """Which texts are JSON numbers without an exponent.

    Args:
        texts: (rows, bytes) what stands from the start of each text on.
        lengths: (rows,) of the texts.
    """
    width = texts.shape[1]
    columns = np.ascontiguousarray(texts.T)
    inside = np.arange(width)[:, None] < lengths
    digit = (columns - np.uint8(48) <= 9) & inside
    point = (columns == 46) & inside
    signed = columns[0] == 45
    good: Mask = (lengths > 0) & (digit[0] | signed)
    good &= (digit[1:] | point[1:] | ~inside[1:]).all(axis=0)
    good &= np.add.reduce(point, axis=0, dtype=np.uint8) <= 1
    row = np.arange(len(lengths))
    good &= digit[np.maximum(lengths - 1, 0), row]
    lead = signed.astype(np.int64)
    leading = np.minimum(lead, width - 1)
    good &= digit[leading, row] & (lengths > lead)
    after = np.minimum(lead + 1, width - 1)
    good &= (columns[leading, row] != 48) | (lengths == lead + 1) | point[after, row]
    return good


def _members(data: bytes, found: list[_Framed]) -> tuple[NDArray[np.int64], Members]:
    """What lines hold, one frame after another."""
    first = 0
    texts: list[list[pa.Array]] = [[pa.array([], pa.string())] for _ in range(6)]
    quantities: list[Quantities] = []
    answers: list[Answers] = []
    for frame, rows, anchors in found:
        assert frame.observed is not None
        count = len(rows)
        for column, where in zip(texts, frame.observed.texts, strict=True):
            column.append(_column(data, where, anchors))
        line = np.arange(first, first + count)
        for number, part in enumerate(frame.observed.parts):
            code = _column(data, part.code, anchors)
            place = np.full(count, number, dtype=np.int64)
            if part.answer is not None:
                answers.append(Answers(line, place, code, _column(data, part.answer, anchors)))
            else:
                value = _column(data, part.number, anchors)
                units = [_column(data, where, anchors) for where in part.units]
                quantities.append(Quantities(line, place, code, value, *units))
        first += count
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *(one.rows for one in found)])
    identity, status, subject, happened, issued, updated = map(pa.concat_arrays, texts)
    return rows, Members(
        proven=np.ones(len(rows), dtype=np.bool_),
        id=identity,
        status=status,
        subject=subject,
        happened=happened,
        issued=issued,
        updated=updated,
        quantities=Quantities.joined(quantities),
        answers=Answers.joined(answers),
    )


def _column(data: bytes, where: Range | None, anchors: NDArray[np.int32]) -> pa.Array:
    if where is None:
        return pa.nulls(len(anchors), pa.string())
    return texts_of(data, where, anchors)
