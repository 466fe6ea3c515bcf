"""Each cloud's fake with the real client and our backend pointed at it, under one face for tests of all of them."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from apps.jobs.models import Run
from apps.jobs.sizes import Size
from tests.fakes.arm import CONTAINERS, DISK, NIC, VM, ArmFake
from tests.fakes.compute import ComputeFake
from tests.fakes.k8s import ClusterFake
from tests.fakes.server import Fake
from workers.backends.base import Unsettled
from workers.backends.cloud import CloudBackend, Common

IMAGE = "registry.example/strongroom/runner@sha256:" + "ab" * 32


def sizes(small: str, tiny: str) -> dict[str, Size]:
    return {
        "small": Size("small", small, 4, 16, pence_per_hour=20, price_source="price list, 1 Nov 2026"),
        "tiny": Size("tiny", tiny, 2, 4),
    }


def common(fake: Fake, installation: str = "0123456789ab", **changes: Any) -> Common:
    return Common(
        **{
            "installation": installation,
            "portal": "https://portal.example",
            "image": IMAGE,
            "lifetime": timedelta(hours=3),
            "clock": fake.clock,
            "sizes": sizes("", ""),
            **changes,
        }
    )


class World:
    """`left()`: the names of everything in the cloud, as (kind, name)."""

    name: str
    fake: Any
    settle_seconds = 60.0
    quota: dict[str, Any]  # a synchronous refusal for want of quota
    capacity: dict[str, Any]
    transient: list[dict[str, Any]]  # refusals that another look resolves
    failures: list[str] = []  # with which an operation that was accepted ends
    methods = ("GET", "POST", "DELETE")  # of the requests that come

    def __init__(self) -> None:
        self.backend = self.new_backend()

    def new_backend(self, installation: str = "0123456789ab") -> CloudBackend[Any, Any]:
        """As after a worker's restart. It waits by the cloud's clock, and sweeps whenever it is told to."""
        made = self._made(installation)
        made.sweep_every, made.ticks = 0.0, lambda: float(self.fake.now.timestamp())
        return made

    def _made(self, installation: str) -> CloudBackend[Any, Any]:
        raise NotImplementedError

    def left(self) -> set[tuple[str, str]]:
        raise NotImplementedError

    def machines(self) -> list[str]:
        raise NotImplementedError

    def token_of(self, machine: str) -> str:
        raise NotImplementedError

    def __enter__(self) -> World:
        return self

    def __exit__(self, *args: object) -> None:
        self.fake.close()

    def leave_a_part(self, run: Run) -> None:
        """A launch that failed and left something of the machine, but no machine."""
        raise NotImplementedError

    def is_on(self, machine: str) -> bool:
        raise NotImplementedError

    def take_back(self, machine: str) -> None:
        """Have the cloud end a machine that is on, as it may."""
        raise NotImplementedError

    def started(self, run: Run, token: str = "token-1") -> None:
        """Launched and on."""
        self.backend.launch(run, token)
        self.fake.pass_time(self.settle_seconds)


class GcpWorld(World):
    name = "gcp"
    quota = {"kind": "answer", "status": 403, "code": "quotaExceeded", "message": "Quota 'CPUS' exceeded."}
    capacity = {"kind": "operation", "code": "ZONE_RESOURCE_POOL_EXHAUSTED", "methods": ("POST",)}
    failures = ["ZONE_RESOURCE_POOL_EXHAUSTED", "QUOTA_EXCEEDED", "INTERNAL_ERROR"]
    transient = [
        {"status": 503, "code": "backendError"},
        {"status": 500, "code": "internalError"},
        {"status": 429, "code": "rateLimitExceeded"},
        {"status": 403, "code": "rateLimitExceeded"},
        {"status": 409, "code": "resourceInUseByAnotherResource"},
    ]

    def __init__(self, **config: Any) -> None:
        self.fake = ComputeFake()
        self.config = config
        super().__init__()

    def _made(self, installation: str) -> CloudBackend[Any, Any]:
        from google.auth.credentials import Credentials

        from workers.backends.gcp import Clients, Config, GcpBackend

        config = Config(
            **{
                "project": "trial",
                "zone": "europe-west2-a",
                "subnet": "projects/trial/regions/europe-west2/subnetworks/runs",
                "source_image": "projects/confidential-space-images/global/images/confidential-space-260900",
                "service_account": "runner@trial.iam.gserviceaccount.com",
                "confidential_type": "SEV",
                **self.config,
            }
        )

        class FakeCredentials(Credentials):  # type: ignore[misc]
            """Renewed whenever it is asked for: after a 401 the client does, and asks again by itself, twice."""

            def refresh(self, request: Any) -> None:
                self.token = "fake"

        clients = Clients(
            {"credentials": FakeCredentials(), "client_options": {"api_endpoint": self.fake.url}}
        )
        backend = GcpBackend(
            common(self.fake, installation, sizes=sizes("n2d-standard-4", "n2d-standard-2")), config, clients
        )
        return backend

    def left(self) -> set[tuple[str, str]]:
        return {("instance", n) for n in self.fake.instances} | {("disk", n) for n in self.fake.disks}

    def machines(self) -> list[str]:
        return list(self.fake.instances)

    def token_of(self, machine: str) -> str:
        items = {i["key"]: i["value"] for i in self.fake.instances[machine].body["metadata"]["items"]}
        return items["strongroom-token"]

    def is_on(self, machine: str) -> bool:
        return machine in self.fake.instances and self.fake.instances[machine].status == "RUNNING"

    def take_back(self, machine: str) -> None:
        self.fake.preempt(machine)

    def leave_a_part(self, run: Run) -> None:
        self.fake.leave_disk = True
        self.fake.fault("operation", code="INTERNAL_ERROR", methods=("POST",))
        self.backend.launch(run, "t")
        self.fake.pass_time(self.settle_seconds)


SUBNET = "/subscriptions/s/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/v/subnets/runs"


def arm_options(fake: ArmFake) -> dict[str, Any]:
    """The real clients, pointed at the fake. The usual policy refuses to send a token over plain HTTP, rightly."""
    from azure.core.credentials import AzureKeyCredential
    from azure.core.pipeline.policies import AzureKeyCredentialPolicy

    policy = AzureKeyCredentialPolicy(AzureKeyCredential("fake"), "Authorization", prefix="Bearer")
    return {"base_url": fake.url, "authentication_policy": policy}


class FakeCredential:
    """Never asked: the policy above stands in for it."""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        raise AssertionError("no token is due here")


class AzureWorld(World):
    name, kind = "azure", VM
    quota = {
        "kind": "answer", "status": 409, "code": "OperationNotAllowed", "part": "virtualMachines",
        "message": "Operation could not be completed as it results in exceeding approved standardDCASv5Family Cores quota.",
    }  # fmt: skip
    capacity = {"kind": "operation", "code": "AllocationFailed", "part": "virtualMachines"}
    methods = ("GET", "PUT", "DELETE")
    failures = ["AllocationFailed", "OSProvisioningTimedOut", "QuotaExceeded"]
    transient = [
        {"status": 503, "code": "ServerBusy"},
        {"status": 500, "code": "InternalServerError"},
        {"status": 429, "code": "TooManyRequests"},
        {"status": 409, "code": "AnotherOperationInProgress"},
        {"status": 400, "code": "NicReservedForAnotherVm"},
    ]

    def __init__(self, **config: Any) -> None:
        self.fake = ArmFake()
        self.config = config
        super().__init__()

    def _made(self, installation: str) -> CloudBackend[Any, Any]:
        from workers.backends.azure import AzureBackend, Clients, Config

        config = Config(
            **{
                "subscription": self.fake.subscription,
                "resource_group": "runs",
                "location": "uksouth",
                "subnet": SUBNET,
                "image": "Canonical:0001-com-ubuntu-confidential-vm-jammy:22_04-lts-cvm:22.04.202609010",
                **self.config,
            }
        )
        clients = Clients(self.fake.subscription, FakeCredential(), arm_options(self.fake))
        backend = AzureBackend(
            common(self.fake, installation, sizes=sizes("Standard_DC4as_v5", "Standard_DC2as_v5")),
            config,
            clients,
        )
        return backend

    def left(self) -> set[tuple[str, str]]:
        return {(kind.rpartition("/")[2], name) for kind, name in self.fake.resources}

    def machines(self) -> list[str]:
        return [name for kind, name in self.fake.resources if kind == self.kind]

    def token_of(self, machine: str) -> str:
        data = self.fake.resources[VM, machine].body["properties"]["userData"]
        return json.loads(base64.b64decode(data))["token"]

    def is_on(self, machine: str) -> bool:
        found = self.fake.resources.get((self.kind, machine))
        return found is not None and (found.state, found.power) == ("Succeeded", "running")

    def take_back(self, machine: str) -> None:
        (self.fake.evict if self.kind == VM else self.fake.stop)(machine)

    def leave_a_part(self, run: Run) -> None:
        self.started(run)
        self.fake.leave_parts = {NIC, DISK}
        with contextlib.suppress(Unsettled):
            self.backend.destroy(run)
        self.fake.pass_time(self.settle_seconds)


class AciWorld(AzureWorld):
    name, kind = "azure-aci", CONTAINERS
    quota = {
        "kind": "answer", "status": 409, "code": "ContainerGroupQuotaReached", "part": "containerGroups",
        "message": "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota exceeded.",
    }  # fmt: skip
    capacity = {
        "kind": "answer", "status": 409, "code": "ServiceUnavailable", "part": "containerGroups",
        "message": "The requested resource is not available in the location 'uksouth' at this moment.",
    }  # fmt: skip
    failures = ["ServiceUnavailable", "InternalError"]
    transient = [
        {"status": 503, "code": "ServiceUnavailable"},
        {"status": 500, "code": "InternalServerError"},
        {"status": 429, "code": "TooManyRequests"},
        {"status": 409, "code": "ContainerGroupTransitioning"},
    ]

    def _made(self, installation: str) -> CloudBackend[Any, Any]:
        from workers.backends import cce
        from workers.backends.azure_aci import AciBackend, Clients, Config

        runner = cce.Container(IMAGE, "runner", ("cd" * 32,), ("/runner",), (("PATH=.+", True),))
        config = Config(
            **{
                "subscription": self.fake.subscription,
                "resource_group": "runs",
                "location": "uksouth",
                "subnet": SUBNET,
                "policy": cce.render([runner]),
                **self.config,
            }
        )
        clients = Clients(self.fake.subscription, FakeCredential(), arm_options(self.fake))
        backend = AciBackend(common(self.fake, installation), config, clients)
        return backend

    def token_of(self, machine: str) -> str:
        volumes = self.fake.resources[CONTAINERS, machine].body["properties"]["volumes"]
        return base64.b64decode(volumes[0]["secret"]["token"]).decode()

    def leave_a_part(self, run: Run) -> None:
        """It has no parts: a group that was never taken away stands in for them."""
        raise NotImplementedError


class KubernetesWorld(World):
    name = "kubernetes"
    quota = {
        "kind": "answer", "status": 403, "code": "Forbidden", "part": "/jobs",
        "message": 'jobs.batch is forbidden: exceeded quota: runs, requested: count/jobs.batch=1',
    }  # fmt: skip
    methods = ("GET", "POST", "PATCH", "DELETE")
    transient = [
        {"status": 503, "code": "ServiceUnavailable"},
        {"status": 500, "code": "InternalError"},
        {"status": 504, "code": "Timeout"},
        {"status": 429, "code": "TooManyRequests"},
        {"status": 409, "code": "Conflict"},
    ]

    def __init__(self, **config: Any) -> None:
        self.fake = ClusterFake()
        self.config = config
        super().__init__()

    @property
    def capacity(self) -> dict[str, Any]:  # type: ignore[override]
        """No node has room; found out when the pod has waited for one."""
        self.fake.room, self.settle_seconds = False, 400.0
        return {"kind": "none"}

    def _made(self, installation: str) -> CloudBackend[Any, Any]:
        from kubernetes.client import Configuration

        from workers.backends.kubernetes import Clients, Config, KubernetesBackend

        config = Config(**{"namespace": "runs", "portal_cidrs": ("192.0.2.0/24",), **self.config})
        where = Configuration()
        where.host, where.api_key = self.fake.url, {"authorization": "Bearer fake"}
        backend = KubernetesBackend(
            common(self.fake, installation, sizes=sizes("", "")), config, Clients(where)
        )
        return backend

    def left(self) -> set[tuple[str, str]]:
        return set(self.fake.objects)

    def machines(self) -> list[str]:
        return [name for kind, name in self.fake.objects if kind == "jobs"]

    def token_of(self, machine: str) -> str:
        return base64.b64decode(self.fake.objects["secrets", machine]["data"]["token"]).decode()

    def is_on(self, machine: str) -> bool:
        pod = self.fake.objects.get(("pods", f"{machine}-x7k2p"))
        return pod is not None and pod["status"].get("phase") == "Running" and machine in self.machines()

    def take_back(self, machine: str) -> None:
        self.fake.evict(machine)

    def leave_a_part(self, run: Run) -> None:
        self.started(run)
        self.fake.collects = set()
        with contextlib.suppress(Unsettled):
            self.backend.destroy(run)
        self.fake.pass_time(self.settle_seconds)


WORLDS: dict[str, Callable[[], World]] = {
    "azure": AzureWorld, "azure-aci": AciWorld, "gcp": GcpWorld, "kubernetes": KubernetesWorld,
}  # fmt: skip
