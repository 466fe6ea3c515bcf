"""Settings shared by every way of running the portal. What differs stands in embedded, production and test."""

import json
import os
import re
from pathlib import Path
from typing import Any

import dj_database_url
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent.parent
VAR = Path(os.environ.get("STRONGROOM_VAR", BASE_DIR / "var"))


def _json_object(name: str) -> dict[str, Any]:
    """What the variable holds: a JSON object; none if it is not set. Raises ImproperlyConfigured for anything else."""
    try:
        found = json.loads(os.environ.get(name) or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ImproperlyConfigured(f"{name} must be a JSON object.")
    return found


DEBUG = False
SECRET_KEY = os.environ.get("STRONGROOM_SECRET_KEY", "")
ALLOWED_HOSTS = [h for h in os.environ.get("STRONGROOM_HOSTS", "127.0.0.1,localhost").split(",") if h]
PORTAL_URL = os.environ.get("STRONGROOM_URL", "http://127.0.0.1:8000").rstrip("/")
# The portal's own name in manifests, contexts and statements. It must never change once results exist.
PORTAL_ID = os.environ.get("STRONGROOM_PORTAL_ID", "strongroom.embedded")
CSRF_TRUSTED_ORIGINS = [PORTAL_URL]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "guardian",
    "axes",
    "csp",
    "django_htmx",
    "portal",
    "apps.core",
    "apps.audit",
    "apps.accounts",
    "apps.projects",
    "apps.datasets",
    "apps.attestation",
    "apps.jobs",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "portal.middleware.SecurityHeaders",
    "portal.middleware.LoginRequired",
    "portal.middleware.OwnPassword",
    "portal.middleware.DomainErrors",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.jinja2.Jinja2",
        "DIRS": [BASE_DIR / "frontend" / "templates"],
        "APP_DIRS": False,
        "OPTIONS": {
            "environment": "portal.jinja.environment",
            "context_processors": [
                "django.contrib.messages.context_processors.messages",
                "portal.context.page",
            ],
        },
    },
    # drf-spectacular's document pages are Django templates.
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {},
    },
]

DATABASES = {
    "default": dj_database_url.parse(
        os.environ.get("DATABASE_URL", "postgres://strongroom@127.0.0.1:5432/strongroom"),
        conn_max_age=60,
        conn_health_checks=True,
    )
}
# A statement that waits longer than this is a fault, not patience. Migrations raise it for themselves.
DATABASES["default"].setdefault("OPTIONS", {})["options"] = (
    "-c statement_timeout=30000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=60000"
)
ATOMIC_REQUESTS = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": {"socket_timeout": 3, "socket_connect_timeout": 3},
    }
}

AUTH_USER_MODEL = "accounts.User"
# E-mail addresses are unique whatever their case, by a constraint that this check does not see.
SILENCED_SYSTEM_CHECKS = ["auth.W004"]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
    "guardian.backends.ObjectPermissionBackend",
]
ANONYMOUS_USER_NAME = None
GUARDIAN_AUTO_PREFETCH = False
LOGIN_URL = "accounts:login"
LOGIN_REDIRECT_URL = "home"
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Lock-out: five wrong passwords for one account from one address, a quarter of an hour.
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
# How many proxies of ours stand before the portal, each adding to X-Forwarded-For. With too few, everybody comes from
# the proxy's address; with too many, a caller chooses theirs.
TRUSTED_PROXIES = int(os.environ.get("STRONGROOM_TRUSTED_PROXIES", "0"))
AXES_CLIENT_IP_CALLABLE = "apps.core.addresses.client_address"
AXES_LOCKOUT_CALLABLE = "apps.accounts.views.locked_out"
AXES_USERNAME_FORM_FIELD = "username"
AXES_VERBOSE = False

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 8 * 3600
SESSION_ENGINE = "django.contrib.sessions.backends.db"
CSRF_COOKIE_HTTPONLY = False  # the browser's sealing page sends the token with its chunks
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PORTAL_URL.startswith("https://")
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "Europe/London"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = VAR / "static"
STATICFILES_DIRS = [BASE_DIR / "frontend" / "static"]
STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": VAR / "media"},
    },
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024
FILE_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
FILE_UPLOAD_TEMP_DIR = str(VAR / "tmp") if (VAR / "tmp").is_dir() else None

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.accounts.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "apps.core.api.Pagination",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["apps.core.api.JSONParser"],
    "EXCEPTION_HANDLER": "apps.core.api.exception_handler",
    "DEFAULT_THROTTLE_CLASSES": ["apps.core.api.UserRate", "apps.core.api.AnonymousRate"],
    "DEFAULT_THROTTLE_RATES": {"user": "1200/min", "anon": "120/min"},
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Strongroom API",
    "DESCRIPTION": "Everything that a page of the portal does, for programs. Refusals are sentences.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {},
}

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 3600,
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "max_retries": 1,
}
CELERY_TASK_TIME_LIMIT = 600
CELERY_TASK_SOFT_TIME_LIMIT = 540
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 5.0
CELERY_TASK_DEFAULT_QUEUE = "strongroom"
CELERY_BEAT_SCHEDULE = {
    "drain-outbox": {"task": "workers.drain_outbox", "schedule": 2.0},
    "sweep-runs": {"task": "workers.sweep_runs", "schedule": 5.0},
    "ask-brokers": {"task": "workers.ask_brokers", "schedule": 15.0},
    "seal-log": {"task": "workers.seal_log", "schedule": 5.0},
    "sweep-expiries": {"task": "workers.sweep_expiries", "schedule": 300.0},
}

