"""Addresses of access requests, agreements and stage-1 releases."""

from django.urls import path

from apps.datasets.views import access, agreements, releases

urlpatterns = [
    path("datasets/<slug:slug>/request-access", access.request_access, name="request_access"),
    path("access/<uuid:pk>", access.access, name="access"),
    path("access/<uuid:pk>/decide", access.decide, name="access_decide"),
    path("access/<uuid:pk>/<slug:verb>", access.change, name="access_change"),
    path("agreements", agreements.agreements, name="agreements"),
    path("agreements/<uuid:pk>", agreements.agreement, name="agreement"),
    path("agreements/<uuid:pk>/sign", agreements.sign, name="agreement_sign"),
    path("agreements/<uuid:pk>/terminate", agreements.terminate, name="agreement_terminate"),
    path("agreements/<uuid:pk>/text", agreements.text, name="agreement_text"),
    path("my-datasets/versions/<uuid:version_pk>/order", releases.order, name="release_order"),
    path("stand-in/<uuid:pk>", releases.release, name="release"),
    path("stand-in/<uuid:pk>/decide", releases.decide, name="release_decide"),
    path("stand-in/<uuid:pk>/withdraw", releases.withdraw, name="release_withdraw"),
    path("stand-in/<uuid:pk>/data", releases.data, name="release_data"),
]
