"""Virtual patients and in-silico trials: populations, arms, endpoints, and their analysis."""
