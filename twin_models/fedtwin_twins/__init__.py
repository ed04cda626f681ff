"""The science of the twins: models of organs, drugs, risk and response."""
