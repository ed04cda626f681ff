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
    """The chance of one replicate, for some patients in a row.

    Attributes:
        seed: of the whole trial, at least 0.
        replicate: number of the repetition, from 0.
        first: number of the first patient.
        count: how many patients.
    """

    seed: int
    replicate: int
    first: int
    count: int

    def __post_init__(self) -> None:
        for name in ("seed", "replicate", "first", "count"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected {name} of at least 0, found {getattr(self, name)}")

    def uniforms(self, purpose: str, draw: int = 0) -> Floats:
        """One number for each patient, uniform between 0 and 1 without the ends, (patients,)."""
        word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big")
        places = (self.replicate, word >> 32, word & 0xFFFFFFFF, draw)
        key = np.random.SeedSequence(self.seed, spawn_key=places).generate_state(2, np.uint64)
        source = np.random.Philox(key=key).advance(self.first // _WORDS)
        skipped = self.first % _WORDS
        raw = source.random_raw(skipped + self.count)[skipped:]
        return np.asarray(((raw >> np.uint64(11)) + 0.5) * 2.0**-53, dtype=np.float64)

    def normals(self, purpose: str, draw: int = 0) -> Floats:
        """One standard normal number for each patient, (patients,)."""
        found: Floats = ndtri(self.uniforms(purpose, draw))
        return found

    def many_uniforms(self, purpose: str, draws: int) -> Floats:
        """Several independent uniform numbers for each patient, (patients, draws)."""
        columns = [self.uniforms(purpose, draw) for draw in range(draws)]
        return np.stack(columns, axis=1) if columns else np.zeros((self.count, 0))

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
