"""Pages that belong to no app."""

from django.urls import path

from portal import pages

urlpatterns = [
    path("accessibility", pages.accessibility, name="accessibility"),
    path("privacy", pages.privacy, name="privacy"),
    path("terms", pages.terms, name="terms"),
    path("contact", pages.contact, name="contact"),
    path("developers", pages.api_docs, name="api-docs"),
    path("status", pages.status, name="status"),
    path(".well-known/strongroom.json", pages.portal_keys, name="portal-keys"),
]
