"""The workers' roles in the clouds against the calls that our backends make: nothing is missing, and nothing is there for no call.

Which call needs which right is a table of ours where no package says it; its sources are named beside it. Only a cloud can prove it.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("hcl2", reason="pip install python-hcl2 (in the dev list)")
pytest.importorskip("pycep", reason="pip install pycep-parser (in the dev list)")
pytest.importorskip("azure.mgmt.compute", reason="pip install azure-mgmt-compute (in the dev list)")
pytest.importorskip("google.cloud.compute_v1", reason="pip install google-cloud-compute (in the dev list)")

from tests.fakes.discovery import document
from tests.unit.infra.backend_calls import BACKENDS, ROOT, azure_actions, calls, google_methods, keywords
from tests.unit.infra.bicep_files import BICEP, File
from tests.unit.infra.terraform_files import FILES, blocks

HOW_TO = ROOT / "docs" / "how-to"
# Google: "Create and start a Compute Engine instance", required permissions; for labels, "Organize resources using labels".
# An entry in Cloud Audit Logs for instances.insert lists what was asked: the same, without what was not in the request.
GOOGLE = {
    ("Instance", "labels"): "compute.instances.setLabels",
    ("Instance", "metadata"): "compute.instances.setMetadata",
    ("Instance", "service_accounts"): "compute.instances.setServiceAccount",
    ("Instance", "tags"): "compute.instances.setTags",
    ("AttachedDisk", "initialize_params"): "compute.disks.create",
    ("AttachedDisk", "source"): "compute.disks.use",
    ("AttachedDiskInitializeParams", "labels"): "compute.disks.setLabels",
    ("AttachedDiskInitializeParams", "source_snapshot"): "compute.snapshots.useReadOnly",
    ("NetworkInterface", "subnetwork"): "compute.subnetworks.use",
    ("NetworkInterface", "access_configs"): "compute.subnetworks.useExternalIp",
    ("NetworkInterface", "network"): "compute.networks.use",
}
# Azure asks for these too, on the things that a request names ("linked access"): "Azure permissions for Compute" and "for Networking",
# "Virtual network: permissions" (join), "Share gallery images with Azure RBAC" (read of a version). That a disk which is made with its
# machine needs disks/write is taken from the built-in role Virtual Machine Contributor.
AZURE = {
    ("NetworkInterfaceReference", "id"): "Microsoft.Network/networkInterfaces/join/action",
    ("NetworkInterfaceIPConfigurationPropertiesFormat", "subnet"): "Microsoft.Network/virtualNetworks/subnets/join/action",
    ("NetworkInterfaceIPConfigurationPropertiesFormat", "public_ip_address"): "Microsoft.Network/publicIPAddresses/join/action",
    ("NetworkInterfacePropertiesFormat", "network_security_group"): "Microsoft.Network/networkSecurityGroups/join/action",
    ("ContainerGroupSubnetId", "id"): "Microsoft.Network/virtualNetworks/subnets/join/action",
    ("ContainerGroupIdentity", "user_assigned_identities"): "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
    ("ImageReference", "id"): "Microsoft.Compute/galleries/images/versions/read",
    ("OSDisk", "managed_disk"): "Microsoft.Compute/disks/write",
}  # fmt: skip
GIVE_PULLER = "f1a07417-d97a-45cb-824c-7a7467783830"  # Managed Identity Operator: read and assign


def needed(table: dict[tuple[str, str], str], *files: str) -> set[str]:
    found = {pair for file in files for pair in keywords(BACKENDS / file)}
    return {right for pair, right in table.items() if pair in found}


def google_needed() -> set[str]:
    by_method = {method.replace(".insert", ".create") for method in google_methods()}
    return by_method | needed(GOOGLE, "gcp.py")


def azure_needed() -> set[str]:
    return azure_actions() | needed(AZURE, "azure.py", "azure_aci.py")


def test_every_call_to_google_is_in_the_discovery_document():
    known = {
        method["id"]
        for resource in document()["resources"].values()
        for method in resource["methods"].values()
    }
    assert len(google_methods()) > 6 and google_methods() <= known


def test_googles_role_is_what_the_calls_need_and_no_more():
    (role,) = (body for _, _, body in blocks(FILES, "resource") if "permissions" in body)
    assert set(role["permissions"]) == google_needed()


def test_workers_may_act_as_the_runner_because_they_give_machines_its_account():
    assert ("Instance", "service_accounts") in keywords(BACKENDS / "gcp.py")
    given = [
        body for kind, _, body in blocks(FILES, "resource") if kind == "google_service_account_iam_member"
    ]
    assert [(one["role"], one["member"]) for one in given] == [
        ("roles/iam.serviceAccountUser", "serviceAccount:${var.portal_service_account}")
    ]


def azure_given() -> set[str]:
    file = File(BICEP[0].read_text())
    roles = [name for name, one in file.resources.items() if one["type"].endswith("/roleDefinitions")]
    return {
        act for role in roles for p in file.body(role)["properties"]["permissions"] for act in p["actions"]
    }


def test_azures_roles_are_what_the_calls_need_and_no_more():
    assign = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"
    assert assign in azure_needed() and GIVE_PULLER in BICEP[0].read_text()
    assert azure_given() == azure_needed() - {assign}


def test_the_guides_give_the_same_rights():
    azure = (HOW_TO / "azure.md").read_text()
    (actions,) = re.findall(r'"Actions": (\[[^\]]*\])', azure)
    assert set(json.loads(actions)) == azure_given()
    google = (HOW_TO / "google.md").read_text()
    (permissions,) = re.findall(r"--permissions ([\w.,\\\s]+?)\n```", google)
    assert set(re.findall(r"[\w.]+", permissions)) == google_needed()


@pytest.mark.parametrize("line", [
    "for thing in (self.clients.disks,): thing.begin_delete('g', 'n')",
    "self.clients.compute.snapshots.begin_delete('g', 'n')",
    "disks().begin_delete('g', 'n')",
    "self.clients.get('n')",
])  # fmt: skip
def test_a_call_that_is_not_understood_is_not_passed_over(tmp_path: Path, line: str):
    class Disks:
        def begin_delete(self) -> None: ...
        def get(self) -> None: ...

    file = tmp_path / "backend.py"
    file.write_text(f"def f(self):\n    {line}\n")
    ast.parse(file.read_text())
    with pytest.raises(ValueError, match="not understood"):
        calls(file, {"disks": Disks})
