"""HL7 v2: files and messages over MLLP, into events."""
