"""Codes and units: the tables that say what they mean, and what is plausible."""
