from django.apps import AppConfig


class DatasetsConfig(AppConfig):
    name = "apps.datasets"
    label = "datasets"

    def ready(self) -> None:
        from apps.accounts.leaving import ask_before
        from apps.datasets.access_queries import project_panel
        from apps.datasets.actions.catalogue import keep_managed
        from apps.projects.queries import add_panel

        add_panel(project_panel)
        ask_before(keep_managed)
