"""The terms of a secure sum, computed from the signed plan alone and never taken from a message.

K sites are named in the plan. t = floor(2K/3) + 1 of them are needed at every step, so any
D = K - t may vanish; up to T of them (at most D) may be in league with the coordinator. Because
2t > K + T, two different sets of survivors can never both be confirmed (Bonawitz et al. 2017,
doi 10.1145/3133956.3133982, section 6, with a threshold above two thirds).

Numbers are scaled by 2^scale_bits over the largest contribution of one patient, rounded, and added
modulo 2^modulus_bits. A site's part is kept within its share of that range, which its patients and
its noise can never reach in a plan that was admitted; so a sum never wraps around.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from fedtwin_protocol.canonical import canonical_bytes, sha256_hex
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.groups import assign_groups
from fedtwin_protocol.study import StudyPlan

FEWEST_SITES, MOST_SITES = 3, 100
# A Skellam or normal variable exceeds so many standard deviations with probability < 1e-30.
NOISE_REACH = 12.0
LEAST_SHARE_VARIANCE = 100.0
"""A share of noise with less, in squared integer steps, hides too little to be called noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureTerms:
    """What every party to a secure sum goes by.

    Attributes:
        sites: who takes part, in order; a site's number is its place, from 1.
        keys: their signing keys, in the same order; empty strings before the plan is signed.
        threshold: sites needed at every step, t.
        colluding: sites that may be in league with the coordinator, T.
        scale_bits: see above.
        modulus_bits: 32 or 64.
    """

    sites: tuple[str, ...]
    keys: tuple[str, ...]
    threshold: int
    colluding: int
    scale_bits: int
    modulus_bits: int

    @property
    def may_vanish(self) -> int:
        """Sites that may be missing at any step, D = K - t."""
        return len(self.sites) - self.threshold

    @property
    def honest_present(self) -> int:
        """Sites whose noise is there in the worst case, K - D - T."""
        return self.threshold - self.colluding

    @property
    def scale(self) -> float:
        """Integer steps in the largest contribution of one patient."""
        return float(2**self.scale_bits)

    @property
    def largest_part(self) -> int:
        """No number of a site's part may be larger, in integer steps."""
        return int(2 ** (self.modulus_bits - 1) // len(self.sites)) - 1

    def share_sd(self, noise_multiplier: float) -> float:
        """Sd of one site's noise share, in integer steps: sigma scale / sqrt(K - D - T)."""
        return noise_multiplier * self.scale / sqrt(self.honest_present)

    def number(self, site: str) -> int:
        """A site's number, from 1.

        Raises:
            PlanError: the plan does not name it.
        """
        if site not in self.sites:
            raise PlanError(f"{site[:60]} is not named in the plan of this sum")
        return self.sites.index(site) + 1

    def key(self, site: str) -> str:
        """A site's signing key, base64."""
        return self.keys[self.number(site) - 1]


def secure_terms(plan: StudyPlan, sites: Sequence[str] | None = None) -> SecureTerms:
    """The terms of a plan's sums.

    Args:
        plan: in mode `secure`.
        sites: those of one sum, if not all that the plan names.

    Raises:
        PlanError: too few or too many sites, or numbers that do not fit together.
    """
    names = tuple(sorted(plan.sites.invited if sites is None else sites))
    count = len(names)
    if not FEWEST_SITES <= count <= MOST_SITES or len(set(names)) != count:
        raise PlanError(
            f"a secure sum needs {FEWEST_SITES} to {MOST_SITES} different sites, this one has "
            f"{count}: name them in sites.invited, or choose mode 'local'"
        )
    threshold = 2 * count // 3 + 1
    most = count - threshold
    colluding = plan.privacy.colluding_sites
    colluding = most if colluding is None else colluding
    if not 0 <= colluding <= most:
        raise PlanError(
            f"colluding_sites is {colluding}; among {count} sites at most {most} can be tolerated"
        )
    terms = SecureTerms(
        sites=names,
        keys=tuple(plan.sites.keys.get(name, "") for name in names),
        threshold=threshold,
        colluding=colluding,
        scale_bits=plan.privacy.scale_bits,
        modulus_bits=plan.privacy.modulus_bits,
    )
    _check_range(plan, terms)
    return terms


def training_groups(plan: StudyPlan, round_number: int) -> tuple[SecureTerms, ...]:
    """The terms of a round's sums: of all sites, or of each group where the plan has groups.

    Raises:
        PlanError: a group is too small, or numbers do not fit together.
    """
    groups = plan.aggregation.groups
    if groups == 1:
        return (secure_terms(plan),)
    drawn = assign_groups(plan.hash, round_number, plan.sites.invited, groups)
    return tuple(secure_terms(plan, sites) for sites in drawn)


def sum_terms(plan: StudyPlan, purpose: str, round_number: int, site: str) -> SecureTerms:
    """The terms of the sum that a site takes part in.

    Raises:
        PlanError: the plan does not name the site, or as `training_groups`.
    """
    if purpose != "train":
        return secure_terms(plan)
    for terms in training_groups(plan, round_number):
        if site in terms.sites:
            return terms
    raise PlanError(f"{site[:60]} is not named in the plan of this sum")


def _check_range(plan: StudyPlan, terms: SecureTerms) -> None:
    """A sum of the largest cohorts and their noise must fit.

    Raises:
        PlanError: it does not.
    """
    privacy = plan.privacy
    noises = (privacy.noise_multiplier, privacy.cohort_count_noise, privacy.evaluation_noise or 0.0)
    least = min(noise for noise in noises if noise > 0)
    if terms.share_sd(least) ** 2 < LEAST_SHARE_VARIANCE:
        raise PlanError(
            f"scale_bits {terms.scale_bits} leaves a site's share of noise {least:g} a standard "
            f"deviation of {terms.share_sd(least):.2g} steps, and at least "
            f"{LEAST_SHARE_VARIANCE**0.5:g} are needed: raise privacy.scale_bits"
        )
    reach = NOISE_REACH * terms.share_sd(max(noises))
    needed = plan.sites.largest_cohort * terms.scale + reach
    if needed > terms.largest_part:
        fits = int(max(0.0, (terms.largest_part - reach) / terms.scale))
        raise PlanError(
            f"{terms.modulus_bits} bits cannot hold the sum of {len(terms.sites)} sites with up to "
            f"{plan.sites.largest_cohort} patients each at scale_bits {terms.scale_bits}: set "
            f"sites.largest_cohort to at most {fits}, or modulus_bits to 64, or a smaller "
            "scale_bits"
        )


def sum_label(plan: StudyPlan, purpose: str, number: int, sites: Sequence[str]) -> str:
    """The name of one sum: of which plan, for what, in which round, among whom; hexadecimal."""
    value = {"plan": plan.hash, "purpose": purpose, "round": number, "sites": sorted(sites)}
    return sha256_hex(canonical_bytes(value))
