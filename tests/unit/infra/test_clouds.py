"""What must exist in the clouds beforehand, read for the facts that matter. Nothing of it was ever applied here.

Whether it is what the providers take is the business of test_terraform_schema.py, test_terraform_plan.py and test_bicep_models.py;
whether the roles are what our backends need, of test_cloud_rights.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("hcl2", reason="pip install python-hcl2 (in the dev list)")
pytest.importorskip("pycep", reason="pip install pycep-parser (in the dev list)")

from tests.unit.infra.bicep_files import BICEP, parsed
from tests.unit.infra.terraform_files import FILES, blocks

# Roles that reach further than one act on one thing.
WIDE = re.compile(r"roles/(owner|editor|viewer|.*\.(admin|objectAdmin|securityAdmin))\b|Owner|Contributor")
BUILT_IN_WIDE = {
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",  # Owner
    "b24988ac-6180-42a0-ab88-20f7382dd24c",  # Contributor
    "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",  # User Access Administrator
    "f58310d9-a9f6-439a-9e8d-f62e7b41a168",  # Role Based Access Control Administrator
    "9980e02c-c2be-4d73-94e8-173b1dc7cf3c",  # Virtual Machine Contributor
}


def resources(kind: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(kind, name, body) of every resource."""
    return (found for found in blocks(FILES, "resource") if kind in ("", found[0]))


def firewall(name: str) -> dict[str, Any]:
    return next(body for _, found, body in resources("google_compute_firewall") if found == name)


def test_there_is_something_to_look_at():
    assert len(FILES) >= 6 and len(BICEP) >= 1
    assert len(list(resources())) > 20


def test_google_machines_reach_the_portal_and_nothing_else():
    rules = {name: body for _, name, body in resources("google_compute_firewall")}
    assert set(rules) == {"nothing_in", "nothing_out", "portal_out"}
    for name, direction in (("nothing_in", "INGRESS"), ("nothing_out", "EGRESS")):
        rule = rules[name]
        assert rule["direction"] == direction and "allow" not in rule
        assert rule["deny"] == [{"protocol": "all"}]
        ranges = rule["source_ranges" if direction == "INGRESS" else "destination_ranges"]
        assert ranges == ["0.0.0.0/0"] and "target_tags" not in rule
    out = rules["portal_out"]
    assert (
        out["allow"] == [{"protocol": "tcp", "ports": ["443"]}]
        and out["priority"] < rules["nothing_out"]["priority"]
    )
    assert "var.portal_cidrs" in out["destination_ranges"] and "0.0.0.0/0" not in str(out)


def test_google_routes_lead_nowhere_else():
    ((_, _, network),) = resources("google_compute_network")
    assert network["delete_default_routes_on_create"] is True and network["auto_create_subnetworks"] is False
    targets = {body["dest_range"] for _, _, body in resources("google_compute_route")}
    assert targets == {"${local.restricted_google}", "${each.value}"}


def test_no_public_address_is_given_to_a_machine():
    kinds = {kind for kind, _, _ in resources()}
    assert not kinds & {"google_compute_address", "google_compute_global_address", "google_compute_instance"}
    assert not any("access_config" in str(body) for _, _, body in resources())
    assert "Microsoft.Network/publicIPAddresses" not in {r["type"] for r in bicep().values()}


def test_google_roles_are_narrow():
    roles = {body["role"] for _, _, body in resources() if "role" in body}
    assert len(roles) >= 6
    assert not [role for role in roles if WIDE.search(role)]
    for _, _, body in resources():
        assert not set(body.get("members", [])) & {"allUsers", "allAuthenticatedUsers"}
        assert body.get("member") not in ("allUsers", "allAuthenticatedUsers")
    project_wide = {body["role"] for _, _, body in resources("google_project_iam_member")}
    assert project_wide == {
        "roles/confidentialcomputing.workloadUser", "${google_project_iam_custom_role.machines.id}",
    }  # fmt: skip


def test_the_portal_cannot_look_into_google_machines():
    ((_, _, role),) = resources("google_project_iam_custom_role")
    permissions = role["permissions"]
    assert permissions == sorted(set(permissions)) and "*" not in "".join(permissions)
    forbidden = re.compile(
        r"setIamPolicy|osLogin|getSerialPortOutput|osAdminLogin|createSnapshot|useReadOnly|suspend|update$"
    )
    assert not [p for p in permissions if forbidden.search(p)]
    used = {"compute.instances.create", "compute.instances.delete", "compute.instances.get", "compute.instances.list",
            "compute.disks.get", "compute.disks.delete", "compute.disks.list", "compute.zoneOperations.list"}  # fmt: skip
    assert used <= set(permissions)


