"""What hospitals learn together of a population: bounded sums in, values with errors out."""
