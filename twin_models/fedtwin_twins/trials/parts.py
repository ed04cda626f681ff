"""What all parts of a trial's plan have in common: frozen, complete, nothing unknown."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a plan: never changed, and a name that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