# Where the parts lie. Each is replaceable by name; nothing else in the code knows a path.
OBJECT_STORE = {"backend": "files", "root": str(VAR / "objects")}
KEY_DIRECTORY = VAR / "keys"
# The store of this portal's own key broker, and the brokers of custodians that it may ask (docs/reference/settings.md).
KEY_STORE = os.environ.get("STRONGROOM_KEY_STORE") or "local"
KEY_STORE_OPTIONS = _json_object("STRONGROOM_KEY_STORE_OPTIONS")
KEY_STORE_FILE = os.environ.get("STRONGROOM_KEY_STORE_FILE", "")  # none: broker.json in KEY_DIRECTORY
KEY_BROKERS = _json_object("STRONGROOM_KEY_BROKERS")
for _name, _value in KEY_BROKERS.items():
    if not isinstance(_value, str) or not re.match(r"https?://[^/]", _value):
        raise ImproperlyConfigured(
            f"STRONGROOM_KEY_BROKERS: the address of {_name!r} must begin with https:// (or http:// on one machine)."
        )
RUN_DIRECTORY = VAR / "runs"
DEFAULT_BACKEND = os.environ.get("STRONGROOM_BACKEND", "local")
# Rehearsals read stand-in data only, which researchers hold anyway: they need no trusted environment.
REHEARSAL_BACKEND = os.environ.get("STRONGROOM_REHEARSAL_BACKEND") or DEFAULT_BACKEND
# Kinds of machines that workers know; these two are always among them.
RUN_BACKENDS = list(
    dict.fromkeys(
        [
            DEFAULT_BACKEND,
            REHEARSAL_BACKEND,
            *filter(None, os.environ.get("STRONGROOM_BACKENDS", "").split(",")),
        ]
    )
)
PROGRAMS_PYTHON = os.environ.get(
    "STRONGROOM_PROGRAMS_PYTHON", str(BASE_DIR / ".venv-programs" / "bin" / "python")
)

