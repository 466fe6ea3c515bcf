"""The API of projects and their ethics review, relative to /api/v1/."""

from django.urls import path

from apps.projects.api import projects, reviews

urlpatterns = [
    path("application-form", projects.ApplicationForm.as_view(), name="application-form"),
    path("projects", projects.Projects.as_view(), name="projects"),
    path("projects/<uuid:pk>", projects.ProjectDetail.as_view(), name="project"),
    path("projects/<uuid:pk>/answers", projects.Answers.as_view(), name="project-answers"),
    path("projects/<uuid:pk>/members", projects.Members.as_view(), name="project-members"),
    path(
        "projects/<uuid:pk>/members/<uuid:member>/remove",
        projects.Remove.as_view(),
        name="project-member-remove",
    ),
    path("projects/<uuid:pk>/invitation", projects.Invitation.as_view(), name="project-invitation"),
    path("projects/<uuid:pk>/leave", projects.Leave.as_view(), name="project-leave"),
    path("projects/<uuid:pk>/submit", projects.Submit.as_view(), name="project-submit"),
    path("projects/<uuid:pk>/versions", projects.Versions.as_view(), name="project-versions"),
    path("projects/<uuid:pk>/versions/<int:number>", projects.Version.as_view(), name="project-version"),
    path("projects/<uuid:pk>/history", projects.History.as_view(), name="project-history"),
    path("projects/<uuid:pk>/withdraw", projects.Withdraw.as_view(), name="project-withdraw"),
    path("projects/<uuid:pk>/close", projects.Close.as_view(), name="project-close"),
    path("projects/<uuid:pk>/suspend", projects.Suspend.as_view(), name="project-suspend"),
    path("projects/<uuid:pk>/reinstate", projects.Reinstate.as_view(), name="project-reinstate"),
    path("reviews", reviews.Reviews.as_view(), name="reviews"),
    path("reviews/<uuid:pk>", reviews.ReviewDetail.as_view(), name="review"),
    path("reviews/<uuid:pk>/accept", reviews.Accept.as_view(), name="review-accept"),
    path("reviews/<uuid:pk>/return", reviews.Return.as_view(), name="review-return"),
    path("reviews/<uuid:pk>/opinions", reviews.Opinions.as_view(), name="review-opinions"),
    path("reviews/<uuid:pk>/decide", reviews.Decide.as_view(), name="review-decide"),
    path("reviews/<uuid:pk>/letter", reviews.Letter.as_view(), name="review-letter"),
]
