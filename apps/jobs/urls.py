"""Addresses of the pages about programs, runs and output checks."""

from django.urls import path

from apps.jobs.views import checks, programs, runs

app_name = "jobs"
urlpatterns = [
    path("runs/", runs.runs, name="runs"),
    path("runs/<uuid:pk>", runs.run, name="run"),
    path("runs/<uuid:pk>/progress", runs.progress, name="progress"),
    path("runs/<uuid:pk>/cancel", runs.cancel, name="cancel"),
    path("runs/<uuid:pk>/log", runs.log, name="log"),
    path("runs/<uuid:pk>/evidence", runs.evidence, name="evidence"),
    path("runs/<uuid:pk>/outputs/<uuid:output_pk>", runs.output, name="rehearsal_output"),
    path("runs/<uuid:pk>/outputs/<uuid:output_pk>/file", runs.output_file, name="rehearsal_output_file"),
    path("runs/<uuid:pk>/package", runs.package, name="package"),
    path("projects/<uuid:project_pk>/programs/", programs.programs, name="programs"),
    path("projects/<uuid:project_pk>/programs/new", programs.program_new, name="program_new"),
    path("programs/<uuid:pk>", programs.program, name="program"),
    path("programs/<uuid:pk>/source", programs.source, name="program_source"),
    path("programs/<uuid:pk>/decide/<uuid:dataset_pk>", programs.decide, name="program_decide"),
    path("programs/<uuid:pk>/run", programs.run_on_real_data, name="program_run"),
    path("approvals/<uuid:pk>/revoke", programs.revoke, name="approval_revoke"),
    path("checks/", checks.checks, name="checks"),
    path("checks/<uuid:pk>", checks.check, name="check"),
    path("checks/<uuid:pk>/files/<uuid:output_pk>", checks.file, name="check_file"),
    path("checks/<uuid:pk>/files/<uuid:output_pk>/content", checks.content, name="check_content"),
    path("checks/<uuid:pk>/revoke", checks.revoke, name="check_revoke"),
]
