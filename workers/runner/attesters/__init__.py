"""The environments that a runner can be told it is in, and the attester of each.

The environment is an argument of the command that starts the runner, fixed in the image or the launch. It is never
guessed from what is there, and none falls back to another: a machine that cannot attest as it was told ends its attempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom.image import runner_image
from workers.runner.attester import Attester, Facts, NoEvidence
from workers.runner.attesters import gcp, metadata
from workers.runner.attesters.azure_aci import SnpAttester
from workers.runner.attesters.azure_cvm import PCRS, VtpmAttester

SOFTWARE = "software"
ENVIRONMENTS = (SOFTWARE, "gcp", "azure-cvm", "azure-aci")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where this runner was told to be, and what its attester needs there.

    attester_key: key file of the software attester, for `software` only. gcp_metadata, azure_metadata: addresses of the
    metadata services. launcher: the launcher's socket on Google Cloud. pcrs: what the vTPM quotes on Azure.
    """

    name: str
    attester_key: Path | None = None
    launcher: Path = gcp.SOCKET
    gcp_metadata: str = metadata.GCP
    azure_metadata: str = metadata.AZURE
    pcrs: tuple[int, ...] = PCRS

    def __post_init__(self) -> None:
        if self.name not in ENVIRONMENTS:
            raise ValueError(f"{self.name!r} is none of {', '.join(ENVIRONMENTS)}")
        if (self.name == SOFTWARE) != (self.attester_key is not None):
            raise ValueError("The software environment, and no other, takes an attester key.")

    @property
    def hardware(self) -> bool:
        return self.name != SOFTWARE

    def image(self, manifest: dict[str, Any], root: Path) -> str:
        """The `image` of contexts and statements.

        An image cannot hold its own digest: on hardware the runner repeats what the manifest asks for, and the evidence
        shows what really runs. The software runner hashes its own files below `root`, which shows nothing to others.
        """
        return str(manifest["image"]) if self.hardware else runner_image(root)

    def attester(self, facts: Facts) -> Attester:
        """The attester of this environment. Raises NoEvidence where the environment is not what it should be."""
        match self.name:
            case "gcp":
                return gcp.LauncherAttester(self.launcher, audience=facts.portal)
            case "azure-cvm":
                return VtpmAttester(manifest=facts.manifest, pcrs=self.pcrs, metadata=self.azure_metadata)
            case "azure-aci":
                return SnpAttester.from_environment()
            case "software" if self.attester_key is not None:
                # Loaded here alone, so that no other environment has the software attester at hand.
                from workers.runner.attesters.software import SoftwareAttester

                return SoftwareAttester(self.attester_key, image=facts.image, instance=facts.instance)
        raise NoEvidence(f"There is no attester for the environment {self.name}.")


__all__ = ["ENVIRONMENTS", "SOFTWARE", "Environment"]
