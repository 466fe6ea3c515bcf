# A network of its own: private addresses only, nothing comes in, and out only to the portal and the object store. Google's
# own services (attestation, registry) are reached on the restricted addresses, which cannot carry data elsewhere.

resource "google_compute_network" "runs" {
  name                            = "strongroom-runs"
  auto_create_subnetworks         = false
  delete_default_routes_on_create = true
  routing_mode                    = "REGIONAL"
  depends_on                      = [google_project_service.needed]
}

resource "google_compute_subnetwork" "runs" {
  name                     = "strongroom-runs"
  network                  = google_compute_network.runs.id
  region                   = var.region
  ip_cidr_range            = var.subnet_cidr
  private_ip_google_access = true
  stack_type               = "IPV4_ONLY"

  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 1.0
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

locals {
  # restricted.googleapis.com: only services that VPC Service Controls cover.
  restricted_google = "199.36.153.4/30"
}

resource "google_compute_route" "google" {
  name             = "strongroom-google"
  network          = google_compute_network.runs.id
  dest_range       = local.restricted_google
  next_hop_gateway = "default-internet-gateway"
  priority         = 1000
}

resource "google_compute_route" "portal" {
  for_each         = toset(var.portal_cidrs)
  name             = "strongroom-portal-${substr(sha256(each.value), 0, 8)}"
  network          = google_compute_network.runs.id
  dest_range       = each.value
  next_hop_gateway = "default-internet-gateway"
  priority         = 1000
}

resource "google_compute_firewall" "nothing_in" {
  name      = "strongroom-nothing-in"
  network   = google_compute_network.runs.id
  direction = "INGRESS"
  priority  = 65534

  source_ranges = ["0.0.0.0/0"]

  deny {
    protocol = "all"
  }

  log_config {
    metadata = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_firewall" "nothing_out" {
  name      = "strongroom-nothing-out"
  network   = google_compute_network.runs.id
  direction = "EGRESS"
  priority  = 65534

  destination_ranges = ["0.0.0.0/0"]

  deny {
    protocol = "all"
  }

  log_config {
    metadata = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_firewall" "portal_out" {
  name      = "strongroom-portal-out"
  network   = google_compute_network.runs.id
  direction = "EGRESS"
  priority  = 1000

  destination_ranges = concat(var.portal_cidrs, [local.restricted_google])

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# Machines have no external address; this is their way to the portal where it has a public one.
resource "google_compute_router" "runs" {
  name    = "strongroom-runs"
  network = google_compute_network.runs.id
  region  = var.region
}

resource "google_compute_router_nat" "runs" {
  name                               = "strongroom-runs"
  router                             = google_compute_router.runs.name
  region                             = var.region
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"

  subnetwork {
    name                    = google_compute_subnetwork.runs.id
    source_ip_ranges_to_nat = ["PRIMARY_IP_RANGE"]
  }

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

# Names of Google's services lead to the restricted addresses.
resource "google_dns_managed_zone" "google" {
  name       = "strongroom-google"
  dns_name   = "googleapis.com."
  visibility = "private"

  private_visibility_config {
    networks {
      network_url = google_compute_network.runs.id
    }
  }
}

resource "google_dns_record_set" "restricted" {
  managed_zone = google_dns_managed_zone.google.name
  name         = "restricted.googleapis.com."
  type         = "A"
  ttl          = 300
  rrdatas      = ["199.36.153.4", "199.36.153.5", "199.36.153.6", "199.36.153.7"]
}

resource "google_dns_record_set" "services" {
  managed_zone = google_dns_managed_zone.google.name
  name         = "*.googleapis.com."
  type         = "CNAME"
  ttl          = 300
  rrdatas      = ["restricted.googleapis.com."]
}

resource "google_dns_managed_zone" "registry" {
  name       = "strongroom-registry"
  dns_name   = "pkg.dev."
  visibility = "private"

  private_visibility_config {
    networks {
      network_url = google_compute_network.runs.id
    }
  }
}

resource "google_dns_record_set" "registry" {
  managed_zone = google_dns_managed_zone.registry.name
  name         = "*.pkg.dev."
  type         = "A"
  ttl          = 300
  rrdatas      = ["199.36.153.4", "199.36.153.5", "199.36.153.6", "199.36.153.7"]
}
