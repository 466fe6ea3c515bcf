"""Addresses of the pages: all of them the custodian's, below a dataset."""

from django.urls import path

from apps.attestation import views

app_name = "attestation"
urlpatterns = [
    path("my-datasets/<slug:slug>/policy", views.policy, name="policy"),
    path("my-datasets/<slug:slug>/policy/<int:number>", views.version, name="policy_version"),
    path("my-datasets/<slug:slug>/policy/change", views.change, name="policy_change"),
    path("my-datasets/<slug:slug>/policy/paste", views.paste, name="policy_paste"),
    path("my-datasets/<slug:slug>/policy/confirm", views.confirm, name="policy_confirm"),
    path("my-datasets/<slug:slug>/key-broker", views.key_broker, name="key_broker"),
]
