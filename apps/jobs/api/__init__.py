"""API: programs, runs, output checks, packages."""

from django.urls import path

from apps.jobs.api import checks, programs, runs

urlpatterns = [
    path("projects/<uuid:pk>/programs", programs.Programs.as_view(), name="programs"),
    path("projects/<uuid:pk>/machines", programs.ProjectMachines.as_view(), name="project-machines"),
    path("programs/to-decide", programs.ProgramsToDecide.as_view(), name="programs-to-decide"),
    path("programs/<uuid:pk>", programs.ProgramDetail.as_view(), name="program-detail"),
    path("programs/<uuid:pk>/source", programs.ProgramSource.as_view(), name="program-source"),
    path("programs/<uuid:pk>/decisions", programs.ProgramDecision.as_view(), name="program-decide"),
    path("programs/<uuid:pk>/runs", programs.ProgramRuns.as_view(), name="program-run"),
    path("approvals/<uuid:pk>/revoke", programs.ApprovalRevoke.as_view(), name="approval-revoke"),
    path("runs", runs.Runs.as_view(), name="runs"),
    path("runs/<uuid:pk>", runs.RunDetail.as_view(), name="run-detail"),
    path("runs/<uuid:pk>/cancel", runs.RunCancel.as_view(), name="run-cancel"),
    path("runs/<uuid:pk>/log", runs.RunLog.as_view(), name="run-log"),
    path("runs/<uuid:pk>/outputs/<uuid:output_pk>", runs.RunOutput.as_view(), name="run-output"),
    path("runs/<uuid:pk>/package", runs.RunPackage.as_view(), name="run-package"),
    path("checks", checks.Checks.as_view(), name="checks"),
    path("checks/<uuid:pk>", checks.CheckDetail.as_view(), name="check-detail"),
    path("checks/<uuid:pk>/files/<uuid:output_pk>", checks.CheckFile.as_view(), name="check-file"),
    path("checks/<uuid:pk>/revoke", checks.CheckRevoke.as_view(), name="check-revoke"),
]
