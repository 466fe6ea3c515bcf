"""Amounts of money in words, alike on pages and the command line."""

from __future__ import annotations


def in_pounds(pence: int | None) -> str:
    """£12.34, or words for a cost that is not known."""
    return "not known" if pence is None else f"£{pence // 100:,}.{pence % 100:02d}"
