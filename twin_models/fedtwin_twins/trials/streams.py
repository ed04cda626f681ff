"""Chance for virtual patients: every patient has a stream of their own, and so has every draw.

The number for a patient depends on the seed, the replicate, the purpose, the draw's number within
the purpose, and the patient's number; on nothing else. So a patient does not change when more
patients, workers, visits or purposes are added, and is the same patient in every arm.

It is the counter of Philox (Salmon et al. 2011, doi 10.1145/2063384.2063405) that does it: purpose
and draw make the key, patients are places in the sequence.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_WORDS: Final = 4
"""64-bit numbers that Philox gives for one count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Streams:
    """The chance of some patients in a row, in one replicate or in several at once.

    Attributes:
        seed: of the whole trial, at least 0.
        replicates: numbers of the repetitions, from 0; their patients follow one another.
        first: number of the first patient of each replicate.
        count: how many patients of each replicate.
    """

    seed: int
    replicates: tuple[int, ...]
    first: int
    count: int

    def __post_init__(self) -> None:
        for name in ("seed", "first", "count"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected {name} of at least 0, found {getattr(self, name)}")
        if not self.replicates or min(self.replicates) < 0:
            raise ValueError("expected replicates with numbers of at least 0")

    @property
    def patients(self) -> int:
        """How many there are, of all replicates together."""
        return self.count * len(self.replicates)

    @property
    def numbers(self) -> Integers:
        """Of each patient within their replicate, (patients,)."""
        row = np.arange(self.first, self.first + self.count, dtype=np.int64)
        return np.tile(row, len(self.replicates))

    def uniforms(self, purpose: str, draw: int = 0) -> Floats:
        """One number for each patient, uniform between 0 and 1 without the ends, (patients,)."""
        word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big")
        rows = [self._raw(one, word, draw) for one in self.replicates]
        raw = np.concatenate(rows)
        return np.asarray(((raw >> np.uint64(11)) + 0.5) * 2.0**-53, dtype=np.float64)

    def _raw(self, replicate: int, word: int, draw: int) -> NDArray[np.uint64]:
        places = (replicate, word >> 32, word & 0xFFFFFFFF, draw)
        key = np.random.SeedSequence(self.seed, spawn_key=places).generate_state(2, np.uint64)
        source = np.random.Philox(key=key).advance(self.first // _WORDS)
        skipped = self.first % _WORDS
        return np.asarray(source.random_raw(skipped + self.count)[skipped:], dtype=np.uint64)

    def normals(self, purpose: str, draw: int = 0) -> Floats:
        """One standard normal number for each patient, (patients,)."""
        found: Floats = ndtri(self.uniforms(purpose, draw))
        return found

    def many_uniforms(self, purpose: str, draws: int) -> Floats:
        """Several independent uniform numbers for each patient, (patients, draws)."""
        columns = [self.uniforms(purpose, draw) for draw in range(draws)]
        return np.stack(columns, axis=1) if columns else np.zeros((self.patients, 0))

    def many_normals(self, purpose: str, draws: int) -> Floats:
        """Several independent standard normal numbers for each patient, (patients, draws)."""
        found: Floats = ndtri(self.many_uniforms(purpose, draws))
        return found

    def choices(self, purpose: str, shares: Floats, draw: int = 0) -> Integers:
        """A place in a list for each patient, (patients,).

        Args:
            purpose: what is chosen.
            shares: chance of each place, (places,) or (patients, places), with sum 1.
            draw: number within the purpose.
        """
        ends = np.cumsum(np.atleast_2d(shares), axis=1)
        found = (self.uniforms(purpose, draw)[:, None] > ends).sum(axis=1)
        return np.asarray(np.minimum(found, ends.shape[1] - 1), dtype=np.int64)
