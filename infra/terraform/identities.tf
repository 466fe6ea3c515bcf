# Two identities. The runner's may ask for attestation and read one image; it can read no data, since data come from the
# portal, by run. The portal's workers may start and remove machines in this project, and act as the runner.

resource "google_project_service" "needed" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "compute.googleapis.com",
    "confidentialcomputing.googleapis.com",
    "dns.googleapis.com",
    "iam.googleapis.com",
  ])
  service            = each.value
  disable_on_destroy = false
}

resource "google_service_account" "runner" {
  account_id   = "strongroom-runner"
  display_name = "Machines of runs"
  depends_on   = [google_project_service.needed]
}

resource "google_project_iam_member" "runner_attests" {
  project = var.project
  role    = "roles/confidentialcomputing.workloadUser"
  member  = google_service_account.runner.member
}

resource "google_artifact_registry_repository" "runner" {
  # checkov:skip=CKV_GCP_84:An image of public code, taken by its digest: a key of our own would hide nothing and vouch for nothing.
  location      = var.region
  repository_id = "strongroom"
  format        = "DOCKER"
  description   = "The runner's image. Tags may not be moved."

  docker_config {
    immutable_tags = true
  }

  depends_on = [google_project_service.needed]
}

resource "google_artifact_registry_repository_iam_member" "runner_reads_its_image" {
  location   = google_artifact_registry_repository.runner.location
  repository = google_artifact_registry_repository.runner.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.runner.member
}

resource "google_project_iam_custom_role" "machines" {
  role_id     = "strongroomMachines"
  title       = "Strongroom: start, see and remove machines of runs"
  description = "What the portal's workers need of Compute Engine, and no more."
  permissions = [
    "compute.disks.create",
    "compute.disks.delete",
    "compute.disks.get",
    "compute.disks.list",
    "compute.disks.setLabels",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.list",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.setServiceAccount",
    "compute.subnetworks.use",
    "compute.zoneOperations.list",
  ]
  depends_on = [google_project_service.needed]
}

resource "google_project_iam_member" "portal_machines" {
  project = var.project
  role    = google_project_iam_custom_role.machines.id
  member  = "serviceAccount:${var.portal_service_account}"
}

resource "google_service_account_iam_member" "portal_acts_as_runner" {
  service_account_id = google_service_account.runner.name
  role               = "roles/iam.serviceAccountUser"
  member             = "serviceAccount:${var.portal_service_account}"
}
