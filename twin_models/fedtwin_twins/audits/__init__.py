"""Audits of private learning: statistics that find out whether a promise of privacy is kept."""
