"""ViewDefinitions of SQL on FHIR v2 (sql-on-fhir.org): tables made of FHIR resources."""
