"""The confidential computing enforcement policy of a container group: what its hardware measures as host data.

The policy names every container by the dm-verity root hash of each layer of its image. Those hashes come from the
image's bytes; this portal reads no registry, so it cannot make them. Two ways are open, and a third is not:

  a whole policy    as `az confcom acipolicygen` writes it: checked here (`checked`), used byte for byte
  layer hashes      as the same tool prints them, in a file of the operator's: the policy is rendered here (`render`)
  no hashes         refused. A policy without them would allow any image.

What is rendered says of everything but the containers what that tool's own policies say (azure-cli-extensions, confcom:
internal_config.json, customer_rego_policy.txt), because the platform's own steps have to pass it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured

# SHA-256 of the policy that allows everything, as the confidential clean room samples use it: never ours.
ALLOW_ALL = "73973b78d70cc68353426de188db5dfc57e5b766e399935fb73a61127ea26d20"
_HASH = re.compile(r"[0-9a-f]{64}")
_MUST_BE_FALSE = ("allow_dump_stacks", "allow_runtime_logging", "allow_unencrypted_scratch")
# Decisions of the framework that a policy must leave to it, or it decides nothing.
_POINTS = (
    "mount_device", "mount_overlay", "create_container", "unmount_device", "unmount_overlay", "exec_in_container",
    "exec_external", "shutdown_container", "signal_container_process", "plan9_mount", "plan9_unmount", "get_properties",
    "dump_stacks", "runtime_logging", "load_fragment", "scratch_mount", "scratch_unmount",
)  # fmt: skip

# The platform's own containers (they mount the secret volume) come by a fragment that Microsoft signs.
_PLATFORM = {
    "feed": "mcr.microsoft.com/aci/aci-cc-infra-fragment",
    "includes": ["containers", "fragments"],
    "issuer": "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.3",
    "minimum_svn": "1",
}

# What a container that is not privileged has, and what the runner keeps of it: enough to give each program a user id of
# its own, to end what is left of it and to remove its files. Tried: the sandbox's self-test passes with these and no more.
USUAL_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
)  # fmt: skip
CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_KILL")
DROPPED = tuple(name for name in USUAL_CAPABILITIES if name not in CAPABILITIES)

# The environment that the image itself sets (infra/runner/Containerfile, and PATH of its base).
IMAGE_ENVIRONMENT = (
    "PYTHONPATH=/opt/strongroom/sdk/src:/opt/strongroom",
    "PYTHONDONTWRITEBYTECODE=1",
    "PYTHONUNBUFFERED=1",
    "LANG=C.UTF-8",
    "PATH=/usr/local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)
IMAGE_FOLDER = "/opt/strongroom"
_PLATFORM_ENVIRONMENT = (
    "((?i)FABRIC)_.+=.+", "HOSTNAME=.+", "T(E)?MP=.+", "FabricPackageFileName=.+", "HostedServiceName=.+",
    "IDENTITY_API_VERSION=.+", "IDENTITY_HEADER=.+", "IDENTITY_SERVER_THUMBPRINT=.+", "azurecontainerinstance_restarted_by=.+",
)  # fmt: skip
PAUSE = ("/pause",)


@dataclass(frozen=True)
class Container:
    """One container that may run.

    layers: dm-verity root hashes, lowest layer first. env: (text or pattern, whether it is a regular expression).
    mounts: (destination, source pattern, "ro" or "rw"). no_new_privileges: as the group is asked for.
    """

    id: str
    name: str
    layers: tuple[str, ...]
    command: tuple[str, ...]
    env: tuple[tuple[str, bool], ...]
    mounts: tuple[tuple[str, str, str], ...] = ()
    working_dir: str = "/"
    capabilities: tuple[str, ...] = USUAL_CAPABILITIES
    no_new_privileges: bool = False
    stdio: bool = False

    def __post_init__(self) -> None:
        if not self.layers or not all(_HASH.fullmatch(layer) for layer in self.layers):
            raise ImproperlyConfigured(
                f"The policy's container {self.id!r} has no layer hashes, or one that is not 64 hexadecimal digits."
            )


def host_data(policy: str) -> str:
    """Hex SHA-256 of the policy's bytes: what the hardware's report shows, and what a release policy names."""
    return hashlib.sha256(policy.encode()).hexdigest()


def encoded(policy: str) -> str:
    return base64.b64encode(policy.encode()).decode()


def read(text: str) -> str:
    """A policy file, plain or as base64 on one line (the tool writes either)."""
    stripped = text.strip()
    if stripped.startswith("package policy"):
        return text
    try:
        return base64.b64decode(stripped, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise ImproperlyConfigured(
            "AZURE_ACI_CCE_POLICY_FILE holds neither a policy nor its base64."
        ) from None


def checked(policy: str, image: str) -> str:
    """The policy, unless it plainly allows more than this one image. Raises ImproperlyConfigured with the reason.

    This catches mistakes of an operator. What the policy really allows is decided by its hash in the custodian's release
    policy, which somebody has read.
    """

    def refuse(why: str) -> None:
        raise ImproperlyConfigured(f"AZURE_ACI_CCE_POLICY_FILE: {why}")

    if host_data(policy) == ALLOW_ALL:
        refuse("it is the policy that allows everything.")
    for name in _MUST_BE_FALSE:
        if not re.search(rf"^{name} := false$", policy, re.MULTILINE):
            refuse(f"it must say “{name} := false”.")
    found = re.search(r"^containers := (\[.*\])$", policy, re.MULTILINE)
    if found is None:
        refuse("it has no list of containers on one line.")
        raise AssertionError
    try:
        containers = json.loads(found.group(1))
    except ValueError:
        refuse("its list of containers cannot be read.")
    if not containers:
        refuse("it names no container.")
    for container in containers:
        layers = container.get("layers") or []
        if not layers or not all(isinstance(x, str) and _HASH.fullmatch(x) for x in layers):
            refuse("one of its containers has no layer hashes.")
        if container.get("allow_elevated"):
            refuse("one of its containers may be privileged.")
        if container.get("exec_processes"):
            refuse("commands may be run in one of its containers from outside.")
        # The pause container writes nothing, and the tool leaves it open.
        if container.get("allow_stdio_access") and container.get("command") != list(PAUSE):
            refuse("the output of one of its containers may be read from outside.")
    if image not in {container.get("id") for container in containers}:
        refuse(f"it does not name the runner's image {image}.")
    return policy


def render(
    containers: Sequence[Container], *, framework_version: str = "0.2.3", api_version: str = "0.10.0"
) -> str:
    """The policy for exactly these containers; the same input gives the same bytes, and so the same hash."""
    if not containers:
        raise ImproperlyConfigured("A policy for no container makes no sense.")
    listed = json.dumps([_container(c) for c in containers], separators=(",", ":"), sort_keys=True)
    lines = [
        "package policy",
        "",
        "import future.keywords.every",
        "import future.keywords.in",
        "",
        f'api_version := "{api_version}"',
        f'framework_version := "{framework_version}"',
        "",
        f"fragments := {json.dumps([_PLATFORM], separators=(',', ':'), sort_keys=True)}",
        "",
        f"containers := {listed}",
        "",
        "allow_properties_access := true",
        *(f"{name} := false" for name in _MUST_BE_FALSE),
        "allow_environment_variable_dropping := true",
        "allow_capability_dropping := true",
        "",
        *(f"{point} := data.framework.{point}" for point in _POINTS),
        "",
        'reason := {"errors": data.framework.errors}',
        "",
    ]
    return "\n".join(lines)


def containers_from(text: str, image: str, portal: str, token_folder: str) -> list[Container]:
    """The runner and the pause container, from the operator's file of layer hashes.

    {"runner": {"layers": [...], "command": [...]}, "pause": {"id": "...", "layers": [...], "command": [...]}}
    Raises ImproperlyConfigured for anything else.
    """
    try:
        document: Mapping[str, Any] = json.loads(text)
        runner, pause = document["runner"], document["pause"]
        if set(document) != {"runner", "pause"}:
            raise KeyError("other members")
        return [
            Container(
                id=image,
                name="runner",
                layers=tuple(runner["layers"]),
                command=tuple(runner["command"]),
                env=(
                    (f"STRONGROOM_PORTAL={portal}", False),
                    ("STRONGROOM_RUN=[0-9a-f-]{36}", True),
                    (f"STRONGROOM_TOKEN_FILE={token_folder}/token", False),
                    *((text, False) for text in IMAGE_ENVIRONMENT),
                    ("TERM=xterm", False),
                    *((pattern, True) for pattern in _PLATFORM_ENVIRONMENT),
                ),
                mounts=(
                    (token_folder, "sandbox:///tmp/atlas/secretsVolume/.+", "ro"),
                    ("/etc/resolv.conf", "sandbox:///tmp/atlas/resolvconf/.+", "rw"),
                ),
                working_dir=IMAGE_FOLDER,
                capabilities=CAPABILITIES,
                no_new_privileges=True,
            ),
            Container(
                id=str(pause["id"]),
                name="pause-container",
                layers=tuple(pause["layers"]),
                command=tuple(pause["command"]),
                env=(
                    ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", False),
                    ("TERM=xterm", False),
                ),
                stdio=True,
            ),
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ImproperlyConfigured(
            f"AZURE_ACI_LAYERS_FILE is not as docs/how-to/azure.md has it: {error}."
        ) from None


def _container(c: Container) -> dict[str, Any]:
    return {
        "allow_elevated": False,
        "allow_stdio_access": c.stdio,
        "capabilities": {
            "ambient": [],
            "inheritable": [],
            **{name: list(c.capabilities) for name in ("bounding", "effective", "permitted")},
        },
        "command": list(c.command),
        "env_rules": [
            {"pattern": pattern, "required": False, "strategy": "re2" if regex else "string"}
            for pattern, regex in c.env
        ],
        "exec_processes": [],
        "id": c.id,
        "layers": list(c.layers),
        "mounts": [
            {"destination": destination, "options": ["rbind", "rshared", options], "source": source, "type": "bind"}
            for destination, source, options in c.mounts
        ],
        "name": c.name,
        "no_new_privileges": c.no_new_privileges,
        "seccomp_profile_sha256": "",
        "signals": [],
        "user": {
            "group_idnames": [{"pattern": "", "strategy": "any"}],
            "umask": "0022",
            "user_idname": {"pattern": "", "strategy": "any"},
        },
        "working_dir": c.working_dir,
    }  # fmt: skip