def test_the_runner_of_google_can_read_no_data():
    mine = [
        body
        for _, _, body in resources()
        if "google_service_account.runner.member" in str(body.get("member"))
    ]
    assert {body["role"] for body in mine} == {
        "roles/confidentialcomputing.workloadUser", "roles/artifactregistry.reader",
    }  # fmt: skip


def test_the_custodians_key_is_theirs():
    ((_, _, key),) = resources("google_kms_crypto_key")
    assert key["purpose"] == "ENCRYPT_DECRYPT"
    assert key["version_template"][0]["protection_level"] == "HSM"
    assert key["lifecycle"] == [{"prevent_destroy": True}]
    given = {body["role"]: body["member"] for _, _, body in resources("google_kms_crypto_key_iam_member")}
    assert given == {
        "roles/cloudkms.cryptoKeyDecrypter": "serviceAccount:${var.broker_service_account}",
        "roles/cloudkms.cryptoKeyEncrypter": "${var.key_maker}",
    }


# Azure


def bicep() -> dict[str, Any]:
    return {name: body for path in BICEP for name, body in parsed(path.read_text())["resources"].items()}


def properties(resource: dict[str, Any]) -> dict[str, Any]:
    """Of a resource, or of one that is made on a condition."""
    config = resource["config"]
    return dict(config.get("properties") or config["config"]["properties"])


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: properties(r) for name, r in bicep().items() if r["type"] == kind and not r["existing"]}


def test_azure_machines_reach_the_portal_and_nothing_else():
    (group,) = of_type("Microsoft.Network/networkSecurityGroups").values()
    rules = {rule["name"]: rule["properties"] for rule in group["securityRules"]}
    allowed = [rule for rule in rules.values() if rule["access"] == "Allow"]
    assert [r["direction"] for r in allowed] == ["Outbound"]
    assert (allowed[0]["destinationAddressPrefixes"], allowed[0]["destinationPortRange"]) == (
        "portalCidrs",
        "443",
    )
    for name, direction in (("nothing-in", "Inbound"), ("nothing-out", "Outbound")):
        rule = rules[name]
        assert (rule["access"], rule["direction"], rule["protocol"]) == ("Deny", direction, "*")
        assert rule["destinationAddressPrefix"] == rule["destinationPortRange"] == "*"
        assert rule["priority"] > allowed[0]["priority"]


def test_azure_subnets_have_no_way_out_of_their_own():
    (network,) = of_type("Microsoft.Network/virtualNetworks").values()
    assert [subnet["name"] for subnet in network["subnets"]] == ["machines", "containers"]
    for subnet in network["subnets"]:
        assert subnet["properties"]["defaultOutboundAccess"] is False
        assert subnet["properties"]["networkSecurityGroup"]
        assert "natGateway" not in subnet["properties"]


def test_azure_roles_name_each_act():
    roles = of_type("Microsoft.Authorization/roleDefinitions")
    assert set(roles) == {"machinesRole", "joinRole"}
    acts = [act for role in roles.values() for p in role["permissions"] for act in p["actions"]]
    assert len(acts) == len(set(acts)) and not [act for act in acts if "*" in act]
    assert not [a for role in roles.values() for p in role["permissions"] for a in p["dataActions"]]
    forbidden = re.compile(
        r"runCommand|login|extensions|beginGetAccess|retrieveBootDiagnostics|containers/exec|listKeys|roleAssignments|"
        r"capture|publicIPAddresses|virtualNetworks/write|networkSecurityGroups", re.I
    )  # fmt: skip
    assert not [act for act in acts if forbidden.search(act)]
    used = {
        f"Microsoft.Compute/{thing}/{act}"
        for thing in ("virtualMachines", "disks")
        for act in ("read", "delete")
    }
    assert used <= set(acts)


def test_azure_assigns_nothing_wide():
    assignments = of_type("Microsoft.Authorization/roleAssignments")
    assert len(assignments) == 4
    text = str(assignments)
    assert not [role for role in BUILT_IN_WIDE if role in text]
    named = set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", text))
    assert named == {"f1a07417-d97a-45cb-824c-7a7467783830", "7f951dda-4ed3-4680-a7ca-43fe172d538d"}
