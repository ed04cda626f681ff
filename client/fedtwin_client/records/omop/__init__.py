"""OMOP databases, whatever holds them, into events."""
