"""Pages of the datasets app."""
