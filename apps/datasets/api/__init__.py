"""The API of the datasets app, one file per aggregate."""

from apps.datasets.api import access, catalogue, versions

urlpatterns: list = [*access.urlpatterns, *catalogue.urlpatterns, *versions.urlpatterns]
