"""What is believed of one patient: the posterior of a twin model's effects, and what follows."""
