"""The door: fedtwin <party> …, and the demo."""
