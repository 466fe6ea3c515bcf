from django.apps import AppConfig


class AttestationConfig(AppConfig):
    name = "apps.attestation"
    label = "attestation"
