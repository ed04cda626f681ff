"""Which schedule serves a patient best, within hard limits, and why."""
