"""FHIR R4: files, servers and what is posted here, into events."""
