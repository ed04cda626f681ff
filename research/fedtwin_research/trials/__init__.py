"""In-silico trials for researchers: read a plan, run it, write a report that can be repeated."""
