"""PostgreSQL and Valkey alone."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest
import redis

from infra.embedded.layout import Failure
from infra.embedded.services import Services
from tests.integration.embedded.project import ROOT, clean_environment, processes_naming


def test_data_and_ports_survive_a_second_start(tmp_path: Path) -> None:
    with Services(tmp_path, fast=False) as services:
        first = services.database_url, services.redis_url
        with psycopg.connect(services.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        redis.Redis.from_url(services.redis_url).set("kept", "yes")
        time.sleep(1.1)  # Valkey writes its log each second
    assert not processes_naming(str(tmp_path))
    with Services(tmp_path, fast=False) as services:
        assert (services.database_url, services.redis_url) == first
        with psycopg.connect(services.database_url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
        assert redis.Redis.from_url(services.redis_url).get("kept") == b"yes"
    assert not processes_naming(str(tmp_path))


def test_nobody_gets_in_without_the_password(tmp_path: Path) -> None:
    with Services(tmp_path) as services:
        secret = services.layout.secret("postgres")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(services.database_url.replace(secret, "wrong"), connect_timeout=3)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(host="127.0.0.1", port=services.postgres.port, user="postgres", dbname="postgres")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=services.valkey.port).ping()
        for path in (tmp_path / "secrets").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for pid in (services.postgres.child.pid, services.valkey.child.pid):  # type: ignore[union-attr]
            arguments = Path(f"/proc/{pid}/cmdline").read_text()
            assert secret not in arguments
            assert services.layout.secret("valkey") not in arguments


def test_the_portals_role_is_no_superuser_but_may_create_databases(tmp_path: Path) -> None:
    with Services(tmp_path) as services, psycopg.connect(services.database_url) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert row == (False, True)


@pytest.mark.parametrize("kill", [False, True])
def test_both_restart_on_the_same_port_from_any_thread(tmp_path: Path, kill: bool) -> None:
    with Services(tmp_path) as services:
        before = services.database_url, services.redis_url

        def restart() -> None:
            services.restart_postgres(kill=kill)
            services.restart_valkey(kill=kill)

        thread = threading.Thread(target=restart)
        thread.start()
        thread.join()
        time.sleep(0.3)  # a server bound to the thread's life would be gone by now
        assert (services.database_url, services.redis_url) == before
        assert services.postgres.ready()
        assert services.valkey.ready()
    assert not processes_naming(str(tmp_path))


def test_a_failing_body_still_stops_them(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Services(tmp_path):
        raise ZeroDivisionError
    assert not processes_naming(str(tmp_path))


def test_nothing_outlives_a_killed_manager_and_the_next_one_finds_the_data(tmp_path: Path) -> None:
    program = (
        "import sys, time; from infra.embedded.services import Services\n"
        "s = Services(sys.argv[1]); s.start(); print(s.database_url, flush=True); time.sleep(600)"
    )
    manager = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert manager.stdout is not None
    url = manager.stdout.readline().strip()
    assert url.startswith("postgres://")
    manager.send_signal(signal.SIGKILL)
    manager.wait()
    with Services(tmp_path) as services:  # at once: waits for the old server to be gone
        assert services.postgres.ready()
    until = time.monotonic() + 10
    while left := processes_naming(str(tmp_path)):
        assert time.monotonic() < until, left
        time.sleep(0.1)


def test_data_of_another_postgresql_is_refused_and_kept(tmp_path: Path) -> None:
    with Services(tmp_path):
        pass
    (tmp_path / "postgres" / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(Failure, match="made by PostgreSQL 16"):
        Services(tmp_path).start()
    assert (tmp_path / "postgres" / "data" / "base").is_dir()


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with Services(tmp_path):
        pass
    (tmp_path / "postgres" / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(Failure, match="no_such_setting"):
        Services(tmp_path).start()
    assert not processes_naming(str(tmp_path))


def test_services_command_passes_addresses_and_exit_code() -> None:
    script = "import os, sys; print(os.environ['DATABASE_URL'], os.environ['REDIS_URL']); sys.exit(7)"
    result = subprocess.run(
        [sys.executable, "-m", "infra.embedded", "services", "--", sys.executable, "-c", script],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 7, result.stderr
    database_url, redis_url = result.stdout.split()
    assert database_url.startswith("postgres://strongroom:")
    assert redis_url.startswith("redis://:")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_root_postgresql_runs_as_somebody_else(tmp_path: Path) -> None:
    with Services(tmp_path) as services:
        status = Path(f"/proc/{services.postgres.child.pid}/status").read_text()  # type: ignore[union-attr]
        uids = status.split("Uid:")[1].split()[:4]
        assert "0" not in uids
