"""The parts of a plan that say who takes part, and how well patients are protected."""

from typing import Literal

from pydantic import Field, model_validator

from fedtwin_protocol.contract import Part


class Privacy(Part):
    """The privacy numbers; each site recomputes them and refuses what does not add up.

    Attributes:
        unit: always the patient, with all records.
        mode: `secure`: only the sum over all sites can be seen, and each adds a share of its
            noise; `local`: the site's own noise protects against everyone outside it; `none`: no
            protection, only for data that a site's policy says may be used so.
        epsilon: stated for any patient, over everything a site sends in this study.
        delta: the other half of the statement.
        clipping_norm: bound on one patient's contribution to a sum (Euclidean norm).
        noise_multiplier: noise sd in the sum, as a multiple of the clipping norm.
        sampling_rate: chance that a patient takes part in a step (1: everybody, every step).
        cohort_count_noise: noise sd of the one cohort count a site reports (sensitivity 1).
        evaluation_noise: noise sd of each cell of the hold-out table (sensitivity 1); none: no
            evaluation leaves the site.
        vote_noise: noise sd of the vote by which a site, in every round, says whether its held-out
            patients are worse off with the candidate model (sensitivity 1; `votes`); none: no
            votes.
        hospitals_per_patient: at how many of the sites one patient may have been seen; the stated
            epsilon holds for such a patient. 1 only where the sites are known to share nobody.
        colluding_sites: in mode `secure`, so many sites may be in league with the coordinator, and
            the stated epsilon still holds; none: as many as may vanish.
        scale_bits: in mode `secure`, a patient's largest contribution has 2^scale_bits steps.
        modulus_bits: in mode `secure`, numbers are added modulo 2^modulus_bits.
    """

    unit: Literal["patient"] = "patient"
    mode: Literal["secure", "local", "none"] = "secure"
    epsilon: float = Field(gt=0, le=100)
    delta: float = Field(gt=0, lt=0.01)
    clipping_norm: float = Field(gt=0, le=1e6)
    noise_multiplier: float = Field(ge=0, le=1e6)
    sampling_rate: float = Field(default=1.0, gt=0, le=1)
    cohort_count_noise: float = Field(default=20.0, ge=0, le=1e6)
    evaluation_noise: float | None = Field(default=None, ge=0, le=1e6)
    vote_noise: float | None = Field(default=None, ge=0, le=1e6)
    hospitals_per_patient: int = Field(default=2, ge=1, le=1000)
    colluding_sites: int | None = Field(default=None, ge=0, le=100)
    scale_bits: int = Field(default=20, ge=4, le=40)
    modulus_bits: Literal[32, 64] = 64

    @model_validator(mode="after")
    def _noise_where_promised(self) -> "Privacy":
        noises = (
            self.noise_multiplier,
            self.cohort_count_noise,
            self.evaluation_noise,
            self.vote_noise,
        )
        if self.mode != "none" and any(noise == 0 for noise in noises):
            raise ValueError(
                f"mode '{self.mode}' needs noise on everything that leaves: noise_multiplier, "
                "cohort_count_noise, evaluation_noise and vote_noise must be above 0"
            )
        return self


class Sites(Part):
    """Who may take part, and how long the others wait.

    Attributes:
        invited: names of sites; empty means every member.
        keys: the invited sites' long-term signing keys (Ed25519, base64) by name; filled in when
            the plan is signed, from what each site gave when it enrolled.
        quorum: rounds start and close with at least so many sites.
        deadline_s: a round closes after so many seconds with whoever answered, if a quorum did.
        gathering_s: how long after the quorum is reached to wait for further sites.
        largest_cohort: a site with more patients takes no part (mode `secure`: the sum must be sure
            to fit its range).
        smallest_cohort: a site with fewer patients takes no part, and does not say why.
        smallest_cell: counts below it are not shown anywhere outside a site.
        join_late: whether a site may join after the first round.
    """

    invited: tuple[str, ...] = ()
    keys: dict[str, str] = Field(default_factory=dict)
    quorum: int = Field(ge=1, le=1000)
    deadline_s: float = Field(default=120.0, gt=0, le=86400 * 7)
    gathering_s: float = Field(default=5.0, ge=0, le=86400 * 30)
    smallest_cohort: int = Field(default=20, ge=1)
    largest_cohort: int = Field(default=1_000_000, ge=1, le=10**9)
    smallest_cell: int = Field(default=10, ge=1)
    join_late: bool = True