# --- Machines (docs/reference/settings.md, section Machines). A backend that is not switched on reads none of these.
# The runner's image by digest: registry/name@sha256:... An image knows its environment by its entry point, so two kinds of
# containers need two: each has a variable of its own, and the first one stands in for those that are not set.
_image = os.environ.get("STRONGROOM_RUNNER_IMAGE", "")
RUNNER_IMAGE_REFERENCES = {
    "gcp": os.environ.get("STRONGROOM_RUNNER_IMAGE_GCP", _image),
    "azure-aci": os.environ.get("STRONGROOM_RUNNER_IMAGE_AZURE_ACI", _image),
    "kubernetes": os.environ.get("STRONGROOM_RUNNER_IMAGE_KUBERNETES", _image),
}
# This installation's mark on its machines, "" for one made of PORTAL_ID. Two installations must never share it.
RUN_INSTALLATION = os.environ.get("STRONGROOM_INSTALLATION", "")
_AZURE = {
    "subscription": os.environ.get("STRONGROOM_AZURE_SUBSCRIPTION", ""),
    "resource_group": os.environ.get("STRONGROOM_AZURE_RESOURCE_GROUP", ""),
    "location": os.environ.get("STRONGROOM_AZURE_LOCATION", ""),
}
AZURE = {
    **_AZURE,
    "subnet": os.environ.get("STRONGROOM_AZURE_SUBNET", ""),
    "image": os.environ.get("STRONGROOM_AZURE_IMAGE", ""),
    "encryption": os.environ.get("STRONGROOM_AZURE_ENCRYPTION", "DiskWithVMGuestState"),
    "disk_gib": int(os.environ.get("STRONGROOM_AZURE_DISK_GIB", "32")),
    "spot": os.environ.get("STRONGROOM_AZURE_SPOT", "") == "true",
}
AZURE_ACI = {
    **_AZURE,
    "subnet": os.environ.get("STRONGROOM_AZURE_ACI_SUBNET", ""),
    "policy_file": os.environ.get("STRONGROOM_AZURE_ACI_CCE_POLICY_FILE", ""),
    "layers_file": os.environ.get("STRONGROOM_AZURE_ACI_LAYERS_FILE", ""),
    "registry_identity": os.environ.get("STRONGROOM_AZURE_ACI_REGISTRY_IDENTITY", ""),
    "registry_server": os.environ.get("STRONGROOM_AZURE_ACI_REGISTRY_SERVER", ""),
}
GCP = {
    "project": os.environ.get("STRONGROOM_GCP_PROJECT", ""),
    "zone": os.environ.get("STRONGROOM_GCP_ZONE", ""),
    "subnet": os.environ.get("STRONGROOM_GCP_SUBNET", ""),
    "source_image": os.environ.get("STRONGROOM_GCP_SOURCE_IMAGE", ""),
    "service_account": os.environ.get("STRONGROOM_GCP_SERVICE_ACCOUNT", ""),
    "confidential_type": os.environ.get("STRONGROOM_GCP_CONFIDENTIAL_TYPE", "SEV_SNP"),
    "min_cpu_platform": os.environ.get("STRONGROOM_GCP_MIN_CPU_PLATFORM", ""),
    "disk_gib": int(os.environ.get("STRONGROOM_GCP_DISK_GIB", "20")),
    "disk_type": os.environ.get("STRONGROOM_GCP_DISK_TYPE", "pd-balanced"),
    "spot": os.environ.get("STRONGROOM_GCP_SPOT", "") == "true",
}
KUBERNETES = {
    "namespace": os.environ.get("STRONGROOM_KUBERNETES_NAMESPACE", ""),
    "portal_cidrs": tuple(filter(None, os.environ.get("STRONGROOM_KUBERNETES_PORTAL_CIDRS", "").split(","))),
    "portal_ip": os.environ.get("STRONGROOM_KUBERNETES_PORTAL_IP", ""),
    "runtime_class": os.environ.get("STRONGROOM_KUBERNETES_RUNTIME_CLASS", ""),
    "kubeconfig": os.environ.get("STRONGROOM_KUBERNETES_KUBECONFIG", ""),
    "context": os.environ.get("STRONGROOM_KUBERNETES_CONTEXT", ""),
    "service_account": os.environ.get("STRONGROOM_KUBERNETES_SERVICE_ACCOUNT", "default"),
    "pull_secret": os.environ.get("STRONGROOM_KUBERNETES_PULL_SECRET", ""),
    "gpu_resource": os.environ.get("STRONGROOM_KUBERNETES_GPU_RESOURCE", "nvidia.com/gpu"),
}
# Sizes that a run may choose from, per backend. Prices are the operator's own figures; none is given here.
RUN_SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "azure": {
        "small": {"machine": "Standard_DC4as_v5", "vcpus": 4, "memory_gib": 16},
        "large": {"machine": "Standard_DC16as_v5", "vcpus": 16, "memory_gib": 64},
    },
    "azure-aci": {"small": {"vcpus": 4, "memory_gib": 16}},
    "gcp": {
        "small": {"machine": "n2d-standard-4", "vcpus": 4, "memory_gib": 16},
        "large": {"machine": "n2d-standard-16", "vcpus": 16, "memory_gib": 64},
    },
    "kubernetes": {"small": {"vcpus": 2, "memory_gib": 8}, "large": {"vcpus": 8, "memory_gib": 32}},
}
# The operator's own tables, as JSON in a file: {"gcp": {"small": {...}}}. A backend named there is replaced whole.
if _sizes_file := os.environ.get("STRONGROOM_RUN_SIZES_FILE"):
    RUN_SIZES.update(json.loads(Path(_sizes_file).read_text()))
