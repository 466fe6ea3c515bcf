"""Addresses of the pages. The public ones below /datasets, the custodian's below /my-datasets."""

from django.urls import path

from apps.datasets import access_urls
from apps.datasets.views import catalogue, manage, upload

app_name = "datasets"
urlpatterns = [
    # Before the short names, which they must not be taken for.
    *access_urls.urlpatterns,
    path("datasets", catalogue.catalogue, name="catalogue"),
    path("datasets/<slug:slug>", catalogue.detail, name="detail"),
    path("my-datasets", manage.mine, name="mine"),
    path("my-datasets/register", manage.register, name="register"),
    path("my-datasets/versions/<uuid:pk>", upload.version, name="version"),
    path("my-datasets/versions/<uuid:pk>/upload", upload.upload, name="upload"),
    path("my-datasets/versions/<uuid:pk>/give-up", upload.give_up, name="give_up"),
    path("my-datasets/versions/<uuid:pk>/check-again", upload.check_again, name="check_again"),
    path("my-datasets/<slug:slug>", manage.manage, name="manage"),
    path("my-datasets/<slug:slug>/description", manage.edit, name="edit"),
    path("my-datasets/<slug:slug>/dictionary", manage.dictionary, name="dictionary"),
    path("my-datasets/<slug:slug>/managers", manage.add_manager, name="add_manager"),
    path("my-datasets/<slug:slug>/managers/<uuid:pk>/remove", manage.remove_manager, name="remove_manager"),
    path("my-datasets/<slug:slug>/versions", upload.start, name="start_upload"),
    path("my-datasets/<slug:slug>/state/<slug:verb>", manage.change_state, name="change_state"),
]
