"""Backends from settings: what is missing is said when a worker starts, and no cloud is imported that is not used."""

from __future__ import annotations

import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from apps.jobs.sizes import Size, default_size, sizes_of
from tests.fakes.worlds import IMAGE, SUBNET
from workers import backends

LAYERS = '{"runner": {"layers": ["%s"], "command": ["/runner"]}, "pause": {"id": "pause", "layers": ["%s"], "command": ["/pause"]}}'


@pytest.fixture
def complete(settings, tmp_path):
    """Every backend's settings, whole and right."""
    layers = tmp_path / "layers.json"
    layers.write_text(LAYERS % ("ab" * 32, "cd" * 32))
    settings.RUNNER_IMAGE_REFERENCES = dict.fromkeys(("gcp", "azure-aci", "kubernetes"), IMAGE)
    where = {"subscription": "s", "resource_group": "runs", "location": "uksouth", "subnet": SUBNET}
    settings.AZURE = {**settings.AZURE, **where, "image": "Canonical:offer:sku:22.04.1"}
    settings.AZURE_ACI = {**settings.AZURE_ACI, **where, "layers_file": str(layers)}
    settings.GCP = {
        **settings.GCP, "project": "p", "zone": "z-a", "subnet": "projects/p/x", "service_account": "r@p",
        "source_image": "projects/confidential-space-images/global/images/confidential-space-260900",
    }  # fmt: skip
    settings.KUBERNETES = {**settings.KUBERNETES, "namespace": "runs", "portal_cidrs": ("192.0.2.0/24",)}
    settings.RUN_BACKENDS = ["local", *backends.CLOUDS]
    return settings


def install() -> dict[str, object]:
    found: dict[str, object] = {}
    backends.install(found.__setitem__)
    return found


def test_all_of_them(complete):
    found = install()
    assert list(found) == ["local", "azure", "azure-aci", "gcp", "kubernetes"]
    marks = {b.common.installation for name, b in found.items() if name != "local"}
    assert len(marks) == 1 and len(marks.pop()) == 12


WRONG = [
    ("gcp", ("RUNNER_IMAGE_REFERENCES", "gcp"), "registry.example/runner:latest", "A tag can be moved"),
    ("gcp", ("RUNNER_IMAGE_REFERENCES", "gcp"), "registry.example/runner@sha256:ab", "64 hexadecimal"),
    ("azure-aci", ("RUNNER_IMAGE_REFERENCES", "azure-aci"), "registry.example/runner:1", "A tag can be moved"),
    ("kubernetes", ("RUNNER_IMAGE_REFERENCES", "kubernetes"), "", "64 hexadecimal"),
    ("gcp", ("GCP", "source_image"), "projects/confidential-space-images/global/images/family/confidential-space", "one image"),
    ("gcp", ("GCP", "source_image"), "projects/c/global/images/confidential-space-debug-260900", "debug"),
    ("gcp", ("GCP", "confidential_type"), "NONE", "SEV"),
    ("gcp", ("GCP", "service_account"), "", "SERVICE_ACCOUNT"),
    ("azure", ("AZURE", "image"), "Canonical:offer:sku:latest", "changes by itself"),
    ("azure", ("AZURE", "encryption"), "VMGuestStateOnly", "DiskWithVMGuestState"),
    ("azure", ("AZURE", "subnet"), "runs", "resource id"),
    ("azure", ("AZURE", "resource_group"), "", "RESOURCE_GROUP"),
    ("azure-aci", ("AZURE_ACI", "layers_file"), "", "confcom"),
    ("azure-aci", ("AZURE_ACI", "layers_file"), "/nowhere", "cannot be read"),
    ("kubernetes", ("KUBERNETES", "namespace"), "", "NAMESPACE"),
    ("kubernetes", ("KUBERNETES", "portal_cidrs"), (), "PORTAL_CIDRS"),
    ("kubernetes", ("KUBERNETES", "portal_cidrs"), ("0.0.0.0/0",), "everywhere"),
    ("kubernetes", ("KUBERNETES", "portal_cidrs"), ("portal.example",), "PORTAL_CIDRS"),
    ("gcp", "RUN_SIZES", {}, "no size"),
    ("gcp", "RUN_SIZES", {"gcp": {"s": {"vcpus": 1}}}, "memory_gib"),
    ("gcp", "RUN_SIZES", {"gcp": {"s": {"vcpus": 1, "memory_gib": 1, "price": 3}}}, "unknown members: price"),
    ("gcp", "RUN_SIZES", {"gcp": {"s": {"vcpus": 1, "memory_gib": 1, "pence_per_hour": 3}}}, "price_source"),
    ("gcp", "RUN_INSTALLATION", "Not A Mark", "lower-case"),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "name", "value", "says"), WRONG)
def test_one_thing_wrong(complete, backend, name, value, says):
    complete.RUN_BACKENDS = [backend]
    assert list(install()) == [backend]
    if isinstance(name, tuple):
        setattr(complete, name[0], {**getattr(complete, name[0]), name[1]: value})
    else:
        setattr(complete, name, value)
    with pytest.raises(ImproperlyConfigured, match=says):
        install()


def test_no_such_backend(settings):
    settings.RUN_BACKENDS = ["mainframe"]
    with pytest.raises(LookupError, match="azure, azure-aci, gcp, kubernetes, local"):
        install()


def test_a_missing_package_names_the_extra(complete, monkeypatch):
    complete.RUN_BACKENDS = ["gcp"]
    monkeypatch.setitem(sys.modules, "workers.backends.gcp", None)
    with pytest.raises(ImproperlyConfigured, match=r"strongroom-portal\[gcp\]"):
        install()


def test_no_cloud_is_imported_for_the_local_backend():
    code = (
        "import os, sys, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'portal.settings.test'; django.setup();"
        "from workers.backends import install; install(lambda *a: None);"
        "print([m for m in sys.modules if m.split('.')[0] in ('azure', 'google', 'kubernetes')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_default_size_is_the_smallest_that_fits():
    table = {
        name: Size(name, "", cpus, gib, gpus)
        for name, cpus, gib, gpus in [("a", 8, 32, 0), ("b", 2, 8, 0), ("c", 1, 4, 0), ("g", 2, 8, 1)]
    }
    need = {"memory_bytes": 4 * 1024**3, "disk_bytes": 2 * 1024**3}
    assert default_size(table, need).name == "b"
    assert default_size(table, {"memory_bytes": 40 * 1024**3}) is None
    assert default_size({}, need) is None


def test_the_shipped_sizes_parse_and_give_no_price(settings):
    for backend in backends.CLOUDS:
        for size in sizes_of(backend).values():
            assert size.pence_per_hour is None
    assert sizes_of("local") == {}
