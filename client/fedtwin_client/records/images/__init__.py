"""DICOM and NIfTI: images are kept, and what their series makes becomes events."""
