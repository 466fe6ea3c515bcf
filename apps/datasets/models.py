"""Datasets and what surrounds them. Ciphertext only: nothing here, and nothing that reads this, can open a dataset."""

from __future__ import annotations

from django.db import models
from guardian.models import UserObjectPermissionBase

from apps.accounts.models import Organisation, User
from apps.core.models import UUIDModel
from apps.datasets.states import (
    ACCESS,
    AGREEMENT,
    DATASET,
    STAGE1_RELEASE,
    VERSION,
    AccessState,
    AgreementState,
    DatasetState,
    ReleaseState,
    VersionState,
)
from apps.projects.models import Project


class Dataset(UUIDModel):
    """A catalogue entry. Its custodian answers for it; persons with the `manage_dataset` grant act for the custodian."""

    LIFECYCLE = DATASET

    class ProgramApproval(models.TextChoices):
        AUTOMATIC = "automatic", "Automatic once the rehearsal succeeded"
        REVIEWER = "reviewer", "A custodian approves each program, by hash, for each project"

    slug = models.SlugField(max_length=60, unique=True)  # the name in strongroom.load("rand-hie")
    title = models.CharField(max_length=200)
    summary = models.TextField(max_length=2000)
    custodian = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="datasets")
    state = models.CharField(max_length=20, default=DatasetState.DRAFT)
    keywords = models.JSONField(default=list)
    coverage_place = models.CharField(max_length=200, blank=True)
    coverage_from = models.DateField(null=True, blank=True)
    coverage_to = models.DateField(null=True, blank=True)
    source_url = models.URLField(blank=True)
    licence = models.CharField(max_length=200, blank=True)
    # Real personal data can never be used under software evidence; jobs.RunInput and the release policy hold it.
    personal_data = models.BooleanField()
    program_approval = models.CharField(
        max_length=20, choices=ProgramApproval.choices, default=ProgramApproval.REVIEWER
    )
    dictionary = models.JSONField(default=dict)  # Table Schema; frozen into each version
    # Who holds the keys: "" is this portal's own broker (brokers.py; where another is reached is the operator's word, in
    # KEY_BROKERS). The keys are public: [{"suite", "public", "id"}].
    key_broker = models.CharField(max_length=200, blank=True, default="")
    key_broker_keys = models.JSONField(default=list, blank=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ["title"]
        indexes = [models.Index(fields=["state", "title"])]
        permissions = [("manage_dataset", "May act for the custodian on this dataset")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(key_broker="", key_broker_keys=[])
                | (~models.Q(key_broker="") & ~models.Q(key_broker_keys=[])),
                name="dataset_key_broker_has_keys",
            ),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def log_scope(self) -> str:
        return f"dataset:{self.pk}"


class DatasetUserObjectPermission(UserObjectPermissionBase):
    """django-guardian direct foreign key row: who may act for the custodian. Read by permissions.py alone."""

    content_object = models.ForeignKey(Dataset, on_delete=models.CASCADE)


class DatasetVersion(UUIDModel):
    """One sealed upload. `seal` is the seal header (docs/reference/sealed-file.md)."""

    LIFECYCLE = VERSION

    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=20, default=VersionState.UPLOADING)
    dictionary = models.JSONField()
    media_type = models.CharField(
        max_length=60, choices=[("text/csv", "CSV"), ("application/vnd.apache.parquet", "Parquet")]
    )
    object_name = models.CharField(max_length=200)  # empty once the file of a refused version is deleted
    announced_size = models.BigIntegerField()  # bytes of ciphertext
    received_size = models.BigIntegerField(default=0)
    seal = models.JSONField(default=dict)
    ciphertext_sha256 = models.CharField(max_length=64, blank=True)
    plaintext_sha256 = models.CharField(max_length=64, blank=True)
    rows = models.BigIntegerField(null=True)
    profile = models.JSONField(null=True)  # public: aggregates, small cells suppressed
    report = models.JSONField(null=True)  # for the custodian only: problems with row numbers
    uploaded_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ["-number"]
        indexes = [
            # Which datasets have stand-in data is asked of all versions at once; their rows are kilobytes each.
            models.Index(
                fields=["id"],
                include=["dataset"],
                condition=models.Q(state="accepted"),
                name="version_accepted",
            )
        ]
        constraints = [
            models.UniqueConstraint(fields=["dataset", "number"], name="dataset_version_once"),
            models.CheckConstraint(
                condition=models.Q(state__in=["uploading", "refused"])
                | (~models.Q(ciphertext_sha256="") & ~models.Q(plaintext_sha256="")),
                name="version_hashed_once_uploaded",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dataset} version {self.number}"

    @property
    def log_scope(self) -> str:
        return f"dataset:{self.dataset_id}"


class AccessRequest(UUIDModel):
    """A project asks for a dataset; its custodian decides."""

    LIFECYCLE = ACCESS

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="access_requests")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="access_requests")
    state = models.CharField(max_length=30, default=AccessState.SUBMITTED)
    purpose = models.TextField()
    ends_on = models.DateField()
    conditions = models.TextField(blank=True)
    requested_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    decided_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "dataset"],
                condition=models.Q(
                    state__in=["submitted", "approved", "agreement_pending", "active", "suspended"]
                ),
                name="one_live_access_request",
            ),
            models.CheckConstraint(
                condition=models.Q(decided_by__isnull=True, decided_at__isnull=True)
                | models.Q(decided_by__isnull=False, decided_at__isnull=False),
                name="access_decision_paired",
            ),
            models.CheckConstraint(
                condition=models.Q(decided_by__isnull=True) | ~models.Q(decided_by=models.F("requested_by")),
                name="access_not_decided_by_requester",
            ),
        ]

    @property
    def log_scope(self) -> str:
        return f"project:{self.project_id}"


