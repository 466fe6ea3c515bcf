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
from typing import Any, ClassVar, TypeVar, cast
from urllib.parse import urlsplit

import kubernetes as library
import urllib3
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from kubernetes import client as k8s

from apps.core.keys import key_file
from apps.jobs.models import Run
from apps.jobs.sizes import GIB, Size
from workers.backends.base import BackendError, Sight, Unsettled, unreadable
from workers.backends.cloud import INSTALLATION, TIMEOUT, CloudBackend, Common, Found, bounded, present

T = TypeVar("T")
MACHINE_LABEL = "strongroom-machine"
TOKEN_FOLDER, WORK_FOLDER = "/run/strongroom", "/work"
# A pod that finds no node for so long counts as missing capacity.
UNSCHEDULABLE = timedelta(minutes=5)
# Entries of one page of a list.
PAGE = 500
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


class KubernetesBackend(CloudBackend[Config, Clients]):
    """Jobs in one namespace of one cluster."""

    _call: ClassVar[dict[str, Any]] = {"_request_timeout": TIMEOUT}

    @classmethod
    def from_settings(cls) -> KubernetesBackend:
        return cls(
            Common.from_settings("kubernetes", cls.first_call),
            Config(**cast(dict[str, Any], settings.KUBERNETES)),
        )

    def _connect(self) -> Clients:
        return Clients.of(self.config)

    def _create(self, run: Run, machine: str, token: str) -> None:
        space, tags = self.config.namespace, {**self._tags(run), MACHINE_LABEL: machine}
        job = self._job(machine)
        if job is None:
            made = self._body(run, machine, tags, self._size(run))
            job = _unless_there(
                lambda: self.clients.jobs.create_namespaced_job(
                    space, made, field_validation="Strict", **self._call
                ),
                machine,
            )
            job = job or self._job(machine)
        if job is None:
            raise Unsettled("cloud_busy", f"{machine} was there, and is not any more.")
        self._require_ours(machine, job.metadata.labels)
        if not job.spec.suspend:
            return  # let go before: this call is a repetition
        core, policies = self.clients.core, self.clients.policies
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
        self._attach(job, secret, core.create_namespaced_secret, core.read_namespaced_secret)
        policy = k8s.V1NetworkPolicy(metadata=owned, spec=self._network(machine))
        self._attach(
            job, policy, policies.create_namespaced_network_policy, policies.read_namespaced_network_policy
        )
        self.clients.jobs.patch_namespaced_job(machine, space, {"spec": {"suspend": False}}, **self._call)

    def _attach(
        self, job: k8s.V1Job, part: Any, create: Callable[..., Any], read: Callable[..., Any]
    ) -> None:
        """Make a part of the Job, unless this very Job has it: another's token or another's policy would do harm.

        Raises BackendError (name_taken), Unsettled.
        """
        name, space = job.metadata.name, self.config.namespace
        if _unless_there(lambda: create(space, part, field_validation="Strict", **self._call), name):
            return
        found = _or_none(lambda: read(name, space, **self._call), name)
        if found is not None:
            self._require_ours(name, found.metadata.labels)
            if job.metadata.uid in {owner.uid for owner in found.metadata.owner_references or []}:
                return
        raise Unsettled("cloud_busy", f"A part of an earlier Job {name} is on its way out.")

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
        self._require_ours(machine, job.metadata.labels)
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
            if pod.metadata.deletion_timestamp or pod.status.phase in ("Succeeded", "Failed"):
                return Sight.GONE
            if pod.status.phase == "Running":
                return Sight.RUNNING
            if pod.status.phase != "Pending":  # "Unknown": the cluster has lost sight of its node
                raise unreadable(f"The pod of {machine} is in the phase {pod.status.phase!r}.")
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
        """The Job of that name, whosever it is."""
        return _or_none(
            lambda: self.clients.jobs.read_namespaced_job(machine, self.config.namespace, **self._call),
            machine,
        )

    def _pods(self, machine: str) -> list[k8s.V1Pod]:
        return list(self._listed(self.clients.core.list_namespaced_pod, f"{MACHINE_LABEL}={machine}"))

    def _listed(self, listing: Callable[..., Any], *labels: str) -> Iterator[Any]:
        """Every entry with this installation's label and `labels`, page after page."""
        selector = ",".join((f"{INSTALLATION}={self.common.installation}", *labels))

        def pages() -> Iterator[Any]:
            following: str | None = ""
            while following is not None:
                more = {"_continue": following} if following else {}
                page = listing(
                    self.config.namespace, label_selector=selector, limit=PAGE, **more, **self._call
                )
                yield page
                following = page.metadata._continue or None

        for page in bounded(pages()):
            if not str(page.kind).endswith("List") or page.items is None:
                raise unreadable(f"A list was asked for, and the answer is {str(page)[:200]!r}.")
            yield from page.items

    def _remove(self, machine: str, again: bool) -> bool:
        space = self.config.namespace
        job = self._job(machine)
        if job is not None and self._removable(machine, job.metadata.labels):
            if again or not job.metadata.deletion_timestamp:
                _unless_gone(
                    lambda: self.clients.jobs.delete_namespaced_job(
                        machine, space, propagation_policy="Foreground", grace_period_seconds=0, **self._call
                    )
                )
            return False
        gone = True
        core, policies = self.clients.core, self.clients.policies
        parts: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
            (core.read_namespaced_secret, core.delete_namespaced_secret),
            (policies.read_namespaced_network_policy, policies.delete_namespaced_network_policy),
        ]
        for read, delete in parts:
            found = _or_none(lambda: read(machine, space, **self._call), machine)  # noqa: B023  called at once
            if found is not None and self._removable(machine, found.metadata.labels):
                gone = False
                _unless_gone(lambda: delete(machine, space, **self._call))  # noqa: B023
        for pod in self._pods(machine):
            gone = False
            _unless_gone(lambda: core.delete_namespaced_pod(pod.metadata.name, space, **self._call))  # noqa: B023
        return gone

    def _ours(self) -> Iterable[Found]:
        clients = self.clients
        for listing in (
            clients.jobs.list_namespaced_job,
            clients.core.list_namespaced_secret,
            clients.policies.list_namespaced_network_policy,
            clients.core.list_namespaced_pod,
        ):
            for thing in self._listed(listing):
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


