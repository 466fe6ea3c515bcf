"""Addresses of the accounts pages."""

from django.urls import path

from apps.accounts import views, views_people

app_name = "accounts"
urlpatterns = [
    path("login", views.login, name="login"),
    path("logout", views.logout, name="logout"),
    path("account", views.account, name="account"),
    path("account/stay", views.stay, name="stay"),
    path("account/password", views.password, name="password"),
    path("account/terms", views.accept_terms, name="accept_terms"),
    path("account/tokens", views.tokens, name="tokens"),
    path("account/tokens/<uuid:pk>/revoke", views.token_revoke, name="token_revoke"),
    path("roles", views_people.roles, name="roles"),
    path("people", views_people.people, name="people"),
    path("people/new", views_people.person_new, name="person_new"),
    path("people/<uuid:pk>", views_people.person, name="person"),
    path("people/<uuid:pk>/roles", views_people.role_grant, name="role_grant"),
    path("people/<uuid:pk>/roles/<uuid:holding>/revoke", views_people.role_revoke, name="role_revoke"),
    path("people/<uuid:pk>/training", views_people.training, name="training"),
    path("people/<uuid:pk>/deactivate", views_people.deactivate, name="deactivate"),
    path("people/<uuid:pk>/reactivate", views_people.reactivate, name="reactivate"),
    path("organisations", views_people.organisations, name="organisations"),
    path("organisations/new", views_people.organisation_new, name="organisation_new"),
]
