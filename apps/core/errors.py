"""The four ways an act can fail. Each is a sentence for the person who asked, with what to do next."""

from __future__ import annotations


class DomainError(Exception):
    """Base. `code` is stable and for programs; `detail` says what happened and why; `remedy` what to do next."""

    status = 400
    title = "Something is wrong with the request"

    def __init__(self, code: str, detail: str, remedy: str = "", **extra: object) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.remedy = remedy
        self.extra = extra

    def as_dict(self) -> dict[str, object]:
        return {"code": self.code, "detail": self.detail, "remedy": self.remedy, **self.extra}


class Denied(DomainError):
    """The person may not do this (403)."""

    status = 403
    title = "You cannot do this"


class Conflict(DomainError):
    """Somebody else was first, or the state does not allow it any more (409)."""

    status = 409
    title = "This has changed in the meantime"


class Invalid(DomainError):
    """What was sent cannot be accepted (422). `fields` maps a field name to its sentences."""

    status = 422
    title = "There is a problem with what you sent"

    def __init__(
        self,
        code: str,
        detail: str,
        remedy: str = "",
        *,
        fields: dict[str, list[str]] | None = None,
        **extra: object,
    ) -> None:
        super().__init__(code, detail, remedy, **extra)
        self.fields = fields or {}

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "fields": self.fields}


class NotFound(DomainError):
    """It does not exist, or this person may not know that it does (404): the two look the same on purpose."""

    status = 404
    title = "Page not found"

    def __init__(self, what: str = "page") -> None:
        super().__init__(
            "not_found",
            f"There is no such {what}, or you are not entitled to see it.",
            "Check the address, or ask the person who sent you the link.",
        )


class GateClosed(Denied):
    """A run may not go on. `conditions` lists every unmet condition, not only the first."""

    title = "This run cannot start yet"

    def __init__(self, conditions: list[dict[str, str]]) -> None:
        detail = "; ".join(c["detail"] for c in conditions)
        super().__init__(
            "gate_closed", detail, "Resolve each condition listed, then try again.", conditions=conditions
        )


def unstorable() -> Invalid:
    """What the database refused to hold or to look for (DataError): a NUL character, a number beyond its range."""
    return Invalid(
        "unstorable",
        "What was sent holds a character or a number that cannot be stored.",
        "Take it out and send it again.",
    )
