from django.apps import AppConfig


class DatasetsConfig(AppConfig):
    name = "apps.datasets"
    label = "datasets"

    def ready(self) -> None:
        from apps.datasets.access_queries import project_panel
        from apps.projects.queries import add_panel

        add_panel(project_panel)
