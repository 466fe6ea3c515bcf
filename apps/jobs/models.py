"""Programs, the custodians' word on them, runs, and the release of what a run put out."""

from __future__ import annotations

from django.db import models

from apps.accounts.models import User
from apps.core.models import UUIDModel
from apps.datasets.models import Dataset, DatasetVersion, Stage1Release
from apps.jobs.states import OUTPUT_RELEASE, RUN, OutputState, RunState
from apps.projects.models import Project


class Program(UUIDModel):
    """What a researcher uploaded for a project, stored by content hash, naming the dataset versions it reads."""

    class Kind(models.TextChoices):
        PYTHON = "py", "Python program"
        NOTEBOOK = "ipynb", "Notebook"
        ARCHIVE = "zip", "Zip archive with an entry point"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="programs")
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    entry = models.CharField(max_length=200)
    sha256 = models.CharField(max_length=64)
    size = models.BigIntegerField()
    object_name = models.CharField(max_length=200)
    note = models.TextField(blank=True)
    files = models.JSONField(default=list)  # of an archive: [{path, size}]
    versions = models.ManyToManyField(DatasetVersion, related_name="programs")
    uploaded_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    # The same form sent twice is one program.
    submission = models.CharField(max_length=64)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["project", "submission"], name="program_submitted_once")
        ]


class ProgramApproval(UUIDModel):
    """A custodian's decision on one program (by hash) reading one dataset. Decided once; a new decision is a new program.

    Taking an approval back leaves the decision's own author and reason as they were and adds those of the revocation.
    """

    class Decision(models.TextChoices):
        APPROVED = "approved", "Approved"
        REFUSED = "refused", "Refused"
        REVOKED = "revoked", "Approval revoked"

    program = models.ForeignKey(Program, on_delete=models.PROTECT, related_name="approvals")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="program_approvals")
    program_sha256 = models.CharField(max_length=64)
    decision = models.CharField(max_length=10, choices=Decision.choices)
    automatic = models.BooleanField(default=False)
    by = models.CharField(max_length=80)
    reason = models.TextField(blank=True)
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.CharField(max_length=80, blank=True)
    revocation_reason = models.TextField(blank=True)

    class Meta:
        ordering = ["created_at"]
        constraints = [
            models.UniqueConstraint(fields=["program", "dataset"], name="program_decided_once"),
            models.CheckConstraint(condition=~models.Q(by=""), name="program_approval_has_actor"),
            models.CheckConstraint(
                condition=models.Q(decision="revoked", revoked_at__isnull=False)
                & ~models.Q(revocation_reason="")
                | ~models.Q(decision="revoked") & models.Q(revoked_at__isnull=True, revocation_reason=""),
                name="program_approval_revoked_with_reason",
            ),
        ]


class Run(UUIDModel):
    """One use of data: profiling, making stand-in data, a rehearsal, or research on the real data."""

    LIFECYCLE = RUN

    class Kind(models.TextChoices):
        PROFILE = "profile", "Profiling run"
        SYNTHESISE = "synthesise", "Making stand-in data"
        REHEARSAL = "rehearsal", "Rehearsal on stand-in data"
        RESEARCH = "research", "Stage 2, on the real data"

    kind = models.CharField(max_length=20, choices=Kind.choices)
    state = models.CharField(max_length=20, default=RunState.WAITING)
    code = models.CharField(max_length=60, default="created")  # fine code, see codes.py
    phase = models.CharField(max_length=20, blank=True)
    phase_done = models.BigIntegerField(default=0)
    phase_total = models.BigIntegerField(default=0)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True, related_name="runs")
    program = models.ForeignKey(Program, on_delete=models.PROTECT, null=True, related_name="runs")
    version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, null=True, related_name="runs")
    release = models.ForeignKey(Stage1Release, on_delete=models.PROTECT, null=True, related_name="runs")
    requested_by = models.CharField(max_length=80)

    backend = models.CharField(max_length=20)
    size = models.CharField(
        max_length=40, blank=True
    )  # of the machine, as chosen; "" for the smallest that fits
    time_limit = models.PositiveIntegerField(null=True)  # seconds for the program, as chosen; null: the usual
    manifest = models.JSONField(default=dict)
    manifest_sha256 = models.CharField(max_length=64, blank=True)

    # The present attempt: a machine with a deterministic name, one launch token, one session.
    attempt = models.PositiveIntegerField(default=0)
    machine = models.CharField(max_length=80, blank=True)
    launch_digest = models.CharField(max_length=64, blank=True)
    session_digest = models.CharField(max_length=64, blank=True)
    program_started = models.BooleanField(default=False)
    lease_until = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    queued_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    cancel_reason = models.TextField(blank=True)
    # While it runs: since when a custodian's key broker has not said whether it may still use that broker's keys.
    keys_unknown_since = models.DateTimeField(null=True)

    exit_class = models.CharField(max_length=20, blank=True)
    exception_type = models.CharField(max_length=120, blank=True)
    exception_line = models.PositiveIntegerField(null=True)
    exception_file = models.CharField(max_length=200, blank=True)
    log_object = models.CharField(max_length=200, blank=True)  # rehearsals only
    sealed_object = models.CharField(max_length=200, blank=True)
    sealed = models.JSONField(default=dict)
    outputs_opened = models.BooleanField(default=False)  # the worker has opened, checked and stored them
    statement = models.JSONField(null=True)
    statement_sha256 = models.CharField(max_length=64, blank=True)
    log_entry = models.UUIDField(null=True)
    machine_gone = models.BooleanField(default=False)
    # A research run is asked for once per click.
    submission = models.CharField(max_length=64, null=True, unique=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(
                fields=["state"],
                condition=~models.Q(state__in=["succeeded", "failed", "cancelled"]),
                name="run_live",
            ),
            models.Index(
                fields=["machine_gone"], condition=models.Q(machine_gone=False), name="run_machine_present"
            ),
            models.Index(fields=["-created_at", "-id"], name="run_newest"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    kind__in=["rehearsal", "research"], project__isnull=False, program__isnull=False
                )
                | models.Q(kind="profile", version__isnull=False, project__isnull=True)
                | models.Q(kind="synthesise", release__isnull=False, project__isnull=True),
                name="run_kind_has_its_subject",
            ),
            models.CheckConstraint(
                condition=~models.Q(state="succeeded")
                | ~models.Q(statement_sha256="")
                | models.Q(kind="rehearsal"),
                name="no_success_without_statement",
            ),
            models.UniqueConstraint(
                fields=["program"], condition=models.Q(kind="rehearsal"), name="one_rehearsal_a_program"
            ),
        ]

    @property
    def log_scope(self) -> str:
        return f"project:{self.project_id}" if self.project_id else ""


