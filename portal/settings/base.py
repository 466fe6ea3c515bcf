"""Settings shared by every way of running the portal. What differs stands in embedded, production and test."""

import json
import os
from pathlib import Path

import dj_database_url
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent.parent
VAR = Path(os.environ.get("STRONGROOM_VAR", BASE_DIR / "var"))

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
    "seal-log": {"task": "workers.seal_log", "schedule": 5.0},
    "sweep-expiries": {"task": "workers.sweep_expiries", "schedule": 300.0},
}

# Where the parts lie. Each is replaceable by name; nothing else in the code knows a path.
OBJECT_STORE = {"backend": "files", "root": str(VAR / "objects")}
KEY_DIRECTORY = VAR / "keys"
RUN_DIRECTORY = VAR / "runs"
RUN_BACKENDS = ["local"]
DEFAULT_BACKEND = os.environ.get("STRONGROOM_BACKEND", "local")
PROGRAMS_PYTHON = os.environ.get(
    "STRONGROOM_PROGRAMS_PYTHON", str(BASE_DIR / ".venv-programs" / "bin" / "python")
)
# True while the default backend's evidence gives no hardware protection: every page then says so.
SOFTWARE_EVIDENCE_ONLY = True

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
MAX_PROGRAM_BYTES = 20 * 1024**2
MAX_DATASET_BYTES = 50 * 1024**3
SMALL_CELL_THRESHOLD = 10
TERMS_VERSION = "1"
# Whom to write to, shown on the contact page.
CONTACT = os.environ.get("STRONGROOM_CONTACT", "")
# Machines of one backend at once; further runs wait in the queue.
MAX_LIVE_MACHINES = int(os.environ.get("STRONGROOM_MAX_LIVE_MACHINES", "4"))

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
