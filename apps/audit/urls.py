"""Addresses of the log's pages."""

from django.urls import path

from apps.audit import views

app_name = "audit"
urlpatterns = [
    path("audit", views.log, name="log"),
    path("audit/<uuid:pk>", views.entry, name="entry"),
]
