"""Refusals that several actions share, as sentences."""

from __future__ import annotations

from apps.core.errors import Denied, Invalid


def invalid(field: str, sentence: str, *, code: str = "invalid") -> Invalid:
    """One field that cannot be accepted."""
    return Invalid(code, sentence, "Correct it and send it again.", fields={field: [sentence]})


def not_for_yourself(what: str) -> Denied:
    return Denied(
        "separation_of_duties",
        f"You cannot {what} for yourself: nobody gives themselves rights here.",
        "Ask another operator to do it.",
    )


def choose_own_password() -> Denied:
    return Denied(
        "choose_own_password",
        "You still have the first password, which the operator of this portal chose and knows.",
        "Sign in at the portal's pages and choose your own password there. Then try again.",
    )
