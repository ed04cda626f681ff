"""An append-only log's Merkle tree: roots, inclusion proofs, consistency proofs.

RFC 6962, section 2.1 (the same hashes as RFC 9162, SHA-256):

    leaf hash  = SHA-256(0x00 || entry)
    inner hash = SHA-256(0x01 || left || right)
    root of n leaves = inner(root of the first k, root of the others), where k is the largest power
    of two below n; the root of none is the SHA-256 of nothing.

Who holds an old root and gets a consistency proof knows that nothing before it was changed; who
gets an inclusion proof knows that an entry is in the log. The proofs are checked as RFC 9162,
sections 2.1.3.2 and 2.1.4.2, say. Verification raises; it never returns a verdict.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from fedtwin_protocol.errors import LogError

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
HASH_BYTES: Final = 32
# A proof of a log of 2^64 entries has no more hashes.
LONGEST_PROOF: Final = 65


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry, 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def inner_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees, 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """A tree that grows by leaves; whole subtrees are hashed once.

    Args:
        leaves: leaf hashes, 32 bytes each, in order.
    """

    def __init__(self, leaves: Sequence[bytes] = ()) -> None:
        # levels[h][i]: root of the whole subtree over leaves i 2^h to (i + 1) 2^h - 1.
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """How many leaves."""
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        height = 0
        self._levels[0].append(leaf)
        while len(self._levels[height]) % 2 == 0:
            if height + 1 == len(self._levels):
                self._levels.append([])
            left, right = self._levels[height][-2:]
            self._levels[height + 1].append(inner_hash(left, right))
            height += 1

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves; of all without it."""
        count = self._checked(self.size if size is None else size)
        return self._subtree(0, count) if count else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """The audit path of leaf `index` in the tree of the first `size` leaves.

        Raises:
            LogError: there is no such leaf, or no such tree.
        """
        self._checked(size)
        if not 0 <= index < size:
            raise LogError(f"expected a leaf below {size}, got {index}")
        return self._path(index, 0, size)

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """That the first `old` leaves are the beginning of the first `new` ones.

        Raises:
            LogError: there are no such trees.
        """
        self._checked(new)
        if not 0 <= old <= new:
            raise LogError(f"expected an older tree of at most {new} entries, got {old}")
        return self._subproof(old, 0, new, True) if 0 < old < new else []

    def _checked(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise LogError(f"the log has {self.size} entries; there is no tree of {size}")
        return size

    def _subtree(self, start: int, end: int) -> bytes:
        count = end - start
        height = count.bit_length() - 1
        if count == 1 << height and start % count == 0:
            return self._levels[height][start >> height]
        middle = start + _split(count)
        return inner_hash(self._subtree(start, middle), self._subtree(middle, end))

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        middle = start + _split(end - start)
        if index < middle:
            return [*self._path(index, start, middle), self._subtree(middle, end)]
        return [*self._path(index, middle, end), self._subtree(start, middle)]

    def _subproof(self, old: int, start: int, end: int, whole: bool) -> list[bytes]:
        if old == end:
            return [] if whole else [self._subtree(start, end)]
        middle = start + _split(end - start)
        if old <= middle:
            return [*self._subproof(old, start, middle, whole), self._subtree(middle, end)]
        return [*self._subproof(old, middle, end, False), self._subtree(start, middle)]


def check_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Believe that a leaf is entry `index` of the log of `size` entries with that root, or raise.

    Raises:
        LogError: the proof does not show it.
    """
    _check_hashes(proof)
    if not 0 <= index < size:
        raise LogError(f"expected an entry below {size}, got {index}")
    first, last, found = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise LogError("the inclusion proof is longer than the log is high")
        if first % 2 or first == last:
            found = inner_hash(step, found)
            while not (first % 2 or first == 0):
                first, last = first // 2, last // 2
        else:
            found = inner_hash(found, step)
        first, last = first // 2, last // 2
    if last != 0 or found != root:
        raise LogError(
            f"the proof does not lead from entry {index} to the log's root of {size} entries: the "
            "entry is not in this log, or was changed"
        )


def check_consistency(
    old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Believe that a log of `old` entries is the beginning of the one of `new`, or raise.

    Raises:
        LogError: the proof does not show it.
    """
    _check_hashes(proof)
    if old > new:
        raise LogError(f"the log has {new} entries now, and had {old} before: it was cut off")
    if old in (new, 0):
        if proof or old_root != (new_root if old == new else EMPTY_ROOT):
            raise LogError(f"two different roots are shown for the log of {old} entries")
        return
    before, after = _walk(old, new, proof, old_root)
    if before != old_root or after != new_root:
        raise LogError(
            f"the log of {new} entries does not begin with the {old} that were shown before: "
            "entries were changed or left out"
        )


def _walk(old: int, new: int, proof: Sequence[bytes], old_root: bytes) -> tuple[bytes, bytes]:
    """The two roots that a consistency proof leads to (RFC 9162, section 2.1.4.2)."""
    steps = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not steps:
        raise LogError(f"nothing proves that the log of {old} entries grew to {new}")
    first, last = old - 1, new - 1
    while first % 2:
        first, last = first // 2, last // 2
    before = after = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise LogError("the consistency proof is longer than the log is high")
        if first % 2 or first == last:
            before, after = inner_hash(step, before), inner_hash(step, after)
            while not (first % 2 or first == 0):
                first, last = first // 2, last // 2
        else:
            after = inner_hash(after, step)
        first, last = first // 2, last // 2
    if last != 0:
        raise LogError("the consistency proof is shorter than the log is high")
    return before, after


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _check_hashes(proof: Sequence[bytes]) -> None:
    if len(proof) > LONGEST_PROOF or any(len(step) != HASH_BYTES for step in proof):
        raise LogError(f"expected a proof of at most {LONGEST_PROOF} hashes of {HASH_BYTES} bytes")
