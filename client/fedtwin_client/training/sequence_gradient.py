"""Clipped sums of the families that read records: one patient is one item, however many records.

A patient's loss is the logistic loss of their log-odds or, for a network that has one for each
record, its mean over the patient's own records.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fedtwin_client.training.sequence_models import Batch, Model, network, recurrent, transformer
from fedtwin_client.training.taps import Taps
from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.payload import Array
from fedtwin_protocol.study import StudyPlan

Tensor = torch.Tensor
AT_ONCE: Final = 128
"""Patients computed together; bounds the memory, and changes nothing else."""


class SequenceGradient:
    """Sum over patients of clipped gradients; the plan names family and clipping norm."""

    def __init__(self, plan: StudyPlan) -> None:
        self._clipping_norm = plan.privacy.clipping_norm
        self._model = model_of(plan)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, rows: TrainingRows, parameters: Mapping[str, Array]) -> Array:
        """(values,), float32, in the parameters' order."""
        tensors = {
            name: torch.as_tensor(np.array(array), device=self._device)
            for name, array in parameters.items()
        }
        total = torch.zeros(sum(part.numel() for part in tensors.values()), device=self._device)
        for start in range(0, len(rows), AT_ONCE):
            batch, outcomes = self._batch(rows, slice(start, start + AT_ONCE))
            sums = clipped_sums(self._model, tensors, batch, outcomes, self._clipping_norm)
            total += torch.cat([part.reshape(-1) for part in sums.values()])
        return total.cpu().numpy()

    def _batch(self, rows: TrainingRows, part: slice) -> tuple[Batch, Tensor]:
        assert rows.sequences is not None
        device = self._device
        batch = Batch(
            torch.as_tensor(rows.features[part], dtype=torch.float32, device=device),
            torch.as_tensor(rows.sequences.codes[part], dtype=torch.int64, device=device),
            torch.as_tensor(rows.sequences.numbers[part], dtype=torch.float32, device=device),
        )
        return batch, torch.as_tensor(rows.outcomes[part], dtype=torch.float32, device=device)


def model_of(plan: StudyPlan) -> Model:
    """The model of a plan's family."""
    if plan.model.family == "transformer":
        return transformer(plan.model.heads)
    return network if plan.model.family == "network" else recurrent


def patient_losses(log_odds: Tensor, present: Tensor, outcomes: Tensor) -> Tensor:
    """Each patient's own loss, (patients,)."""
    if log_odds.dim() == 1:
        return binary_cross_entropy_with_logits(log_odds, outcomes, reduction="none")
    labels = outcomes[:, None].expand_as(log_odds)
    each = binary_cross_entropy_with_logits(log_odds, labels, reduction="none")
    return torch.where(present, each, 0.0).sum(1) / present.sum(1)


def clipped_sums(
    model: Model,
    parameters: Mapping[str, Tensor],
    batch: Batch,
    outcomes: Tensor,
    clipping_norm: float,
) -> dict[str, Tensor]:
    """Sums over patients of clipped gradients, by parameter name and of its shape.

    Args:
        model: a family's.
        parameters: by name.
        batch: the patients.
        outcomes: 0 or 1, (patients,).
        clipping_norm: largest norm of a patient's contribution, over all parameters together.
    """
    taps = Taps()
    losses = patient_losses(model(parameters, batch, taps), batch.present, outcomes)
    return taps.clipped_sums(losses, parameters, clipping_norm)
