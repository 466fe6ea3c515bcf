"""Forms of the datasets app."""
