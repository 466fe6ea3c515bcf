# For a custodian who runs the key broker themselves, in a project of their own: a key in a hardware module, which closes
# the broker's private key. Only the broker may open it; nobody of the portal has a right here. An example: adapt it.

terraform {
  required_version = ">= 1.6"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 9.0" # tests/unit/infra/schemas has what this was checked against
    }
  }
}

variable "project" {
  description = "The custodian's own project."
  type        = string
}

variable "location" {
  description = "Where the key lies, e.g. europe-west2."
  type        = string
}

variable "broker_service_account" {
  description = "Service account under which `strongroom broker serve` runs, as an e-mail address."
  type        = string
}

variable "key_maker" {
  description = "Who makes the broker's key pair once, e.g. user:name@example.org. Take it out of this file afterwards."
  type        = string
}

provider "google" {
  project = var.project
}

resource "google_project_service" "kms" {
  service            = "cloudkms.googleapis.com"
  disable_on_destroy = false
}

resource "google_kms_key_ring" "data" {
  name       = "strongroom"
  location   = var.location
  depends_on = [google_project_service.kms]
}

resource "google_kms_crypto_key" "data" {
  # checkov:skip=CKV_GCP_43:It closes the broker's private keys, each once. A new version closes none of them anew; `strongroom broker rotate` does.
  name                       = "broker"
  key_ring                   = google_kms_key_ring.data.id
  purpose                    = "ENCRYPT_DECRYPT"
  destroy_scheduled_duration = "2592000s" # thirty days to change one's mind

  version_template {
    algorithm        = "GOOGLE_SYMMETRIC_ENCRYPTION"
    protection_level = "HSM"
  }

  lifecycle {
    prevent_destroy = true
  }
}

# The broker opens what was closed; it cannot close anything new, nor change or destroy the key.
resource "google_kms_crypto_key_iam_member" "broker_opens" {
  crypto_key_id = google_kms_crypto_key.data.id
  role          = "roles/cloudkms.cryptoKeyDecrypter"
  member        = "serviceAccount:${var.broker_service_account}"
}

resource "google_kms_crypto_key_iam_member" "key_maker_closes" {
  crypto_key_id = google_kms_crypto_key.data.id
  role          = "roles/cloudkms.cryptoKeyEncrypter"
  member        = var.key_maker
}

output "key" {
  value = google_kms_crypto_key.data.id
}