def _status(error: k8s.ApiException) -> dict[str, Any]:
    """The Status object of an error answer (API conventions, "Response Status Kind"); empty for a proxy's page."""
    try:
        found = json.loads(error.body or "{}")
    except (ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def _reason(error: k8s.ApiException) -> str:
    return str(_status(error).get("reason") or "")


def _from_answer(error: k8s.ApiException) -> BackendError:
    text = f"{error.status} {_reason(error)}: {str(error.body)[:500]}"
    if error.status == 429:
        return Unsettled("cloud_throttled", text)
    if not error.status or error.status == 408 or error.status >= 500:
        return Unsettled("cloud_unreachable", text)
    if error.status < 400 or not _status(error):
        return unreadable(text)
    if error.status == 403 and "exceeded quota" in text:
        return BackendError("quota_exceeded", text)
    if error.status in (401, 403):
        return BackendError("cloud_denied", text)
    if error.status in (409, 410):  # 410: the next page of a list has expired
        return Unsettled("cloud_busy", text)
    return BackendError("cloud_rejected", text)


def _checked(thing: Any, name: str) -> Any:
    """An object of that name: the client takes any page for one without members. Raises Unsettled (cloud_unreadable)."""
    if thing is None or thing.metadata is None or thing.metadata.name != name or not thing.metadata.uid:
        raise unreadable(f"{name} was asked for, and the answer is {str(thing)[:200]!r}.")
    return thing


def _unless_there(ask: Callable[[], T], name: str) -> T | None:
    """What `ask` makes; None where something of that name is there already."""
    try:
        made: T = _checked(ask(), name)
        return made
    except k8s.ApiException as error:
        if error.status == 409 and _reason(error) == "AlreadyExists":
            return None
        raise


def _unless_gone(ask: Callable[[], T]) -> T | None:
    """What `ask` gives; None where the cluster itself says that there is nothing of that name."""
    try:
        return ask()
    except k8s.ApiException as error:
        if error.status == 404 and _reason(error) == "NotFound":
            return None
        raise


def _or_none(ask: Callable[[], T], name: str) -> T | None:
    """The object of that name; None where the cluster itself says that there is none."""
    return _unless_gone(lambda: _checked(ask(), name))
