"""PostgreSQL servers of a test's own, which can be stopped, frozen and killed, with standbys; and PgBouncer before one."""

import contextlib
import glob
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

from harness import PSQL, Wrong, until

ROOT = os.getuid() == 0


def as_postgres():
    """PostgreSQL's programs refuse to run as root."""
    return {"user": "postgres"} if ROOT else {}


def new_folder():
    """A folder for a server and its socket, whose path has at most 107 bytes."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="usersd.", dir="/tmp"))
    if ROOT:
        shutil.chown(folder, "postgres")
    return folder


class Cluster:
    """A server that nothing else sees."""

    kind = "postgres"

    def __init__(self, settings=""):
        self.settings = settings
        self.folder = new_folder()
        self.data = self.folder / "data"
        self.programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        self.url = f"postgres:///postgres?host={self.folder}&user=postgres"
        self.frozen = []
        self.env = None
        self.make()

    def make(self):
        self._run("initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")

    def _run(self, program, *arguments):
        subprocess.run(
            [f"{self.programs}/{program}", *map(str, arguments)], check=True, timeout=60, cwd="/", env=self.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_postgres(),
        )

    def start(self):
        options = f"-k {self.folder} -c listen_addresses='' -c max_connections=60 -c fsync=off {self.settings}"
        self._run("pg_ctl", "-D", self.data, "-s", "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self):
        self._run("pg_ctl", "-D", self.data, "-s", "-m", "immediate", "stop")

    def processes(self):
        first = int((self.data / "postmaster.pid").read_text().split()[0])
        return [first, *map(int, pathlib.Path(f"/proc/{first}/task/{first}/children").read_text().split())]

    def kill(self):
        """Ends all of its processes as the loss of its machine would."""
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        (self.data / "postmaster.pid").unlink()

    def freeze(self):
        """Stops its processes where they are: connections stay open, new ones are taken by the kernel."""
        first = self.processes()[0]
        os.kill(first, signal.SIGSTOP)
        self.frozen = self.processes()
        for process in self.frozen[1:]:
            os.kill(process, signal.SIGSTOP)

    def thaw(self):
        for process in self.frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
        self.frozen = []

    def query(self, sql):
        done = subprocess.run(
            [PSQL, "-X", "-A", "-t", "-q", "-F", "\t", "-d", self.url, "-c", sql],
            capture_output=True, text=True, timeout=60,
        )
        if done.returncode != 0:
            raise Wrong(f"psql: {done.stderr}")
        return [tuple(line.split("\t")) for line in done.stdout.splitlines()]

    def set(self, setting, value):
        """Changes a setting of the running server."""
        self.query(f"ALTER SYSTEM SET {setting} = '{value}'")
        self.query("SELECT pg_reload_conf()")
        until(lambda: self.query(f"SHOW {setting}") == [(value,)], 10, f"{setting} is {value}")

    def log(self):
        return (self.folder / "log").read_text(errors="replace")

    def drop(self):
        self.thaw()
        if (self.data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder)


class Standby(Cluster):
    """A copy of a running server, which follows it."""

    def __init__(self, primary, settings=""):
        self.primary = primary
        super().__init__(settings)

    def make(self):
        self._run("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", self.primary.url)

    def promote(self):
        self._run("pg_ctl", "-D", self.data, "-s", "-w", "promote")


@contextlib.contextmanager
def cluster(start=True, settings=""):
    made = Cluster(settings)
    try:
        if start:
            made.start()
        yield made
    finally:
        made.drop()


@contextlib.contextmanager
def pair(synchronous, settings=""):
    """A primary and its standby, without which a synchronous one acknowledges nothing."""
    with cluster(settings=settings) as primary:
        standby = Standby(primary, settings)
        try:
            standby.start()
            if synchronous:
                primary.set("synchronous_standby_names", "*")
            state = "SELECT sync_state FROM pg_stat_replication"
            wanted = [("sync" if synchronous else "async",)]
            until(lambda: primary.query(state) == wanted, 20, "the standby follows")
            yield primary, standby
        finally:
            standby.drop()


@contextlib.contextmanager
def pgbouncer(db, mode):
    """The address of a PgBouncer before `db`, with the settings of its package but for the mode."""
    folder = new_folder()
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={db.folder} user=postgres\n"
        f"[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = 6432\nauth_type = any\npool_mode = {mode}\n"
    )
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise Wrong("pgbouncer is not there: `tests/run clients` installs it")
    bouncer = subprocess.Popen(
        [program, folder / "pgbouncer.ini"], cwd="/", stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w"), **as_postgres(),
    )
    try:
        until((folder / ".s.PGSQL.6432").exists, 10, "PgBouncer listens")
        yield f"postgres:///postgres?host={folder}&port=6432&user=postgres"
    finally:
        bouncer.terminate()
        bouncer.wait(10)
        shutil.rmtree(folder)
