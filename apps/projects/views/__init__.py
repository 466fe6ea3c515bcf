"""The pages, one file per aggregate."""
