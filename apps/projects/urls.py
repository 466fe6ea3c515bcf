"""Addresses of the pages."""

from django.urls import path

from apps.projects.views import applications, people, projects, reviews

app_name = "projects"
urlpatterns = [
    path("projects", projects.list_, name="list"),
    path("projects/new", projects.new, name="new"),
    path("projects/<uuid:pk>", projects.detail, name="detail"),
    path("projects/<uuid:pk>/withdraw", projects.withdraw, name="withdraw"),
    path("projects/<uuid:pk>/close", projects.close, name="close"),
    path("projects/<uuid:pk>/suspend", projects.suspend, name="suspend"),
    path("projects/<uuid:pk>/reinstate", projects.reinstate, name="reinstate"),
    path("projects/<uuid:pk>/application", applications.tasks, name="application"),
    path("projects/<uuid:pk>/application/check", applications.check, name="check"),
    path("projects/<uuid:pk>/application/<slug:code>", applications.section, name="section"),
    path("projects/<uuid:pk>/versions/<int:number>", applications.version, name="version"),
    path("projects/<uuid:pk>/versions/<int:number>/submitted", applications.submitted, name="submitted"),
    path("projects/<uuid:pk>/invitation", people.invitation, name="invitation"),
    path("projects/<uuid:pk>/people/invite", people.invite, name="invite"),
    path("projects/<uuid:pk>/people/<uuid:member>/remove", people.remove, name="remove"),
    path("projects/<uuid:pk>/leave", people.leave, name="leave"),
    path("reviews", reviews.list_, name="reviews"),
    path("reviews/<uuid:pk>", reviews.detail, name="review"),
    path("reviews/<uuid:pk>/accept", reviews.accept, name="review-accept"),
    path("reviews/<uuid:pk>/return", reviews.return_, name="review-return"),
    path("reviews/<uuid:pk>/opinion", reviews.opinion, name="review-opinion"),
    path("reviews/<uuid:pk>/interest", reviews.interest, name="review-interest"),
    path("reviews/<uuid:pk>/decide", reviews.decide, name="review-decide"),
    path("reviews/<uuid:pk>/letter", reviews.letter, name="letter"),
]
