"""Signing in and out, and the pages of one's own account."""

from __future__ import annotations

from django.conf import settings
from django.contrib import auth, messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.accounts import actions, queries
from apps.accounts.forms import LoginForm, PasswordForm, TokenForm
from apps.accounts.login import LOCKED, LOCKED_REMEDY, TooMany, locked, sign_in_by_password
from apps.accounts.permissions import live_holdings, me
from apps.accounts.roles import ROLES, Role
from apps.core.clock import now
from apps.core.errors import Invalid
from apps.core.lifecycle import recorder
from apps.core.views import act, before_password, public

BEFORE_YOU_GO_ON = "The operator of this portal chose your present password, and so knows it. Choose your own before you go on."
ELSEWHERE = (
    "You stay signed in here and are signed out everywhere else. API tokens work until you revoke them."
)


@public
@require_http_methods(["GET", "POST"])
def login(request: HttpRequest) -> HttpResponse:
    """Sign in by e-mail address and password, then go where the person wanted to."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    here = {request.get_host()}
    target = wanted if url_has_allowed_host_and_scheme(wanted, here, request.is_secure()) else reverse("home")
    if request.user.is_authenticated:
        return redirect(target)
    form = LoginForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            user = sign_in_by_password(
                request, email=form.cleaned_data["email"], password=form.cleaned_data["password"]
            )
        except Invalid as error:
            form.add_error(None, f"{error.detail} {error.remedy}")
        except TooMany as error:
            return _too_many(request, error.detail, error.remedy)
        else:
            auth.login(request, user)
            recorder()(event="person.signed_in", by=user, object_type="person", object_id=user.pk, data={})
            return redirect(target)
    context = {
        "title": "Sign in",
        "form": form,
        "button_text": "Sign in",
        "hidden": {"next": wanted} if wanted else {},
    }
    return render(request, "accounts/login.html", context)


def locked_out(
    request: HttpRequest, response: HttpResponse | None = None, credentials: object = None
) -> HttpResponse:
    """What django-axes answers in place of any response to a locked-out login."""
    if request.path.startswith("/api/"):
        error = locked()
        return JsonResponse(error.as_dict(), status=error.status)
    return _too_many(request, LOCKED, LOCKED_REMEDY)


def _too_many(request: HttpRequest, reason: str, remedy: str) -> HttpResponse:
    response = render(
        request,
        "errors/429.html",
        {"title": "Signing in is locked", "reason": reason, "remedy": remedy},
        status=429,
    )
    response["Retry-After"] = "900"
    return response


@public
@before_password
@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    """End the session. Only by POST, so that no image or link can do it."""
    if request.user.is_authenticated:
        recorder()(
            event="person.signed_out",
            by=me(request),
            object_type="person",
            object_id=request.user.pk,
            data={},
        )
    auth.logout(request)
    messages.success(request, "You have signed out.")
    return redirect("front")


@before_password
@require_GET
def stay(request: HttpRequest) -> HttpResponse:
    """ "Stay signed in" of the session warning: renews the session, answers nothing."""
    request.session.modified = True
    return HttpResponse(status=204)


@require_GET
def account(request: HttpRequest) -> HttpResponse:
    """Who I am here: roles, training, terms, ways to sign in."""
    user = me(request)
    moment = now()
    return render(
        request,
        "accounts/account_detail.html",
        {
            "title": "Your account",
            "roles": [(ROLES[Role(h.role)], h) for h in live_holdings(user)],
            "trainings": [(t, queries.training_until(t)) for t in user.trainings.order_by("-completed_on")],
            "training_valid": queries.training_valid(user),
            "terms_accepted": queries.terms_accepted(user),
            "terms_version": settings.TERMS_VERSION,
            "live_tokens": user.tokens.filter(revoked_at__isnull=True, expires_at__gt=moment).count(),
        },
    )


@before_password
@require_http_methods(["GET", "POST"])
def password(request: HttpRequest) -> HttpResponse:
    """Replace one's own password; other sessions end. Whoever still has the first one is sent here from everywhere."""
    form, first = PasswordForm(request.POST or None), me(request).password_chosen_at is None
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        if act(
            request,
            form,
            actions.change_password,
            done="Your password was changed.",
            current=data["current"],
            new=data["new"],
        ):
            auth.update_session_auth_hash(request, me(request))
            return redirect("home" if first else "accounts:account")
    context = {
        "title": "Choose your own password" if first else "Change your password",
        "form": form,
        "button_text": "Choose password" if first else "Change password",
        "cancel_url": None if first else reverse("accounts:account"),
        "intro": BEFORE_YOU_GO_ON if first else ELSEWHERE,
    }
    return render(request, "form_page.html", context)


@require_POST
def accept_terms(request: HttpRequest) -> HttpResponse:
    """Accept the terms of use in the version that was shown."""
    actions.accept_terms(by=me(request), version=request.POST.get("version", ""))
    messages.success(request, "You accepted the terms of use.")
    return redirect("accounts:account")


@require_http_methods(["GET", "POST"])
def tokens(request: HttpRequest) -> HttpResponse:
    """One's own API tokens; a new one is shown in the answer to the POST and never again."""
    form, secret, made = TokenForm(request.POST or None), None, None
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        result = act(
            request, form, actions.create_token, name=data["name"], scopes=data["scopes"], days=data["days"]
        )
        if result:
            (made, secret), form = result, TokenForm()
    rows = list(me(request).tokens.all()[:100])
    context = {
        "title": "API tokens",
        "form": form,
        "secret": secret,
        "made": made,
        "tokens": rows,
        "now": now(),
        "breadcrumbs": [
            {"text": "Your account", "href": reverse("accounts:account")},
            {"text": "API tokens"},
        ],
    }
    return render(request, "accounts/token_list.html", context)


@require_POST
def token_revoke(request: HttpRequest, pk: object) -> HttpResponse:
    """End one of one's own tokens."""
    token = queries.token_for(me(request), pk)
    actions.revoke_token(by=me(request), token=token)
    messages.success(request, f"The token “{token.name}” no longer works.")
    return redirect("accounts:tokens")
