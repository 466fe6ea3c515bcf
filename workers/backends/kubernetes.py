"""Kubernetes: a Job per run, with its token in a Secret and a network policy that lets out to the portal only.

    Job <machine>             made suspended, so that no pod exists before the two below do; then let go
    Secret <machine>          the one-time token and the key of the software attester, owned by the Job
    NetworkPolicy <machine>   no way in, and out to the portal's addresses only; owned by the Job

The evidence is software evidence, which protects nothing, whatever the runtime class: a pod has no attester of
confidential containers in this version, and SOFTWARE_BACKENDS in the settings says so.
"""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import kubernetes as library
import urllib3
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from kubernetes import client as k8s

from apps.core.keys import key_file
from apps.jobs.models import Run
from apps.jobs.sizes import GIB, Size
from workers.backends.base import BackendError, Sight, Unsettled
from workers.backends.cloud import INSTALLATION, TIMEOUT, CloudBackend, Common, Found, present, require_digest

T = TypeVar("T")
MACHINE_LABEL = "strongroom-machine"
TOKEN_FOLDER, WORK_FOLDER = "/run/strongroom", "/work"
# A pod that finds no node for so long counts as missing capacity.
UNSCHEDULABLE = timedelta(minutes=5)
# A finished Job removes itself after this, whatever becomes of the portal.
KEEP_FINISHED_SECONDS = 3600


@dataclass(frozen=True)
class Config:
    """`portal_cidrs`: where the portal and the object store are, as networks. `portal_ip`: with it, no name is looked up.

    kubeconfig: a file; "" inside a cluster. runtime_class: "" for a cluster without confidential containers.
    """

    namespace: str
    portal_cidrs: tuple[str, ...]
    portal_ip: str = ""
    runtime_class: str = ""
    kubeconfig: str = ""
    context: str = ""
    service_account: str = "default"
    pull_secret: str = ""
    gpu_resource: str = "nvidia.com/gpu"

    def __post_init__(self) -> None:
        if not self.namespace:
            raise ImproperlyConfigured("Set STRONGROOM_KUBERNETES_NAMESPACE to a namespace for runs only.")
        if not self.portal_cidrs:
            raise ImproperlyConfigured(
                "Set STRONGROOM_KUBERNETES_PORTAL_CIDRS: the networks of portal and object store, which a run may reach."
            )
        try:
            networks = [ipaddress.ip_network(cidr) for cidr in self.portal_cidrs]
            if self.portal_ip:
                ipaddress.ip_address(self.portal_ip)
        except ValueError as error:
            raise ImproperlyConfigured(f"STRONGROOM_KUBERNETES_PORTAL_CIDRS or _IP: {error}.") from None
        if any(network.prefixlen == 0 for network in networks):
            raise ImproperlyConfigured(
                "STRONGROOM_KUBERNETES_PORTAL_CIDRS lets runs out to everywhere; name the portal's networks only."
            )


@dataclass
class Clients:
    """The provider's client. `configuration`: where the cluster is and how to be let in."""

    configuration: k8s.Configuration
    api: k8s.ApiClient = field(init=False)

    def __post_init__(self) -> None:
        self.configuration.retries = False  # the engine owns every retry
        self.api = k8s.ApiClient(self.configuration)
        self.jobs = k8s.BatchV1Api(self.api)
        self.core = k8s.CoreV1Api(self.api)
        self.policies = k8s.NetworkingV1Api(self.api)

    @classmethod
    def of(cls, config: Config) -> Clients:
        configuration = k8s.Configuration()
        if config.kubeconfig:
            library.config.load_kube_config(
                config.kubeconfig, config.context or None, client_configuration=configuration
            )
        else:
            library.config.load_incluster_config(client_configuration=configuration)
        return cls(configuration)


