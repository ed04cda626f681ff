"""What patients' own devices measured, into events."""
