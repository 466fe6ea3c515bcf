"""Our Bicep file against the models of Azure's own clients: types, their versions, members, words, and what refers to what.

There is no compiler here (`az bicep build`); schemas/README.md says where the models of each type come from.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Any

import pytest

pytest.importorskip("pycep", reason="pip install pycep-parser (in the dev list)")
pytest.importorskip("azure.mgmt.network", reason="pip install azure-mgmt-network (in the dev list)")
pytest.importorskip("jsonschema", reason="comes with drf-spectacular")

from tests.unit.infra.bicep_files import BICEP, INSTALLED, File

TEXT = BICEP[0].read_text()


def test_everything_that_we_write_is_in_the_models():
    (path,) = BICEP
    file = File(path.read_text())
    assert len(file.resources) > 8
    assert file.problems() == []
    assert {resource["type"] for resource in file.resources.values()} == {*INSTALLED, *file.extracted}


BAD = {
    "a misspelled type": ("Microsoft.Network/virtualNetworks@", "Microsoft.Network/virtualNetwork@", "no model of"),
    "another version": ("userAssignedIdentities@2024-11-30", "userAssignedIdentities@2018-11-30", "which was looked at"),
    "another version of an installed one": ("virtualNetworks@2026-03-01", "virtualNetworks@2015-05-01", "which was looked at"),
    "a misspelled member": ("destinationPortRange:", "destinationPorts:", "unknown member 'destinationPorts'"),
    "a member that is needed": ("          priority: 100\n", "", "securityRules.properties.priority: missing"),
    "a word that does not exist": ("access: 'Deny'", "access: 'Refuse'", "is not one of SecurityRuleAccess"),
    "a text for a number": ("priority: 100", "priority: 'first'", "is no int"),
    "a text for a list": ("portalCidrs\n", "'203.0.113.10/32'\n", "is no list"),
    "what only Azure sets": ("    addressSpace: {", "    provisioningState: 'Succeeded'\n    addressSpace: {", "is for answers only"),
    "what only Azure sets, elsewhere": ("    principalType:", "    createdBy: 'me'\n    principalType:", "createdBy"),
    "a misspelled member of a role": ("notActions:", "noActions:", "noActions"),
    "a misspelled kind of principal": ("'ServicePrincipal'", "'Service'", "'Service' is not one of"),
    "a role without a principal": ("    principalId: workers.properties.principalId\n", "", "'principalId' is a required property"),
    "a place that is left out": ("  name: 'strongroom-workers'\n  location: location\n", "  name: 'strongroom-workers'\n", "'location' is a required property"),
    "a name that is left out": ("  name: 'strongroom-workers'\n", "", "workers.name: missing"),
    "a resource that is not there": ("puller.id\n", "pullers.id\n", "pullers: not declared"),
    "a resource that is not there, in a text": ("'${network.id}/", "'${net.id}/", "net: not declared"),
    "a property that is not there": ("workers.properties.clientId", "workers.properties.applicationId", "unknown"),
    "a property of the group that is not there": ("resourceGroup().location", "resourceGroup().region", "resourceGroup().region: unknown"),
    "a parameter that nobody uses": ("        addressPrefix\n", "        '10.78.0.0/16'\n", "addressPrefix: is not used"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_found(what: str):
    old, new, said = BAD[what]
    assert old in TEXT
    found = File(TEXT.replace(old, new)).problems()
    assert any(said in one for one in found), found


def members(name: str) -> dict[str, Any]:
    found: dict[str, Any] = File(TEXT).body(name)["properties"]
    return found


def test_addresses_fit_into_each_other():
    network = members("network")
    (whole,) = map(ipaddress.ip_network, network["addressSpace"]["addressPrefixes"])
    parts = [ipaddress.ip_network(subnet["properties"]["addressPrefix"]) for subnet in network["subnets"]]
    assert all(part.subnet_of(whole) for part in parts)
    assert not parts[0].overlaps(parts[1])


def test_rules_have_places_of_their_own():
    """Azure: priorities from 100 to 4096, each once in a direction."""
    rules = [rule["properties"] for rule in members("nothingElse")["securityRules"]]
    assert all(100 <= rule["priority"] <= 4096 for rule in rules)
    places = Counter((rule["direction"], rule["priority"]) for rule in rules)
    assert set(places.values()) == {1}