class KubernetesBackend(CloudBackend):
    """Jobs in one namespace of one cluster."""

    def __init__(self, common: Common, config: Config, clients: Clients | None = None) -> None:
        require_digest(common.image)
        self.common, self.config, self._clients = common, config, clients
        self._call: dict[str, Any] = {"_request_timeout": TIMEOUT}

    @classmethod
    def from_settings(cls) -> KubernetesBackend:
        return cls(
            Common.from_settings("kubernetes", cls.first_call),
            Config(**cast(dict[str, Any], settings.KUBERNETES)),
        )

    @property
    def clients(self) -> Clients:
        if self._clients is None:
            self._clients = Clients.of(self.config)
        return self._clients

    def _create(self, run: Run, machine: str, token: str) -> None:
        space, tags = self.config.namespace, {**self._tags(run), MACHINE_LABEL: machine}
        job = self._job(machine)
        if job is None:
            made = self._body(run, machine, tags, self._size(run))
            job = _unless_there(
                lambda: self.clients.jobs.create_namespaced_job(
                    space, made, field_validation="Strict", **self._call
                )
            )
            job = job or self._job(machine)
        if job is None:
            raise BackendError("cloud_rejected", f"{machine} is somebody else's name.")
        if not job.spec.suspend:
            return  # let go before: this call is a repetition
        owned = k8s.V1ObjectMeta(
            name=machine,
            labels=tags,
            owner_references=[
                k8s.V1OwnerReference(api_version="batch/v1", kind="Job", name=machine, uid=job.metadata.uid)
            ],
        )
        secret = k8s.V1Secret(
            metadata=owned,
            type="Opaque",
            string_data={"token": token},
            data={"attester-key": base64.b64encode(key_file("software-attester").read_bytes()).decode()},
            immutable=True,
        )
        _unless_there(
            lambda: self.clients.core.create_namespaced_secret(
                space, secret, field_validation="Strict", **self._call
            )
        )
        policy = k8s.V1NetworkPolicy(metadata=owned, spec=self._network(machine))
        _unless_there(
            lambda: self.clients.policies.create_namespaced_network_policy(
                space, policy, field_validation="Strict", **self._call
            )
        )
        self.clients.jobs.patch_namespaced_job(machine, space, {"spec": {"suspend": False}}, **self._call)

    def _network(self, machine: str) -> k8s.V1NetworkPolicySpec:
        out = [
            k8s.V1NetworkPolicyEgressRule(
                to=[
                    k8s.V1NetworkPolicyPeer(ip_block=k8s.V1IPBlock(cidr=c)) for c in self.config.portal_cidrs
                ],
                ports=[k8s.V1NetworkPolicyPort(protocol="TCP", port=_port(self.common.portal))],
            )
        ]
        if not self.config.portal_ip:
            cluster_dns = k8s.V1NetworkPolicyPeer(
                namespace_selector=k8s.V1LabelSelector(
                    match_labels={"kubernetes.io/metadata.name": "kube-system"}
                ),
                pod_selector=k8s.V1LabelSelector(match_labels={"k8s-app": "kube-dns"}),
            )
            ports = [k8s.V1NetworkPolicyPort(protocol=p, port=53) for p in ("UDP", "TCP")]
            out.append(k8s.V1NetworkPolicyEgressRule(to=[cluster_dns], ports=ports))
        return k8s.V1NetworkPolicySpec(
            pod_selector=k8s.V1LabelSelector(match_labels={MACHINE_LABEL: machine}),
            policy_types=["Ingress", "Egress"],
            egress=out,
        )

    def _body(self, run: Run, machine: str, tags: dict[str, str], size: Size) -> k8s.V1Job:
        return k8s.V1Job(
            api_version="batch/v1",
            kind="Job",
            metadata=k8s.V1ObjectMeta(name=machine, labels=tags),
            spec=k8s.V1JobSpec(
                suspend=True,
                completions=1,
                parallelism=1,
                backoff_limit=0,
                active_deadline_seconds=int(self.common.lifetime.total_seconds()),
                ttl_seconds_after_finished=KEEP_FINISHED_SECONDS,
                template=k8s.V1PodTemplateSpec(
                    metadata=k8s.V1ObjectMeta(labels=tags), spec=self._pod(run, machine, size)
                ),
            ),
        )

    def _pod(self, run: Run, machine: str, size: Size) -> k8s.V1PodSpec:
        config, host = self.config, urlsplit(self.common.portal).hostname or ""
        memory = f"{size.memory_gib}Gi"
        resources = {"cpu": str(size.vcpus), "memory": memory, "ephemeral-storage": "1Gi"}
        if size.gpus:
            resources[config.gpu_resource] = str(size.gpus)
        told = {
            "STRONGROOM_PORTAL": self.common.portal,
            "STRONGROOM_RUN": str(run.pk),
            "STRONGROOM_TOKEN_FILE": f"{TOKEN_FOLDER}/token",
            "STRONGROOM_ATTESTER_KEY_FILE": f"{TOKEN_FOLDER}/attester-key",
        }
        container = k8s.V1Container(
            name="runner",
            image=self.common.image,
            env=[k8s.V1EnvVar(name=name, value=value) for name, value in told.items()],
            resources=k8s.V1ResourceRequirements(limits=resources, requests=resources),
            security_context=k8s.V1SecurityContext(
                allow_privilege_escalation=False,
                read_only_root_filesystem=True,
                capabilities=k8s.V1Capabilities(drop=["ALL"]),
            ),
            volume_mounts=[
                k8s.V1VolumeMount(name="token", mount_path=TOKEN_FOLDER, read_only=True),
                k8s.V1VolumeMount(name="work", mount_path=WORK_FOLDER),
                k8s.V1VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108  a volume of the pod's own
            ],
        )
        in_memory = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=str(size.memory_gib * GIB // 2))
        return k8s.V1PodSpec(
            containers=[container],
            restart_policy="Never",
            runtime_class_name=config.runtime_class or None,
            automount_service_account_token=False,
            service_account_name=config.service_account,
            enable_service_links=False,
            image_pull_secrets=[k8s.V1LocalObjectReference(name=config.pull_secret)]
            if config.pull_secret
            else None,
            host_aliases=[k8s.V1HostAlias(ip=config.portal_ip, hostnames=[host])]
            if config.portal_ip
            else None,
            security_context=k8s.V1PodSecurityContext(
                run_as_non_root=True,
                run_as_user=65532,
                run_as_group=65532,
                fs_group=65532,
                seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
            ),
            volumes=[
                k8s.V1Volume(
                    name="token", secret=k8s.V1SecretVolumeSource(secret_name=machine, default_mode=0o400)
                ),
                k8s.V1Volume(name="work", empty_dir=in_memory),
                k8s.V1Volume(
                    name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit="64Mi")
                ),
            ],
        )

    def _look(self, machine: str) -> Sight:
        job = self._job(machine)
        if job is None:
            return Sight.ABSENT
        if job.metadata.deletion_timestamp:
            return Sight.GONE
        if job.spec.suspend:
            return Sight.ABSENT  # its launch was cut short: it is taken up again
        pods = self._pods(machine)
        if any(_evicted(pod) for pod in pods):
            return Sight.EVICTED
        finished = {c.type for c in (job.status.conditions or []) if c.status == "True"}
        if finished & {"Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"}:
            return Sight.GONE
        for pod in pods:
            if pod.metadata.deletion_timestamp or pod.status.phase in ("Succeeded", "Failed", "Unknown"):
                return Sight.GONE
            if pod.status.phase == "Running":
                return Sight.RUNNING
            self._check_pending(pod)
        return Sight.STARTING

    def _check_pending(self, pod: k8s.V1Pod) -> None:
        """Raise for a pod that will not come: no node has room for it, or its image cannot be had."""
        for condition in pod.status.conditions or []:
            if condition.type == "PodScheduled" and condition.reason == "Unschedulable":
                since = condition.last_transition_time
                if since is not None and self.common.clock() - since > UNSCHEDULABLE:
                    raise BackendError("capacity_missing", str(condition.message))
        for status in pod.status.container_statuses or []:
            waiting = status.state.waiting if status.state else None
            if waiting is None:
                continue
            if waiting.reason in ("InvalidImageName", "CreateContainerConfigError"):
                raise BackendError("cloud_rejected", f"{waiting.reason}: {waiting.message}")
            if waiting.reason in ("ImagePullBackOff", "CreateContainerError", "RunContainerError"):
                raise BackendError("launch_failed", f"{waiting.reason}: {waiting.message}")

    def _job(self, machine: str) -> k8s.V1Job | None:
        """The Job, if it is there and ours."""
        job = _or_none(
            lambda: self.clients.jobs.read_namespaced_job(machine, self.config.namespace, **self._call)
        )
        return job if job is not None and self._is_ours(job.metadata.labels) else None

    def _pods(self, machine: str) -> list[k8s.V1Pod]:
        selector = f"{INSTALLATION}={self.common.installation},{MACHINE_LABEL}={machine}"
        found = self.clients.core.list_namespaced_pod(
            self.config.namespace, label_selector=selector, **self._call
        )
        return list(found.items)

    def _remove(self, machine: str) -> bool:
        space = self.config.namespace
        job = self._job(machine)
        if job is not None:
            if not job.metadata.deletion_timestamp:
                _or_none(
                    lambda: self.clients.jobs.delete_namespaced_job(
                        machine, space, propagation_policy="Foreground", grace_period_seconds=0, **self._call
                    )
                )
            return False
        gone = True
        core, policies = self.clients.core, self.clients.policies
        parts: list[tuple[str, Callable[..., Any], Callable[..., Any]]] = [
            (machine, core.read_namespaced_secret, core.delete_namespaced_secret),
            (machine, policies.read_namespaced_network_policy, policies.delete_namespaced_network_policy),
        ]
        for name, read, delete in parts:
            found = _or_none(lambda: read(name, space, **self._call))  # noqa: B023  called at once
            if found is not None and self._is_ours(found.metadata.labels):
                gone = False
                _or_none(lambda: delete(name, space, **self._call))  # noqa: B023
        for pod in self._pods(machine):
            gone = False
            _or_none(lambda: core.delete_namespaced_pod(pod.metadata.name, space, **self._call))  # noqa: B023
        return gone

    def _ours(self) -> Iterable[Found]:
        options: dict[str, Any] = {
            "label_selector": f"{INSTALLATION}={self.common.installation}",
            **self._call,
        }
        space, clients = self.config.namespace, self.clients
        for listing in (
            clients.jobs.list_namespaced_job,
            clients.core.list_namespaced_secret,
            clients.policies.list_namespaced_network_policy,
            clients.core.list_namespaced_pod,
        ):
            for thing in listing(space, **options).items:
                labels = thing.metadata.labels or {}
                if self._is_ours(labels):
                    yield from present([self._found(labels.get(MACHINE_LABEL, ""), labels)])

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except k8s.ApiException as error:
            raise _from_answer(error) from error
        except library.config.ConfigException as error:
            raise BackendError("cloud_denied", str(error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unsettled("cloud_unreachable", f"{type(error).__name__}: {error}") from error


def _evicted(pod: k8s.V1Pod) -> bool:
    """Taken off its node by the cluster, not ended by itself."""
    disrupted = any(c.type == "DisruptionTarget" and c.status == "True" for c in pod.status.conditions or [])
    return disrupted or pod.status.reason in ("Evicted", "Preempting", "Shutdown", "NodeLost")


def _port(portal: str) -> int:
    parts = urlsplit(portal)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _reason(error: k8s.ApiException) -> str:
    try:
        return str(json.loads(error.body or "{}").get("reason") or "")
    except (ValueError, AttributeError, TypeError):
        return ""


def _from_answer(error: k8s.ApiException) -> BackendError:
    text = f"{error.status} {_reason(error)}: {str(error.body)[:500]}"
    if error.status == 403 and "exceeded quota" in text:
        return BackendError("quota_exceeded", text)
    if error.status in (401, 403):
        return BackendError("cloud_denied", text)
    if error.status in (409, 429):
        return Unsettled("cloud_busy", text)
    if not error.status or error.status == 408 or error.status >= 500:
        return Unsettled("cloud_unreachable", text)
    return BackendError("cloud_rejected", text)


def _unless_there(ask: Callable[[], T]) -> T | None:
    """What `ask` makes; None where something of that name is there already."""
    try:
        return ask()
    except k8s.ApiException as error:
        if error.status == 409 and _reason(error) == "AlreadyExists":
            return None
        raise


def _or_none(ask: Callable[[], T]) -> T | None:
    """What `ask` gives; None where there is nothing of that name."""
    try:
        return ask()
    except k8s.ApiException as error:
        if error.status == 404:
            return None
        raise
