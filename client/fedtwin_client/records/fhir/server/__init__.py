"""FHIR servers as a source: exports (Bulk Data), paged searches, and asking again and again."""
