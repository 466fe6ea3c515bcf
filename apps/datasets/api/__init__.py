"""The API of the datasets app, one file per subject."""

from apps.datasets.api import access, catalogue, dictionary, managers, state, versions

urlpatterns: list = [
    *access.urlpatterns,
    *catalogue.urlpatterns,
    *dictionary.urlpatterns,
    *state.urlpatterns,
    *managers.urlpatterns,
    *versions.urlpatterns,
]
