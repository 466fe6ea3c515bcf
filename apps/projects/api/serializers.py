"""What the API takes and gives. Answers are checked by the actions, as they are for the pages."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.accounts.models import Organisation
from apps.projects import queries
from apps.projects.models import ApplicationVersion, EthicsOpinion, EthicsReview, Membership, Project
from apps.projects.policies import OUTCOMES
from apps.projects.states import ETHICS_REVIEW, PROJECT


class OrganisationRef(serializers.ModelSerializer[Organisation]):
    class Meta:
        model = Organisation
        fields = ["slug", "name"]


class ProjectMember(serializers.ModelSerializer[Membership]):
    user = serializers.UUIDField(source="user_id")
    name = serializers.CharField(source="user.name")
    organisation = serializers.CharField(source="user.organisation.name", default="")

    class Meta:
        model = Membership
        fields = ["id", "user", "name", "organisation", "role", "created_at", "accepted_at"]


class ProjectSummary(serializers.ModelSerializer[Project]):
    organisation = OrganisationRef()
    board = OrganisationRef(allow_null=True)
    state = serializers.CharField(help_text=", ".join(PROJECT.labels))
    principal_investigator = serializers.SerializerMethodField()

    class Meta:
        model = Project
        fields = [
            "id",
            "ref",
            "title",
            "state",
            "organisation",
            "board",
            "principal_investigator",
            "created_at",
        ]

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_principal_investigator(self, project: Project) -> str | None:
        lead = queries.lead_of(project)
        return lead.name if lead else None


class ProjectFull(ProjectSummary):
    people = ProjectMember(many=True)

    class Meta(ProjectSummary.Meta):
        fields = [
            *ProjectSummary.Meta.fields,
            "starts_on",
            "ends_on",
            "ethics_valid_until",
            "conditions",
            "people",
        ]


class ProjectInvited(ProjectFull):
    """The same shape for one who has not accepted yet: nothing of the application, and of the people the lead and themselves."""

    def to_representation(self, instance: Project) -> dict[str, Any]:
        found: dict[str, Any] = super().to_representation(instance)
        of_interest = {str(self.context["user"].pk)} | {
            str(m.user_id)
            for m in instance.people  # type: ignore[attr-defined]
            if m.role == Membership.Role.PRINCIPAL_INVESTIGATOR
        }
        found["people"] = [m for m in found["people"] if str(m["user"]) in of_interest]
        return {
            **found,
            "starts_on": None,
            "ends_on": None,
            "ethics_valid_until": None,
            "conditions": "",
        }


class FormOption(serializers.Serializer[Any]):
    code = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    hint = serializers.CharField()


class FormQuestion(serializers.Serializer[Any]):
    code = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    hint = serializers.CharField()
    kind = serializers.CharField(help_text="text, textarea, radios, checkboxes or date (YYYY-MM-DD)")
    required = serializers.BooleanField()  # type: ignore[assignment]
    options = FormOption(many=True)
    words = serializers.IntegerField(help_text="Limit of a textarea; 0 for none")
    not_before = serializers.CharField(help_text="Code of a date that this one may not precede")
    only_if = serializers.ListField(
        child=serializers.CharField(),
        allow_null=True,
        help_text="[code, option]: asked only with that answer",
    )


class FormSection(serializers.Serializer[Any]):
    code = serializers.CharField()
    title = serializers.CharField()
    intro = serializers.CharField()
    questions = FormQuestion(many=True)


class ApplicationFormDocument(serializers.Serializer[Any]):
    version = serializers.CharField()
    sections = FormSection(many=True)
    boards = OrganisationRef(many=True)
    declaration = serializers.CharField()


class StartProject(serializers.Serializer[Any]):
    title = serializers.CharField(max_length=200)
    organisation = serializers.SlugRelatedField(
        slug_field="slug", queryset=Organisation.objects.filter(is_active=True)
    )
    submission = serializers.UUIDField(required=False, help_text="Sent twice, it makes one project")


class AnswersDocument(serializers.Serializer[Any]):
    answers = serializers.DictField(
        child=serializers.JSONField(), help_text="By question code; an empty answer removes one"
    )


class AnswersState(serializers.Serializer[Any]):
    answers = serializers.DictField(child=serializers.JSONField())
    missing = serializers.ListField(
        child=serializers.CharField(), help_text="Codes of questions that must still be answered"
    )
    changed = serializers.ListField(child=serializers.CharField(), help_text="Codes that this call changed")


class InviteToProject(serializers.Serializer[Any]):
    email = serializers.EmailField()


class AnswerInvitation(serializers.Serializer[Any]):
    decision = serializers.ChoiceField(choices=[("accept", "Accept"), ("decline", "Decline")])


class SubmitApplication(serializers.Serializer[Any]):
    board = serializers.SlugRelatedField(
        slug_field="slug", queryset=Organisation.objects.filter(is_active=True)
    )
    declaration = serializers.BooleanField(
        help_text="true: you confirm the declaration of GET /application-form"
    )
    submission = serializers.UUIDField(required=False, help_text="Sent twice, it makes one version")


class ProjectReason(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=5000)


class VersionSummary(serializers.ModelSerializer[ApplicationVersion]):
    submitted_by = serializers.CharField(source="submitted_by.name")
    review = serializers.UUIDField(source="review.pk")
    state = serializers.CharField(source="review.state")

    class Meta:
        model = ApplicationVersion
        fields = ["id", "number", "sha256", "submitted_by", "created_at", "review", "state"]


class VersionFull(VersionSummary):
    answers = serializers.DictField(child=serializers.JSONField())

    class Meta(VersionSummary.Meta):
        fields = [*VersionSummary.Meta.fields, "answers"]


class HistoryEvent(serializers.Serializer[Any]):
    text = serializers.CharField()
    by = serializers.CharField()
    at = serializers.DateTimeField()
    reason = serializers.CharField()
    state = serializers.CharField(help_text="The state reached; empty for events about people")


class ReviewSummary(serializers.ModelSerializer[EthicsReview]):
    project = serializers.UUIDField(source="version.project_id")
    ref = serializers.CharField(source="version.project.ref")
    title = serializers.CharField(source="version.project.title")
    version = serializers.IntegerField(source="version.number")
    board = OrganisationRef()
    state = serializers.CharField(help_text=", ".join(ETHICS_REVIEW.labels))
    age_days = serializers.SerializerMethodField()

    class Meta:
        model = EthicsReview
        fields = ["id", "project", "ref", "title", "version", "board", "state", "created_at", "age_days"]

    def get_age_days(self, review: EthicsReview) -> int:
        return queries.days_since(review.created_at)


class AnswerChange(serializers.Serializer[Any]):
    label = serializers.CharField()  # type: ignore[assignment]
    before = serializers.CharField()
    after = serializers.CharField()


class BoardOpinion(serializers.ModelSerializer[EthicsOpinion]):
    member = serializers.CharField(source="member.name")

    class Meta:
        model = EthicsOpinion
        fields = ["id", "member", "opinion", "comment", "created_at"]


class OpinionsDocument(serializers.Serializer[Any]):
    own = BoardOpinion(allow_null=True)
    others = BoardOpinion(many=True, help_text="Empty until you have given your own")
    hidden = serializers.IntegerField(help_text="How many you may not see")


class ReviewDocument(serializers.ModelSerializer[EthicsReview]):
    """What a review has beside its summary and its opinions."""

    sha256 = serializers.CharField(source="version.sha256")
    answers = serializers.DictField(child=serializers.JSONField(), source="version.answers")

    class Meta:
        model = EthicsReview
        fields = ["sha256", "answers", "conditions", "valid_until", "decided_at"]


class ReviewFull(ReviewSummary, ReviewDocument):
    """The shape of a whole review, put together by the view: `opinions` are those that the reader may see."""

    changes = AnswerChange(many=True, help_text="What differs from the version before")
    opinions = OpinionsDocument()
    counted = serializers.IntegerField(help_text="Opinions that count towards a decision")
    needed = serializers.IntegerField()

    class Meta:
        model = EthicsReview
        fields = [
            *ReviewSummary.Meta.fields,
            *ReviewDocument.Meta.fields,
            "changes",
            "opinions",
            "counted",
            "needed",
        ]


class GiveOpinion(serializers.Serializer[Any]):
    opinion = serializers.ChoiceField(
        choices=EthicsOpinion.Opinion.choices, help_text="interest: you take no part"
    )
    comment = serializers.CharField(max_length=5000)


class BoardDecision(serializers.Serializer[Any]):
    outcome = serializers.ChoiceField(choices=[(str(s), ETHICS_REVIEW.labels[s]) for s in OUTCOMES])
    reason = serializers.CharField(max_length=5000)
    conditions = serializers.CharField(max_length=5000, required=False, allow_blank=True)
    valid_until = serializers.DateField(required=False, allow_null=True)


class LetterDocument(serializers.Serializer[Any]):
    ref = serializers.CharField()
    title = serializers.CharField()
    version = serializers.IntegerField()
    sha256 = serializers.CharField()
    board = OrganisationRef()
    outcome = serializers.CharField()
    reason = serializers.CharField()
    conditions = serializers.CharField()
    valid_until = serializers.DateField(allow_null=True)
    decided_by = serializers.CharField()
    decided_at = serializers.DateTimeField()


class ProjectPage(serializers.Serializer[Any]):
    """One page of a list, as apps.core.api.Pagination gives it."""

    count = serializers.IntegerField()
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = ProjectSummary(many=True)


class ReviewPage(serializers.Serializer[Any]):
    """One page of a list, as apps.core.api.Pagination gives it."""

    count = serializers.IntegerField()
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = ReviewSummary(many=True)
