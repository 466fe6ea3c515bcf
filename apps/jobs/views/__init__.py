"""Pages about programs, runs and output checks: parse, call one action, redirect."""
