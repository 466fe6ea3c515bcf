"""The errors of a key broker. Each has a stable code for programs and a sentence for people; never a key or its bytes."""

from __future__ import annotations

from strongroom.errors import StrongroomError


class KeyStoreError(StrongroomError):
    """A key store that cannot be opened, reached or used.

    `code`: missing, exists, permissions, malformed, unreachable, refused, unknown_key, retired, not_installed.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class ReleaseError(StrongroomError):
    """A data key that cannot be opened or wrapped, though the decision was to release it. `dataset`: its id."""

    def __init__(self, dataset: str, sentence: str) -> None:
        super().__init__(sentence)
        self.dataset = dataset


class Refusal(StrongroomError):
    """What the broker's service says no to. `status`: of HTTP; `checks`: the failed ones, where evidence was judged."""

    def __init__(
        self, status: int, code: str, sentence: str, *, checks: list[dict[str, str]] | None = None
    ) -> None:
        super().__init__(sentence)
        self.status, self.code, self.checks = status, code, checks or []
