"""Every address of the portal. Pages by app, the API under /api/v1, the runner's protocol under /api/runner/v1."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from apps.accounts import api as accounts_api
from apps.attestation import api as attestation_api
from apps.audit import api as audit_api
from apps.datasets import api as datasets_api
from apps.jobs import api as jobs_api
from apps.projects import api as projects_api
from portal import health, home, pages

api = [
    *accounts_api.urlpatterns,
    *projects_api.urlpatterns,
    *datasets_api.urlpatterns,
    *attestation_api.urlpatterns,
    *jobs_api.urlpatterns,
    *audit_api.urlpatterns,
    path("schema", SpectacularAPIView.as_view(), name="schema"),
]

urlpatterns = [
    path("", home.front, name="front"),
    path("home", home.home, name="home"),
    path("", include("portal.page_urls")),
    path("", include("apps.accounts.urls")),
    path("", include("apps.projects.urls")),
    path("", include("apps.attestation.urls")),
    path("", include("apps.datasets.urls")),
    path("", include("apps.jobs.urls")),
    path("", include("apps.audit.urls")),
    path("api/v1/", include((api, "api"))),
    path("api/runner/v1/", include("apps.jobs.runner_urls")),
    path("health/live", health.live, name="health-live"),
    path("health/ready", health.ready, name="health-ready"),
]

handler400 = pages.bad_request
handler403 = pages.forbidden
handler404 = pages.not_found
handler500 = pages.server_error
