"""The text of a data access agreement: one versioned template, filled once, frozen by its hash.

The headings are the union of what UK agreements hold (HDR UK Alliance standard data access agreement; NHS England
data sharing agreement standards). A first, short form: a custodian's lawyers will want their own.
"""

from __future__ import annotations

import hashlib

from apps.datasets.models import AccessRequest, DatasetVersion

TEMPLATE = "strongroom-daa-1"


def render(request: AccessRequest, version: DatasetVersion | None, *, starts_on: str, ends_on: str) -> str:
    """The agreement as plain text, exactly as both sides will sign it."""
    project, dataset = request.project, request.dataset
    columns = ", ".join(
        f["name"] for f in (version.dictionary if version else dataset.dictionary).get("fields", [])
    )
    conditions = request.conditions.strip() or "None."
    return f"""DATA ACCESS AGREEMENT ({TEMPLATE})

1. Parties
   Custodian: {dataset.custodian.name}
   User organisation: {project.organisation.name}

2. Project
   {project.ref}: {project.title}
   Purpose as applied for: {request.purpose.strip()}

3. Data
   {dataset.title} (“{dataset.slug}”)
   Columns: {columns}
   Real personal data: {"yes" if dataset.personal_data else "no"}

4. Term
   From {starts_on} to {ends_on}, both included.

5. How the data may be used
   Only by members of the project, only for its purpose, and only by programs that the
   custodian has approved.
   Programs run in the custodian's permitted environment, as its release policy for the data
   demands of the evidence.
   Nobody receives the data themselves. Stand-in data may be downloaded by the project's
   members for this project only.

6. Outputs
   Outputs leave only after two output checkers, in no relation to the project, approved them.

7. Duties of the user organisation
   It does not try to identify anybody, does not link the data with others beyond the
   purpose, does not pass on stand-in data, reports any incident to the custodian within one
   working day, and names the custodian in publications.

8. Stopping
   The custodian may suspend or end the use at any time. Runs under way are then stopped and
   no key is released.

9. Audit
   Every decision, key release and release of outputs is entered in the portal's append-only
   log. Both sides may have it verified.

10. Conditions of the custodian
   {conditions}
"""


def digest(body: str) -> str:
    """SHA-256 of the text, which is what is signed."""
    return hashlib.sha256(body.encode()).hexdigest()
