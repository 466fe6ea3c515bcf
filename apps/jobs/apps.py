from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "apps.jobs"
    label = "jobs"

    def ready(self) -> None:
        from apps.jobs.queries import project_panel
        from apps.jobs.spending import project_panel as books
        from apps.projects.queries import add_panel

        add_panel(project_panel)
        add_panel(books)
