"""Clipped sums of the families that read records, against one slow loop, and their predictions."""

import numpy as np
import pytest
import torch

from fedtwin_client.cohort.sequences import Sequences
from fedtwin_client.training.learner import ClippedSum, make_learner
from fedtwin_client.training.noise import SeededNoise
from fedtwin_client.training.sequence_gradient import clipped_sums, model_of, patient_losses
from fedtwin_client.training.sequence_models import Batch
from fedtwin_client.training.taps import Taps
from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.parameters import flatten, initial_parameters, parameter_shapes, unflatten
from fedtwin_protocol.study import StudyPlan
from fedtwin_twins.families import AT_ONCE, RecordRows, scores_of

COLUMNS, WORDS, RECORDS, PATIENTS = 3, 5, 6, 12
FAMILIES = ["network", "transformer", "recurrent"]


def plan(family, clip=0.5, **privacy):
    return StudyPlan.model_validate(
        {
            "study": "sequences",
            "consortium": "tests",
            "title": "A plan",
            "purpose": "To read records",
            "cohort": {"index": {"codes": ["TEST//index"]}},
            "features": [
                {"name": f"x{k}", "kind": "flag", "codes": ["TEST//x"]} for k in range(COLUMNS)
            ],
            "sequence": {
                "vocabulary": [{"code": f"TEST//w{k}"} for k in range(WORDS)],
                "most_records": RECORDS,
            },
            "endpoint": {"name": "event", "kind": "event", "codes": ["TEST//e"], "horizon_days": 1},
            "model": {
                "family": family,
                "hidden": [7, 4] if family == "network" else [],
                "width": 8,
                "heads": 2,
                "seed": 3,
            },
            "training": {"rounds": 2, "learning_rate": 0.5},
            "privacy": {
                "mode": "none",
                "epsilon": 10,
                "delta": 1e-5,
                "clipping_norm": clip,
                "noise_multiplier": 3.0,
                **privacy,
            },
            "sites": {"quorum": 1},
        }
    )


def rows(seed=0, count=PATIENTS):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, RECORDS + 1, count)
    filled = np.arange(RECORDS) < lengths[:, None]
    codes = np.where(filled, rng.integers(1, WORDS + 1, (count, RECORDS)), 0).astype(np.int32)
    numbers = (rng.normal(size=(count, RECORDS, 3)) * filled[:, :, None]).astype(np.float32)
    return TrainingRows(
        features=rng.normal(size=(count, COLUMNS)),
        outcomes=(rng.random(count) < 0.5).astype(float),
        sequences=Sequences(codes=codes, numbers=numbers),
    )


def tensors(study, patients):
    """Parameters moved off their first values, so that no bias is 0, and the patients."""
    first = flatten(initial_parameters(study))
    moved = first + 0.3 * np.random.default_rng(1).normal(size=first.shape)
    parameters = {
        name: torch.tensor(part)
        for name, part in unflatten(moved, initial_parameters(study)).items()
    }
    return parameters, batch_of(patients), torch.tensor(patients.outcomes, dtype=torch.float32)


def batch_of(patients):
    return Batch(
        torch.tensor(patients.features, dtype=torch.float32),
        torch.tensor(patients.sequences.codes, dtype=torch.int64),
        torch.tensor(patients.sequences.numbers),
    )


def one(batch, place):
    return Batch(
        batch.features[place : place + 1],
        batch.codes[place : place + 1],
        batch.numbers[place : place + 1],
    )


def slow(model, parameters, batch, outcomes, clip):
    """Each patient alone, by autograd to the parameters themselves."""
    total = {name: torch.zeros_like(part) for name, part in parameters.items()}
    for place in range(len(outcomes)):
        leaves = {name: part.clone().requires_grad_() for name, part in parameters.items()}
        alone = one(batch, place)
        log_odds = model(leaves, alone, Taps())
        loss = patient_losses(log_odds, alone.present, outcomes[place : place + 1]).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        norm = torch.sqrt(sum((part**2).sum() for part in gradients))
        scale = min(1.0, clip / float(norm))
        for name, part in zip(total, gradients, strict=True):
            total[name] += scale * part
    return total


