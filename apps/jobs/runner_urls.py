"""Addresses of the runner protocol (docs/reference/runner-protocol.md), below /api/runner/v1/."""

from django.urls import path

from apps.jobs import runner_api

urlpatterns = [
    path("claim", runner_api.claim, name="runner-claim"),
    path("challenge", runner_api.challenge, name="runner-challenge"),
    path("keys", runner_api.keys, name="runner-keys"),
    path("inputs/<uuid:dataset>", runner_api.input_bytes, name="runner-input"),
    path("program", runner_api.program_bytes, name="runner-program"),
    path("phase", runner_api.phase, name="runner-phase"),
    path("outputs", runner_api.outputs, name="runner-outputs"),
    path("result", runner_api.result, name="runner-result"),
    path("abandon", runner_api.abandon, name="runner-abandon"),
]
