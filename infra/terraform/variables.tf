variable "project" {
  description = "The project that holds the machines of runs and nothing else."
  type        = string
}

variable "region" {
  description = "Where data may be opened, e.g. europe-west2. Custodians name its zones in their policies."
  type        = string
}

variable "portal_cidrs" {
  description = "Addresses of the portal and of the object store, as CIDRs. Machines reach these by TCP 443 and nothing else."
  type        = list(string)

  validation {
    condition     = length(var.portal_cidrs) > 0 && !contains(var.portal_cidrs, "0.0.0.0/0")
    error_message = "Name the portal's own addresses: machines must not reach everything."
  }
}

variable "portal_service_account" {
  description = "Service account of the portal's workers, as an e-mail address. It starts and removes machines."
  type        = string
}

variable "subnet_cidr" {
  description = "Private addresses of the machines."
  type        = string
  default     = "10.77.0.0/24"
}
