from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "apps.audit"
    label = "audit"

    def ready(self) -> None:
        from apps.audit.actions import record
        from apps.core.lifecycle import set_recorder

        set_recorder(record)
