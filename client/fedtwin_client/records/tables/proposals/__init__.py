"""Proposed mappings: what a hospital's table may mean, for a person to review."""
