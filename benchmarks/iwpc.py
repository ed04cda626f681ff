"""Warfarin over the sites of the IWPC: what is learned together, and what a site makes of it.

Every fold is one study: the sites' own code sums bounded moments of the training patients, with the
Skellam noise of a secure sum where the plan has noise, and population values follow from the sum
as they do for whoever reads a release. A site then adds what its own training patients say.
Mean absolute error in mg/week of the patients left out, over ten re-splits into five folds (seeds
0 to 9; settings were chosen on seeds from 200 on) or with each site left out in turn.

The published algorithm was made from most of these very patients, so beside it nothing here is
quite fair: `iwpc-mae` and `iwpc-mae-new-site` learn without it (every coefficient unknown, sd one
scale) and without noise; `iwpc-mae-dp` learns what it leaves unexplained, at epsilon 1.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import yaml
from figures import Figure
from iwpc_data import ROOT, Patients, find_data, read

SPLITS, FOLDS = range(10), 5
WITHOUT_NOISE = {"mode": "none", "clipping_norm": 1.0e4, "noise_multiplier": 0}
NOTHING_KNOWN = {"site_variance_ratio": 0.1}
GOALS = {"iwpc-mae": 8.2, "iwpc-mae-new-site": 8.65, "iwpc-mae-dp": 8.35}


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to learn: changes of the plan, and whether sites add what their own say."""

    privacy: dict
    population: dict
    at_the_site: bool = True


LEARNED = Way(privacy=WITHOUT_NOISE, population=NOTHING_KNOWN)
PRIVATE = Way(privacy={}, population={})
BESIDE = {
    "learned, nothing added at the site": Way(
        privacy=WITHOUT_NOISE, population=NOTHING_KNOWN, at_the_site=False
    ),
    "learned beyond the published algorithm": Way(privacy=WITHOUT_NOISE, population={}),
    "epsilon 1, nothing known before": Way(privacy={}, population=NOTHING_KNOWN),
}


def measure(options: argparse.Namespace) -> list[Figure]:
    """All figures of this module that are asked for; none where the data are not at hand."""
    path = find_data(options)
    if path is None:
        print("the warfarin figures need the IWPC's table: --iwpc FILE")
        return []
    patients = read(path)
    published = _error(patients, published_dose(patients))
    print(f"{len(patients.dose)} complete cases of {len(set(patients.site.tolist()))} sites")
    print(f"  published algorithm: {published:.3f} mg/week")
    found = {}
    if {"iwpc-mae", "iwpc-mae-dp"} & options.wanted:
        print(f"  each site alone: {_over_splits(patients, _alone):.3f}")
        for name, way in BESIDE.items():
            print(f"  {name}: {_over_splits(patients, _study(way)):.3f}")
        print(f"  published and the site's shift: {_over_splits(patients, _shifted):.3f}")
    for name, way in (("iwpc-mae", LEARNED), ("iwpc-mae-dp", PRIVATE)):
        if name in options.wanted:
            found[name] = _over_splits(patients, _study(way))
    if "iwpc-mae-new-site" in options.wanted:
        study = _study(Way(privacy=WITHOUT_NOISE, population=NOTHING_KNOWN, at_the_site=False))
        doses = np.zeros(len(patients.dose))
        for site in np.unique(patients.site):
            left_out = patients.site == site
            doses[left_out] = study(patients, ~left_out, 0)[left_out]
        found["iwpc-mae-new-site"] = _error(patients, doses)
    return [
        Figure(id=name, value=round(error, 4), unit="mg/wk", baseline=published, goal=GOALS[name])
        for name, error in found.items()
    ]


def published_dose(patients: Patients) -> np.ndarray:
    """The dose by the consortium's pharmacogenetic algorithm, mg/week."""
    from fedtwin_twins.pharmacology.warfarin_iwpc import WarfarinPatients, pharmacogenetic_dose

    columns = patients.columns
    # Of other alleles it has no term; they count as not determined.
    known = ["unknown" if one == "other" else one for one in columns["cyp2c9"]]
    # Decades are what was recorded, and of 10 to 19 years nothing but that: 18 stands for them.
    years = np.maximum(10 * np.array(columns["age"]), 18)
    asked = WarfarinPatients(
        age_years=years,
        height_cm=columns["height"],
        weight_kg=columns["weight"],
        race=columns["race"],
        enzyme_inducer=columns["enzyme_inducer"],
        amiodarone=columns["amiodarone"],
        vkorc1=columns["vkorc1"],
        cyp2c9=known,
    )
    return pharmacogenetic_dose(asked).mg_per_week


def _study(way: Way):
    """A study carried out once: doses for everybody, of whom some were trained on."""

    def carried_out(patients: Patients, trained: np.ndarray, seed: int) -> np.ndarray:
        from fedtwin_client.training.population import values_of
        from fedtwin_protocol.transforms import backward
        from fedtwin_twins.population.site_values import site_values

        sites = [str(site) for site in np.unique(patients.site[trained])]
        plan = _plan(way, sites)
        matrix, outcomes = _encoded(plan, patients)
        of_site = [trained & (patients.site == int(site)) for site in sites]
        parts = [(matrix[chosen], outcomes[chosen]) for chosen in of_site]
        values = values_of(plan, _released(plan, parts, seed))
        scores = values.expected(matrix)
        if way.at_the_site:
            for site, (features, seen) in zip(sites, parts, strict=True):
                here = patients.site == int(site)
                scores[here] = site_values(values, features, seen).expected(matrix[here])
        endpoint = plan.endpoint
        return backward(endpoint.transform, scores * endpoint.scale + endpoint.center)

    return carried_out