@pytest.mark.parametrize("clip", [0.1, 1e6])
@pytest.mark.parametrize("family", FAMILIES)
def test_sums_equal_the_slow_loop(family, clip):
    study = plan(family)
    parameters, batch, outcomes = tensors(study, rows())
    found = clipped_sums(model_of(study), parameters, batch, outcomes, clip)
    expected = slow(model_of(study), parameters, batch, outcomes, clip)
    for name in parameters:
        assert np.asarray(found[name]) == pytest.approx(
            np.asarray(expected[name]), rel=1e-3, abs=1e-5
        ), name


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # torch's vmap
@pytest.mark.parametrize("family", FAMILIES)
def test_sums_equal_vmap(family):
    """torch.func.vmap(grad) without taps: another way to each patient's gradient."""
    study = plan(family)
    parameters, batch, outcomes = tensors(study, rows())
    model = model_of(study)

    class Untapped(Taps):
        def _kept(self, name, kind, values, out):
            return out

    def loss(leaves, features, codes, numbers, present, outcome):
        alone = object.__new__(Batch)
        alone.features, alone.codes = features[None], codes[None]
        alone.numbers, alone.present, alone.full = numbers[None], present[None], False
        return patient_losses(model(leaves, alone, Untapped()), present[None], outcome[None])[0]

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0, 0, 0))(
        parameters, batch.features, batch.codes, batch.numbers, batch.present, outcomes
    )
    norms = torch.sqrt(sum((part.flatten(1) ** 2).sum(1) for part in each.values()))
    scale = torch.clamp(0.2 / norms, max=1.0)
    found = clipped_sums(model, parameters, batch, outcomes, 0.2)
    for name, part in each.items():
        expected = torch.tensordot(scale, part, dims=1)
        assert np.asarray(found[name]) == pytest.approx(np.asarray(expected), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_predictions_in_numpy_are_the_models(family):
    study = plan(family)
    patients = rows(5)
    parameters, batch, _ = tensors(study, patients)
    with torch.no_grad():
        log_odds = model_of(study)(parameters, batch, Taps())
    if family == "network":
        present = batch.present.float()
        log_odds = (log_odds * present).sum(1) / present.sum(1)
    records = RecordRows(codes=patients.sequences.codes, numbers=patients.sequences.numbers)
    arrays = {name: part.numpy() for name, part in parameters.items()}
    found = scores_of(family, arrays, patients.features, records, study.model.heads)
    assert found == pytest.approx(log_odds.detach().numpy(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_many_patients_are_predicted_as_each_alone(family):
    """They are computed in parts, so that memory does not grow with the hospital."""
    study, patients = plan(family), rows(6, AT_ONCE + 3)
    parameters = initial_parameters(study)

    def scores(part):
        records = RecordRows(
            codes=patients.sequences.codes[part], numbers=patients.sequences.numbers[part]
        )
        heads = study.model.heads
        return scores_of(family, parameters, patients.features[part], records, heads)

    together = scores(slice(None))
    assert together.shape == (AT_ONCE + 3,)
    for place in (0, AT_ONCE - 1, AT_ONCE, AT_ONCE + 2):
        assert together[place] == pytest.approx(scores(slice(place, place + 1))[0])
    assert scores(slice(0, 0)).shape == (0,)


def mixes(model, parameters, batch, outcomes):
    """Whether changing the first patient changes another's own loss."""
    changed = Batch(batch.features.clone(), batch.codes, batch.numbers.clone())
    changed.features[0] += 3
    changed.numbers[0] += 3
    with torch.no_grad():
        before, after = (
            patient_losses(model(parameters, each, Taps()), each.present, outcomes)
            for each in (batch, changed)
        )
    return bool(((before - after)[1:].abs() > 1e-6).any())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_patient_enters_anothers_part(family):
    study = plan(family)
    parameters, batch, outcomes = tensors(study, rows(7))
    model = model_of(study)
    assert not mixes(model, parameters, batch, outcomes)

    def with_batch_statistics(parameters, batch, taps):
        centred = batch.features - batch.features.mean(0)
        return model(parameters, Batch(centred, batch.codes, batch.numbers), taps)

    assert mixes(with_batch_statistics, parameters, batch, outcomes)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_patient_who_is_not_finite_counts_as_zero(family, value):
    study = plan(family)
    patients = rows(3)
    features = patients.features.copy()
    features[4, 1] = value
    bad = TrainingRows(features=features, outcomes=patients.outcomes, sequences=patients.sequences)
    others = patients.where(np.arange(PATIENTS) != 4)
    parameters = initial_parameters(study)
    with np.errstate(all="ignore"):
        found, expected = (
            make_learner(study, each).exact(parameters, SeededNoise(1)) for each in (bad, others)
        )
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - expected) <= study.privacy.clipping_norm * (1 + 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_patient_moves_the_sum_by_no_more_than_the_clip_whatever_the_records(family):
    study = plan(family, clip=0.05)
    patients = rows(9)
    learner = make_learner(study, patients)
    assert isinstance(learner, ClippedSum)
    parameters = initial_parameters(study)
    assert {name: part.shape for name, part in parameters.items()} == parameter_shapes(study)
    whole = learner.exact(parameters, SeededNoise(1))
    for place in range(PATIENTS):
        fewer = make_learner(study, patients.where(np.arange(PATIENTS) != place))
        moved = np.linalg.norm(whole - fewer.exact(parameters, SeededNoise(1)))
        assert 0 < moved <= 0.05 * (1 + 1e-4)


def test_a_sampled_sum_is_over_a_poisson_sample_and_unbiased():
    study = plan("network", clip=10, sampling_rate=0.3)
    learner = make_learner(study, rows(2, 200))
    parameters = initial_parameters(study)
    everybody = make_learner(plan("network", clip=10), rows(2, 200)).exact(
        parameters, SeededNoise(1)
    )
    draws = [learner.exact(parameters, SeededNoise(seed)) for seed in range(60)]
    assert np.mean(draws, axis=0) / 0.3 == pytest.approx(
        everybody, abs=0.2 * float(np.abs(everybody).max())
    )
    assert np.std(draws, axis=0).max() > 0