class RunInput(UUIDModel):
    """What a run reads: a sealed dataset version (stage 2), or a stage-1 release.

    The constraint is the last lock on the door: real personal data never meets the local backend, whose software
    evidence protects nothing. `personal_data` and `backend` are copied here so that the database itself can hold it.
    """

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="inputs")
    version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="run_inputs")
    release = models.ForeignKey(Stage1Release, on_delete=models.PROTECT, null=True, related_name="run_inputs")
    stage = models.PositiveSmallIntegerField()
    personal_data = models.BooleanField()
    backend = models.CharField(max_length=20)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "version"], name="run_input_once"),
            models.CheckConstraint(
                condition=models.Q(stage=1, release__isnull=False) | models.Q(stage=2, release__isnull=True),
                name="run_input_stage",
            ),
            models.CheckConstraint(
                condition=~models.Q(stage=2, personal_data=True, backend__in=["local", "kubernetes"]),
                name="no_personal_data_under_software_evidence",
            ),
        ]


class OutputRelease(UUIDModel):
    """The outputs of one run on their way out: opened, looked at by two checkers, packed, released."""

    LIFECYCLE = OUTPUT_RELEASE

    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="output_release")
    state = models.CharField(max_length=20, default=OutputState.COLLECTED)
    first_checker = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    second_checker = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    package_object = models.CharField(max_length=200, blank=True)
    package_sha256 = models.CharField(max_length=64, blank=True)
    package_size = models.BigIntegerField(null=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(
                fields=["created_at"],
                condition=models.Q(state__in=["in_review", "approved_once"]),
                name="output_release_to_check",
            )
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(first_checker__isnull=True)
                | models.Q(second_checker__isnull=True)
                | ~models.Q(first_checker=models.F("second_checker")),
                name="two_different_checkers",
            ),
            models.CheckConstraint(
                condition=~models.Q(state__in=["approved", "released"])
                | models.Q(first_checker__isnull=False, second_checker__isnull=False),
                name="release_needs_two_checkers",
            ),
            models.CheckConstraint(
                condition=~models.Q(state="released") | ~models.Q(package_sha256=""),
                name="released_means_packed",
            ),
        ]

    @property
    def log_scope(self) -> str:
        return f"project:{self.run.project_id}"


class Output(UUIDModel):
    """One file that a run put out."""

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="outputs")
    path = models.CharField(max_length=200)
    sha256 = models.CharField(max_length=64)
    size = models.BigIntegerField()
    media_type = models.CharField(max_length=80)
    object_name = models.CharField(max_length=200)

    class Meta:
        ordering = ["path"]
        constraints = [models.UniqueConstraint(fields=["run", "path"], name="output_once")]


class OutputCheck(UUIDModel):
    """One checker's decision on one run's outputs."""

    class Decision(models.TextChoices):
        APPROVE = "approve", "Approve for release"
        REJECT = "reject", "Reject"

    output_release = models.ForeignKey(OutputRelease, on_delete=models.PROTECT, related_name="checks")
    checker = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    decision = models.CharField(max_length=10, choices=Decision.choices)
    comment = models.TextField(blank=True)

    class Meta:
        ordering = ["created_at"]
        constraints = [
            models.UniqueConstraint(fields=["output_release", "checker"], name="one_check_a_person")
        ]


class RunCost(UUIDModel):
    """What one run's machines cost, booked once when the last of them is gone. Copied figures: prices change."""

    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="cost")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True, related_name="run_costs")
    backend = models.CharField(max_length=20)
    size = models.CharField(max_length=40, blank=True)
    seconds = models.PositiveIntegerField()
    pence_per_hour = models.PositiveIntegerField(null=True)  # null: no price was given
    price_source = models.CharField(max_length=200, blank=True)
    pence = models.PositiveIntegerField(null=True)


class ProjectAllowance(UUIDModel):
    """Which machines a project may choose, for how long, and what all its runs together may cost. Without a row: the default size."""

    project = models.OneToOneField(Project, on_delete=models.PROTECT, related_name="allowance")
    sizes = models.JSONField(default=list)  # names of sizes, of any backend
    budget_pence = models.PositiveIntegerField(null=True)  # null: no limit
    longest_seconds = models.PositiveIntegerField(null=True)  # the longest time limit; null: the usual one
    set_by = models.CharField(max_length=80)