# Backends whose evidence shows no hardware protection: real personal data never meets them.
# Kubernetes is one whatever its runtime class: a pod's runner has software evidence only, in this version.
SOFTWARE_BACKENDS = frozenset({"local", "kubernetes"})
# True while the default backend's evidence gives no hardware protection: every page then says so.
SOFTWARE_EVIDENCE_ONLY = DEFAULT_BACKEND in SOFTWARE_BACKENDS

RUN_LIMITS = {
    "cpu_seconds": 600,
    "wall_seconds": 900,
    "memory_bytes": 4 * 1024**3,
    "disk_bytes": 2 * 1024**3,
    "file_bytes": 512 * 1024**2,
    "processes": 64,
}
# Other bounds for this installation, as JSON: {"wall_seconds": 3600}. A name that is not above is refused.
for _name, _value in json.loads(os.environ.get("STRONGROOM_RUN_LIMITS") or "{}").items():
    if _name not in RUN_LIMITS or type(_value) is not int or _value <= 0:
        raise ImproperlyConfigured(
            f"STRONGROOM_RUN_LIMITS: {_name!r} is not a limit, or is no whole number above 0."
        )
    RUN_LIMITS[_name] = _value
# The longest time limit that a project may be given, in seconds. Without a choice a run has `wall_seconds`.
LONGEST_RUN_SECONDS = max(
    RUN_LIMITS["wall_seconds"], int(os.environ.get("STRONGROOM_LONGEST_RUN_SECONDS") or 0)
)
MAX_PROGRAM_BYTES = 20 * 1024**2
MAX_DATASET_BYTES = 50 * 1024**3
# Days for which the sealed file of a refused upload stays, for questions about the refusal. 0: until the next sweep.
REFUSED_CIPHERTEXT_DAYS = int(os.environ.get("STRONGROOM_REFUSED_CIPHERTEXT_DAYS", "7"))
# For so long the catalogue shows the same counts of all datasets: they cost more than the page. 0: count each time.
CATALOGUE_COUNTS_SECONDS = 30
SMALL_CELL_THRESHOLD = 10
TERMS_VERSION = "1"
# Whom to write to, shown on the contact page.
CONTACT = os.environ.get("STRONGROOM_CONTACT", "")
# Machines of one backend at once; further runs wait in the queue.
MAX_LIVE_MACHINES = int(os.environ.get("STRONGROOM_MAX_LIVE_MACHINES", "4"))

# --- Runner image (docs/how-to/runner-image.md) ---
# The digest that manifests name, by backend. A backend that is not here runs this checkout's own files, as `local` does.
# A disk image has a digest of its own, as JSON: {"azure": "sha256:..."}.
# (Software evidence of kubernetes shows the hash of the runner's files, not the container's digest.)
RUNNER_IMAGES: dict[str, str] = {
    name: reference.rpartition("@")[2]
    for name, reference in RUNNER_IMAGE_REFERENCES.items()
    if reference and name not in SOFTWARE_BACKENDS
}
RUNNER_IMAGES |= json.loads(os.environ.get("STRONGROOM_RUNNER_IMAGES") or "{}")
for _name, _value in RUNNER_IMAGES.items():
    if not isinstance(_value, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", _value):
        raise ImproperlyConfigured(
            f"The runner image of {_name!r} is named without a digest (sha256: and 64 hexadecimal digits). A tag can be "
            "moved: see STRONGROOM_RUNNER_IMAGE and STRONGROOM_RUNNER_IMAGES."
        )
# Reference values of those images for evidence that measures machines: a policy's `code` entries, as JSON in a file. For
# rehearsals, and until a custodian sets a policy.
RUNNER_CODE: list[dict[str, object]] = []
if _code_file := os.environ.get("STRONGROOM_RUNNER_CODE_FILE"):
    RUNNER_CODE = json.loads(Path(_code_file).read_text())
# Trust anchors of one's own, beside those of the package: a folder with an anchors.json.
TRUST_DIRECTORY = os.environ.get("STRONGROOM_TRUST_DIRECTORY", "")
# Evidence of a made-up authority shows nothing. Only the test suite sets this; no variable does.
ALLOW_TEST_ANCHORS = False

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