def _plan(way: Way, sites: list[str]):
    from fedtwin_protocol.study import plan_from_value

    value = yaml.safe_load((ROOT / "benchmarks" / "iwpc.yaml").read_text())
    value["privacy"] |= way.privacy
    value["population"] = way.population or value["population"]
    value["sites"] |= {"invited": sites, "smallest_cohort": 1}
    return plan_from_value(value, "iwpc.yaml")


def _encoded(plan, patients: Patients) -> tuple[np.ndarray, np.ndarray]:
    from fedtwin_protocol.encoding import encode
    from fedtwin_protocol.study_patients import LARGEST_VALUE
    from fedtwin_protocol.transforms import forward

    encoded = encode(plan.contract, patients.columns)
    assert encoded.keep.all()
    endpoint = plan.endpoint
    scaled = (forward(endpoint.transform, patients.dose) - endpoint.center) / endpoint.scale
    return encoded.matrix, np.clip(scaled, -LARGEST_VALUE, LARGEST_VALUE)


def _released(plan, parts: list, seed: int) -> dict:
    """The arrays of a release: what the sites' sums add up to, with the noise of a secure sum."""
    from fedtwin_client.training.learner import summing_learner
    from fedtwin_client.training.masked_part import noisy_whole_numbers
    from fedtwin_client.training.noise import SeededNoise
    from fedtwin_client.training.training_rows import TrainingRows
    from fedtwin_protocol.parameters import SITES, initial_parameters, unflatten
    from fedtwin_protocol.secure_terms import secure_terms

    parameters = initial_parameters(plan)
    privacy, total = plan.privacy, 0
    for number, (features, outcomes) in enumerate(parts):
        noise = SeededNoise(1000 * seed + number)
        learner = summing_learner(plan, TrainingRows(features=features, outcomes=outcomes))
        exact = learner.exact(parameters, noise)
        if privacy.mode == "none":
            total = total + exact
            continue
        terms = secure_terms(plan)
        largest, sigma = privacy.clipping_norm, privacy.noise_multiplier
        total = total + noisy_whole_numbers(exact, largest, sigma, terms, noise)
    if privacy.mode != "none":
        total = total.view("<i8") * (privacy.clipping_norm / secure_terms(plan).scale)
    sites = parameters.pop(SITES)
    return unflatten(np.asarray(total, np.float64), parameters) | {SITES: sites + len(parts)}


def _alone(patients: Patients, trained: np.ndarray, seed: int) -> np.ndarray:
    """Each site by its own ridge regression (penalty 1 on the scaled columns)."""
    del seed
    matrix, _ = _encoded(_plan(LEARNED, ["1", "2", "3"]), patients)
    rows = np.concatenate([matrix, np.ones((len(matrix), 1))], axis=1)
    roots = np.sqrt(patients.dose)
    found = np.zeros(len(roots))
    ridge = np.diag([1.0] * matrix.shape[1] + [1e-6])
    for site in np.unique(patients.site):
        here = patients.site == site
        some = rows[here & trained]
        weights = np.linalg.solve(some.T @ some + ridge, some.T @ roots[here & trained])
        found[here] = rows[here] @ weights
    return np.maximum(found, 0) ** 2


def _shifted(patients: Patients, trained: np.ndarray, seed: int) -> np.ndarray:
    """The published algorithm with each site's shrunken mean residual (variance ratio 0.1)."""
    del seed
    roots = np.sqrt(published_dose(patients))
    residuals = np.sqrt(patients.dose) - roots
    for site in np.unique(patients.site):
        here = patients.site == site
        own = residuals[here & trained]
        roots[here] += own.sum() / (len(own) + 10)
    return np.maximum(roots, 0) ** 2


def _over_splits(patients: Patients, learn) -> float:
    """Mean error of the patients of each fold, over folds and re-splits."""
    errors = []
    for split in SPLITS:
        doses = np.zeros(len(patients.dose))
        for number, left_out in enumerate(_folds(patients, split)):
            doses[left_out] = learn(patients, ~left_out, FOLDS * split + number)[left_out]
        errors.append(_error(patients, doses))
    return float(np.mean(errors))


def _folds(patients: Patients, seed: int) -> Iterator[np.ndarray]:
    """Each site's patients in five parts, in turn."""
    generator = np.random.Generator(np.random.PCG64(seed))
    part = np.zeros(len(patients.site), int)
    for site in np.unique(patients.site):
        places = np.flatnonzero(patients.site == site)
        part[generator.permutation(places)] = np.arange(len(places)) % FOLDS
    for number in range(FOLDS):
        yield part == number


def _error(patients: Patients, doses: np.ndarray) -> float:
    return float(np.abs(doses - patients.dose).mean())
