"""What a machine is told by whoever started it: which portal, which run, and the token that works once.

None of it is secret but the token, and none of it is believed: the portal must show the manifest with the stated hash, and
the evidence names the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.runner.attester import NoEvidence
from workers.runner.attesters import Environment, metadata

PORTAL, RUN, TOKEN_FILE = "STRONGROOM_PORTAL", "STRONGROOM_RUN", "STRONGROOM_TOKEN_FILE"
ATTESTER_KEY_FILE = "STRONGROOM_ATTESTER_KEY_FILE"
MAX_TOKEN_FILE = 1024


@dataclass(frozen=True, slots=True)
class Told:
    """run: empty where the machine was not told which run it is for."""

    portal: str
    token: str
    run: str = ""


def told(
    environment: Environment, environ: Mapping[str, str], *, portal: str = "", token_file: Path | None = None
) -> Told:
    """From the arguments, else from the place that the environment has for it:

    gcp        variables STRONGROOM_PORTAL, STRONGROOM_RUN (measured); token: this machine's metadata
    azure-cvm  all three: this machine's user data
    azure-aci, software: the variables; token: the file that STRONGROOM_TOKEN_FILE names

    Raises NoEvidence (something is missing or malformed), OSError (the token file of the arguments).
    """
    if token_file is not None:
        token = token_file.read_text().strip()
        token_file.unlink()
        return _checked(environment, portal or environ.get(PORTAL, ""), token, environ.get(RUN, ""))
    if environment.name == "azure-cvm":
        data = metadata.azure_user_data(environment.azure_metadata)
        return _checked(environment, portal or data["portal"], data["token"], data["run"])
    if environment.name == "gcp":
        token = metadata.gcp_launch_token(environment.gcp_metadata)
    else:
        token = _mounted(environ.get(TOKEN_FILE, ""))
    return _checked(environment, portal or environ.get(PORTAL, ""), token, environ.get(RUN, ""))


def _mounted(name: str) -> str:
    """The token from a file that the platform mounts: read-only, so it stays; it works once, and no program sees it."""
    if not name:
        raise NoEvidence(f"There is no launch token: --token-file or {TOKEN_FILE}.")
    try:
        with Path(name).open("rb") as reader:
            return metadata.one_line(reader.read(MAX_TOKEN_FILE), name)
    except OSError as error:
        raise NoEvidence(f"The launch token {name} cannot be read ({error.strerror}).") from None


def _checked(environment: Environment, portal: str, token: str, run: str) -> Told:
    if not portal:
        raise NoEvidence(f"The portal's address is missing: --portal or {PORTAL}.")
    # Loopback is for tests, and for a TLS proxy beside the runner: no network carries it.
    here = portal.startswith(("http://127.0.0.1:", "http://localhost:"))
    if environment.hardware and not portal.startswith("https://") and not here:
        raise NoEvidence("The portal's address must begin with https://.")
    return Told(portal, token, run)
