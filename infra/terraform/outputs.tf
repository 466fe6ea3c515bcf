# What the portal's settings want (docs/reference/settings.md, Machines).

output "STRONGROOM_GCP_PROJECT" {
  value = var.project
}

output "STRONGROOM_GCP_SUBNET" {
  value = "projects/${var.project}/regions/${var.region}/subnetworks/${google_compute_subnetwork.runs.name}"
}

output "STRONGROOM_GCP_SERVICE_ACCOUNT" {
  value = google_service_account.runner.email
}

output "repository" {
  value = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.runner.repository_id}"
}
