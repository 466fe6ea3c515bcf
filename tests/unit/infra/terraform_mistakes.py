"""Our files with one thing wrong in each, for whoever judges them: the check of ours, and Terraform itself."""

from __future__ import annotations

from dataclasses import dataclass

from tests.unit.infra.terraform_files import MODULES


@dataclass(frozen=True)
class Mistake:
    """`old` becomes `new` wherever it stands in the first module.

    `ours` and `terraform`: a part of what each says; "" where Terraform says nothing, or leaves it to the provider.
    """

    what: str
    old: str
    new: str
    ours: str
    terraform: str

    def texts(self) -> dict[str, str]:
        """By name of file. Raises ValueError where `old` stands nowhere."""
        before = {path.name: path.read_text() for path in sorted(MODULES[0].glob("*.tf"))}
        after = {name: text.replace(self.old, self.new) for name, text in before.items()}
        if before == after:
            raise ValueError(f"{self.old!r} stands nowhere")
        return after


MISTAKES = (
    Mistake("a misspelled argument", "auto_create_subnetworks", "auto_create_subnets", "auto_create_subnets: unknown",
            'An argument named "auto_create_subnets" is not expected here'),
    Mistake("a misspelled block", "  log_config {\n    aggregation", "  log_configs {\n    aggregation", "log_configs: unknown",
            'Blocks of type "log_configs" are not expected here'),
    Mistake("a misspelled argument of a block", '    protocol = "tcp"', '    protocols = "tcp"', "allow.protocols: unknown",
            'An argument named "protocols" is not expected here'),
    Mistake("an argument that a block needs", '    protocol = "tcp"\n', "", "allow.protocol: missing",
            'The argument "protocol" is required'),
    Mistake("an argument that is needed", '  account_id   = "strongroom-runner"\n', "", "account_id: missing",
            'The argument "account_id" is required'),
    Mistake("a block that is given as an argument", '  deny {\n    protocol = "all"\n  }', '  deny = [{ protocol = "all" }]',
            "deny: is a block", 'An argument named "deny" is not expected here'),
    Mistake("an argument that is given as a block", '  source_ranges = ["0.0.0.0/0"]', "  source_ranges {}",
            "source_ranges: is an argument", 'Blocks of type "source_ranges" are not expected here'),
    Mistake("two blocks where one may be", "  docker_config {\n", "  docker_config {\n  }\n  docker_config {\n",
            "docker_config: more than 1", "No more than 1 \"docker_config\" blocks are allowed"),
    Mistake("what only the provider sets", '  account_id   = "s', '  email = "a@b"\n  account_id   = "s',
            "email: only the provider", ""),
    Mistake("a misspelled kind", '"google_compute_router_nat"', '"google_compute_routers_nat"',
            "has no google_compute_routers_nat", 'does not support resource type\n"google_compute_routers_nat"'),
    Mistake("a word that the provider does not list", '"INGRESS"', '"INBOUND"', "direction: 'INBOUND' is none of", ""),
    Mistake("a text for a number", "priority         = 1000", 'priority         = "first"',
            "priority: 'first' is no number", 'Inappropriate value for attribute "priority": a number is required'),
    Mistake("a text for a list", 'destination_ranges = ["0.0.0.0/0"]', 'destination_ranges = "0.0.0.0/0"',
            "destination_ranges: '0.0.0.0/0' is no set of string", "set of string required"),
    Mistake("a variable that is not declared", "var.subnet_cidr", "var.subnet_range", "var.subnet_range: not declared",
            'An input variable with the name "subnet_range" has not been declared'),
    Mistake("a variable that nobody uses", "= var.subnet_cidr", '= "10.0.0.0/24"', "var.subnet_cidr: is not used", ""),
    Mistake("a local that is not declared", "= local.restricted_google", "= local.restricted", "local.restricted: not declared",
            'A local value with the name "restricted" has not been declared'),
    Mistake("a resource that is not there", "= google_compute_router.runs.name", "= google_compute_router.other.name",
            "google_compute_router.other.name: no such resource", 'A managed resource "google_compute_router" "other" has not been declared'),
    Mistake("an attribute that is not there", "google_service_account.runner.member", "google_service_account.runner.principal",
            "google_service_account has no principal", 'This object has no argument, nested block, or exported attribute named\n"principal"'),
    Mistake("a misspelled argument of the provider", "  region  = var.region", "  regions = var.region",
            "provider google.regions: unknown", 'An argument named "regions" is not expected here'),
)  # fmt: skip
