"""What waits for a person: the rows of their home page. Each app's queries.waiting_for(user) returns these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """One thing that waits. `heading` groups ("Ethics reviews"), `text` names it, `url` leads there."""

    heading: str
    text: str
    url: str
    state: str = ""
    colour: str = "blue"
    note: str = ""
