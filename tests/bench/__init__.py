"""Measurements behind `make bench`. Nothing here passes or fails a build: the table says what was met and what was not."""
