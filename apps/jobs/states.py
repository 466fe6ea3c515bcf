"""Lifecycles of a run and of the release of its outputs.

A run has a coarse state that drives the code, and a fine code with a sentence that drives the page (codes.py).
"""

from __future__ import annotations

from enum import StrEnum

from apps.core.lifecycle import Lifecycle, Step, register


class RunState(StrEnum):
    WAITING = "waiting"
    QUEUED = "queued"
    LAUNCHING = "launching"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


R = RunState
RUN = register(
    Lifecycle(
        name="run",
        states=RunState,
        initial=R.WAITING,
        table={
            R.WAITING: {
                R.QUEUED: Step("portal", note="every condition of the gate is met"),
                R.CANCELLED: Step("researcher or custodian", reason=True),
            },
            R.QUEUED: {
                R.LAUNCHING: Step("portal", note="claimed with a lease"),
                R.CANCELLED: Step("researcher or custodian", reason=True),
            },
            R.LAUNCHING: {
                R.RUNNING: Step("runner", note="its one-time token was used"),
                R.QUEUED: Step("portal", reason=True, note="the machine never called home; tried again"),
                R.FAILED: Step("portal", reason=True),
                R.CANCELLED: Step("researcher or custodian", reason=True),
            },
            R.RUNNING: {
                R.SUCCEEDED: Step("runner", note="result evidence and statement verified"),
                R.QUEUED: Step("portal", reason=True, note="lost before the program started; tried again"),
                R.FAILED: Step("runner or portal", reason=True),
                R.CANCELLED: Step("researcher or custodian", reason=True),
            },
            R.SUCCEEDED: {},
            R.FAILED: {},
            R.CANCELLED: {},
        },
        labels={
            R.WAITING: "Waiting",
            R.QUEUED: "Queued",
            R.LAUNCHING: "Starting",
            R.RUNNING: "Running",
            R.SUCCEEDED: "Succeeded",
            R.FAILED: "Failed",
            R.CANCELLED: "Cancelled",
        },
        colours={
            R.WAITING: "yellow",
            R.QUEUED: "blue",
            R.LAUNCHING: "blue",
            R.RUNNING: "blue",
            R.SUCCEEDED: "green",
            R.FAILED: "red",
            R.CANCELLED: "grey",
        },
    )
)


class OutputState(StrEnum):
    COLLECTED = "collected"
    IN_REVIEW = "in_review"
    APPROVED_ONCE = "approved_once"
    APPROVED = "approved"
    RELEASED = "released"
    REJECTED = "rejected"
    REVOKED = "revoked"


O = OutputState  # noqa: E741
OUTPUT_RELEASE = register(
    Lifecycle(
        name="output_release",
        states=OutputState,
        initial=O.COLLECTED,
        table={
            O.COLLECTED: {
                O.IN_REVIEW: Step("portal", note="outputs opened and every hash as stated"),
                O.REJECTED: Step("portal", reason=True),
            },
            O.IN_REVIEW: {
                O.APPROVED_ONCE: Step("output checker", note="first checker"),
                O.REJECTED: Step("output checker", reason=True),
            },
            O.APPROVED_ONCE: {
                O.APPROVED: Step("output checker", note="second, different checker"),
                O.REJECTED: Step("output checker", reason=True),
            },
            O.APPROVED: {
                O.RELEASED: Step("portal", note="package built; gate asked again"),
                O.REJECTED: Step("portal", reason=True, note="the gate closed in the meantime"),
            },
            O.RELEASED: {O.REVOKED: Step("output checker or custodian", reason=True)},
            O.REJECTED: {},
            O.REVOKED: {},
        },
        labels={
            O.COLLECTED: "Being opened",
            O.IN_REVIEW: "Waits for two checkers",
            O.APPROVED_ONCE: "Waits for a second checker",
            O.APPROVED: "Being packed",
            O.RELEASED: "Released",
            O.REJECTED: "Rejected",
            O.REVOKED: "Revoked",
        },
        colours={
            O.COLLECTED: "blue",
            O.IN_REVIEW: "yellow",
            O.APPROVED_ONCE: "yellow",
            O.APPROVED: "blue",
            O.RELEASED: "green",
            O.REJECTED: "red",
            O.REVOKED: "red",
        },
    )
)
