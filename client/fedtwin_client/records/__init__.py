"""Reading a hospital's records into events."""