class Agreement(UUIDModel):
    """A data access agreement: text frozen at issue, named by its SHA-256, signed by both sides."""

    LIFECYCLE = AGREEMENT

    access_request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="agreements")
    state = models.CharField(max_length=20, default=AgreementState.ISSUED)
    template = models.CharField(max_length=40)
    body = models.TextField()  # plain text, exactly as signed
    sha256 = models.CharField(max_length=64)
    starts_on = models.DateField()
    ends_on = models.DateField()
    in_force_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["access_request"],
                condition=models.Q(state__in=["issued", "part_signed", "in_force"]),
                name="one_live_agreement",
            )
        ]

    @property
    def log_scope(self) -> str:
        return f"project:{self.access_request.project_id}"


class Signature(UUIDModel):
    """One side's signature, given after re-authentication, over the document's hash."""

    class Side(models.TextChoices):
        USER_ORGANISATION = "user_organisation", "Organisation of the researchers"
        CUSTODIAN = "custodian", "Custodian"

    agreement = models.ForeignKey(Agreement, on_delete=models.PROTECT, related_name="signatures")
    side = models.CharField(max_length=20, choices=Side.choices)
    signer = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    document_sha256 = models.CharField(max_length=64)
    statement = models.TextField()
    reauthenticated_at = models.DateTimeField()
    method = models.CharField(max_length=40)

    class Meta:
        ordering = ["created_at"]
        constraints = [
            models.UniqueConstraint(fields=["agreement", "side"], name="one_signature_a_side"),
            models.UniqueConstraint(fields=["agreement", "signer"], name="two_different_signers"),
        ]


class Stage1Release(UUIDModel):
    """Stand-in data made from one dataset version, waiting for the custodian's yes or released."""

    LIFECYCLE = STAGE1_RELEASE

    class Method(models.TextChoices):
        GAUSSIAN_COPULA = "gaussian_copula", "Synthetic, Gaussian copula (SDV), no formal guarantee"

    version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="releases")
    state = models.CharField(max_length=20, default=ReleaseState.ORDERED)
    method = models.CharField(max_length=40, choices=Method.choices)
    parameters = models.JSONField(default=dict)
    object_name = models.CharField(max_length=200, blank=True)
    sha256 = models.CharField(max_length=64, blank=True)
    size = models.BigIntegerField(null=True)
    rows = models.BigIntegerField(null=True)
    report = models.JSONField(null=True)  # quality and privacy report; computed on real data: custodian only
    ordered_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    decided_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(state__in=["to_review", "released", "withdrawn"])
                | (~models.Q(sha256="") & ~models.Q(object_name="")),
                name="release_has_bytes",
            ),
        ]

    @property
    def log_scope(self) -> str:
        return f"dataset:{self.version.dataset_id}"


class Download(UUIDModel):
    """Somebody downloaded something: every one is recorded."""

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True, related_name="downloads")
    what = models.CharField(max_length=40)  # stage1_release, output_package
    object_id = models.UUIDField()
    sha256 = models.CharField(max_length=64)

    class Meta:
        ordering = ["-created_at"]
