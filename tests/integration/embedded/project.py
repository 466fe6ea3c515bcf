"""A Django project of a few lines that has the same doors as the portal, so that these tests test the stack alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

FILES = {
    "manage.py": """
        import os, sys
        from django.core.management import execute_from_command_line
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.embedded")
        execute_from_command_line(sys.argv)
    """,
    "portal/__init__.py": "from portal.celery import app",
    "portal/celery.py": """
        from celery import Celery
        app = Celery("portal")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.conf.imports = ("portal.tasks",)
    """,
    "portal/tasks.py": """
        import os, subprocess, sys
        from portal.celery import app

        @app.task(name="note")
        def note(word):
            with open(os.path.join(os.environ["STRONGROOM_VAR"], "notes"), "a") as f:
                f.write(word + chr(10))

        @app.task(name="detach")
        def detach():
            # As the local backend starts a run: in a session of its own, outliving the worker.
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
            note(f"run {child.pid}")
    """,
    "portal/settings/__init__.py": "",
    "portal/settings/embedded.py": """
        import os
        import dj_database_url
        SECRET_KEY = "x" * 50
        ALLOWED_HOSTS = ["127.0.0.1"]
        ROOT_URLCONF = "portal.urls"
        INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.staticfiles"]
        DATABASES = {"default": dj_database_url.parse(os.environ["DATABASE_URL"])}
        STATIC_URL = "/static/"
        STATIC_ROOT = os.path.join(os.environ["STRONGROOM_VAR"], "static")
        CELERY_BROKER_URL = os.environ["REDIS_URL"]
        CELERY_TASK_IGNORE_RESULT = True
        CELERY_BEAT_SCHEDULE = {"tick": {"task": "note", "schedule": 1.0, "args": ["tick"]}}
    """,
    "portal/urls.py": """
        from django.db import connection
        from django.http import HttpResponse
        from django.urls import path
        from portal.tasks import detach

        def ready(request):
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM auth_user")
                return HttpResponse(str(cursor.fetchone()[0]))

        def add(request):
            from django.contrib.auth.models import User
            User.objects.create(username=request.GET["name"])
            return HttpResponse("added")

        def start_run(request):
            detach.delay()
            return HttpResponse("started")

        urlpatterns = [path("health/ready", ready), path("add", add), path("start-run", start_run)]
    """,
    "portal/wsgi.py": """
        import os
        from django.core.wsgi import get_wsgi_application
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.embedded")
        application = get_wsgi_application()
    """,
    "infra/demo/__init__.py": "",
    "infra/demo/__main__.py": """
        import os, sys, urllib.request
        print("story at", os.environ["STRONGROOM_URL"], sys.argv[1:], flush=True)
        print(urllib.request.urlopen(os.environ["STRONGROOM_URL"] + "/health/ready").read())
        sys.exit(int(os.environ.get("STORY_EXIT", "0")))
    """,
}


def make_project(folder: Path) -> Path:
    """The tiny project in `folder`, with a copy of infra/embedded."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
        path.write_text("\n".join(line[indent:] for line in lines) + "\n")
    (folder / "infra" / "__init__.py").touch()
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "infra" / "embedded", folder / "infra" / "embedded", ignore=ignore)
    return folder


class RunningStack:
    """`python -m infra.embedded COMMAND` in the background, its terminal in a file."""

    def __init__(
        self, project: Path, *arguments: str, env: dict[str, str] | None = None, user: int | None = None
    ):
        self.project = project
        self.terminal = project / "terminal.txt"
        # A reader of its own group, as a shell would make it.
        with self.terminal.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.embedded", *(arguments or ("up",))],
                cwd=project, env=clean_environment() | (env or {}), stdout=out, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True, user=user, group=user,
                extra_groups=None if user is None else [],
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self.terminal.read_text()

    def wait_for(self, words: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while words not in self.text:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text}"
            assert time.monotonic() < until, f"no {words!r} after {seconds} s:\n{self.text}"
            time.sleep(0.05)

    def stop(self, sig: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(60)


def clean_environment() -> dict[str, str]:
    """Ours without what the test session set for itself."""
    drop = ("DATABASE_URL", "REDIS_URL", "STRONGROOM_", "DJANGO_SETTINGS_MODULE", "PYTEST_", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(drop)}


def processes_naming(word: str) -> dict[int, str]:
    """Living processes with the word in their arguments, environment or working folder, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            text = command + (entry / "environ").read_bytes() + os.fsencode(os.readlink(entry / "cwd"))
        except OSError:
            continue
        if command and word.encode() in text:
            found[int(entry.name)] = command.replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return found
