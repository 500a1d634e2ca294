"""The files that have a service manager run workers: plain text, made of what the manager must know."""

import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

USER_ID = 10_001
"""Who a container's processes are: nobody that a machine knows."""

_MARGIN = 15
"""Seconds beyond the shutdown timeout: a supervisor waits up to 10 for its store to take back what was abandoned."""

_FORBIDDEN = tuple(Path(folder) for folder in ("/usr", "/boot", "/efi", "/etc"))
"""What ``ProtectSystem=full`` lets nobody write to."""


class Service(Struct, frozen=True, kw_only=True):
    """Workers that are to be run, and where."""

    name: str
    root: Path
    """The directory of the project."""

    python: str
    app: str
    spec: str | None
    concurrency: int | None
    shutdown_timeout: float
    port: int | None
    """Where to answer probes."""

    user: str | None
    """Who owns the project, None for root."""

    def words(self, *, host: str = "") -> list[str]:
        """Return the arguments of ``sapwood``."""
        said = {
            "-n": self.spec,
            "-c": self.concurrency,
            "--shutdown-timeout": _plain(self.shutdown_timeout),
            "--probe-port": None if self.port is None else f"{host}{self.port}",
        }
        options = [word for name, value in said.items() if value is not None for word in (name, str(value))]
        return ["--app", self.app, "work", *options]

    @property
    def stop_seconds(self) -> int:
        """How long a manager must wait before it kills: longer than the supervisor can need."""
        return math.ceil(self.shutdown_timeout) + _MARGIN


# --- systemd --------------------------------------------------------------------------------------------------------

_SYSTEMD = """\
# Install:  sudo cp deploy/{name}.service /etc/systemd/system/
#           sudo systemctl daemon-reload && sudo systemctl enable --now {name}

[Unit]
Description=Sapwood workers of {app}
Wants=network-online.target
# When the machine goes down, workers stop before their database does.
After=network-online.target postgresql.service mariadb.service mysql.service
# However often it has failed, it is started again.
StartLimitIntervalSec=0

[Service]
# The supervisor says when its workers are ready, and every 30 seconds that it lives.
Type=notify
NotifyAccess=main
WatchdogSec=60
{user}
WorkingDirectory={directory}
ExecStart={command}
Environment=PYTHONUNBUFFERED=1
# Secrets go there, one NAME=VALUE a line: a file of root, with mode 600.
EnvironmentFile=-/etc/default/{name}

# SIGTERM goes to the supervisor alone, which lets running jobs finish. What is left at the end is killed.
KillMode=mixed
TimeoutStopSec={stop_seconds}
Restart=always
RestartSec=5
# systemd 254 and later can wait longer after each failure:
#RestartSteps=5
#RestartMaxDelaySec=60
# A worker that ran out of memory is replaced by the supervisor; the others go on.
OOMPolicy=continue

# Jobs that call a set-user-ID program, such as sudo or some mailers, need the next line removed.
NoNewPrivileges=yes
ProtectSystem=full
{writable}ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
LockPersonality=yes

[Install]
WantedBy=multi-user.target
"""


def systemd(service: Service) -> str:
    """Return a unit of systemd."""
    root = str(service.root)
    # A program whose path has such signs systemd does not start; env does.
    before = ["/usr/bin/env"] if re.search(r"""["'\\]""", service.python) else []
    words = [_specified(_quoted(word)) for word in (*before, service.python, "-m", "sapwood", *service.words())]
    # From the second word on, it puts in variables of the environment.
    command = [words[0], *(word.replace("$", "$$") for word in words[1:])]
    needs_leave = any(service.root.is_relative_to(folder) for folder in _FORBIDDEN)
    return _SYSTEMD.format(
        name=service.name,
        app=service.app,
        user=f"User={service.user}"
        if service.user
        else "# Better not root: a user who may read and write the project.\n#User=",
        directory=_specified(root),
        command=" ".join(command),
        stop_seconds=service.stop_seconds,
        writable=f"ReadWritePaths={_specified(_quoted(root))}\n" if needs_leave else "",
    )


def _quoted(word: str) -> str:
    """Return a word as systemd reads it, which is almost a shell's way."""
    if re.fullmatch(r"[\w@+=:,./-]+", word, re.ASCII):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _specified(text: str) -> str:
    return text.replace("%", "%%")


# --- supervisor -----------------------------------------------------------------------------------------------------

_SUPERVISOR = """\
; Install:  sudo cp deploy/{name}.supervisor.conf /etc/supervisor/conf.d/
;           sudo supervisorctl update
; Secrets belong into the environment of supervisord, not into this file.

[program:{name}]
command={command}
directory={directory}
{user}
environment=PYTHONUNBUFFERED="1"
autostart=true
autorestart=true
startsecs=5
; Each new try waits a second longer.
startretries=1000

; TERM goes to Sapwood's supervisor alone: it lets running jobs finish, and ends its workers.
stopsignal=TERM
stopwaitsecs={stop_seconds}
stopasgroup=false
killasgroup=false

redirect_stderr=true
; Without a name supervisord removes the log when it is started again.
;stdout_logfile=/var/log/{name}.log
"""


def supervisor(service: Service) -> str:
    """Return a program section of supervisord."""
    command = shlex.join([service.python, "-m", "sapwood", *service.words()])
    return _SUPERVISOR.format(
        name=service.name,
        command=_specified(command),
        directory=_specified(str(service.root)),
        user=f"user={service.user}"
        if service.user
        else "; Better not root: a user who may read and write the project.\n;user=",
        stop_seconds=service.stop_seconds,
    )


def fits_supervisor(text: str) -> bool:
    """Return whether supervisord can read a path: it takes what follows a blank and one of two signs for a comment."""
    return re.search(r"\s[;#]", text) is None and text == text.strip()


# --- Procfile -------------------------------------------------------------------------------------------------------


def procfile_line(service: Service) -> str:
    """Return the line of a Procfile. Without ``exec`` a shell would get the signals, and end before the workers do."""
    return f"{service.name}: exec sapwood {shlex.join(service.words())}"


def procfile(service: Service, before: str) -> str:
    """Return a Procfile with that line in place of the one of that name, or at the end."""
    line, lines = procfile_line(service), before.splitlines()
    places = [place for place, other in enumerate(lines) if procfile_name(other) == service.name]
    for place in places:
        lines[place] = line
    return "\n".join(lines if places else [*lines, line]) + "\n"


def procfile_name(line: str) -> str | None:
    """Return the name of the process that a line of a Procfile defines."""
    found = re.match(r"([A-Za-z0-9_-]+):\s*\S", line)
    return found[1] if found else None


# --- Docker ---------------------------------------------------------------------------------------------------------

_DOCKER = """\
# Build:  docker build -f Dockerfile.{name} -t {name} .
# Run:    docker run --init --stop-timeout {stop_seconds} --env-file {name}.env {name}
# A linter has checked this file; the tests of Sapwood do not build or run it.

FROM python:{version}-slim

ENV PYTHONUNBUFFERED=1
RUN useradd --uid {user} --create-home worker
WORKDIR /app

{installs}

# Dockerfile.{name}.dockerignore keeps secrets and databases out of this layer. Give secrets when you run it.
COPY . .

# The code is root's: jobs write to /tmp, to a volume, or not at all.
USER {user}:{user}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \\
  CMD {check}
CMD {command}
"""

_CHECK = (
    "import http.client, sys; probe = http.client.HTTPConnection('127.0.0.1', {port}, timeout=3); "
    "probe.request('GET', '/live'); sys.exit(probe.getresponse().status != 200)"
)
_DEPENDENCIES = (
    "import pathlib, tomllib; project = tomllib.loads(pathlib.Path('pyproject.toml').read_text())['project']; "
    "print(*project.get('dependencies', []), sep='\\n')"
)

DOCKERIGNORE = """\
# What must not get into an image.
**/.git
**/.env
**/.env.*
**/*.env
**/*.pem
**/*.key
**/.netrc
**/.pypirc
**/*.db
**/*.db-*
**/*.sqlite3*
**/.sapwood
**/.venv
**/venv
**/__pycache__
**/node_modules
deploy
"""


def docker(service: Service, version: str, requirement: str) -> str:
    """Return a Dockerfile.

    Args:
        service: the workers.
        version: that of Python, such as ``3.13``.
        requirement: what pip is told where the project does not ask for Sapwood itself.
    """
    return _DOCKER.format(
        name=service.name,
        stop_seconds=service.stop_seconds,
        version=version,
        user=USER_ID,
        installs="\n".join(_installs(service.root, requirement)),
        check=_exec(["python", "-c", _CHECK.format(port=service.port)]),
        command=_exec(["python", "-m", "sapwood", *service.words()]),
    )


def dockerignore(before: str) -> str:
    """Return what is left out of the image: what the project leaves out of its images anyway, and more."""
    return f"{before.rstrip()}\n\n{DOCKERIGNORE}" if before.strip() else DOCKERIGNORE


def _installs(root: Path, requirement: str) -> Sequence[str]:
    """Return the lines that install what the project needs, before its code comes: that changes more often."""
    listed, described = root / "requirements.txt", root / "pyproject.toml"
    pip, own = "pip install --no-cache-dir", f' "{requirement}"'
    if listed.is_file():
        asks = re.search(r"(?mi)^\s*sapwood\b", listed.read_text(encoding="utf-8", errors="replace"))
        return ["COPY requirements.txt ./", f"RUN {pip} -r requirements.txt{'' if asks else own}"]
    text = described.read_text(encoding="utf-8", errors="replace") if described.is_file() else ""
    if not re.search(r"(?m)^\s*\[project\]", text):
        return ["# Add what your jobs need.", f"RUN {pip}{own}"]
    asks = re.search(r"""["']\s*sapwood\b""", text, re.IGNORECASE)
    return [
        "COPY pyproject.toml ./",
        f'RUN python -c "{_DEPENDENCIES}" > /tmp/requirements.txt \\',
        f"  && {pip} -r /tmp/requirements.txt{'' if asks else own}",
    ]


def _exec(words: Sequence[str]) -> str:
    return json.dumps(words, ensure_ascii=False)


# --- Kubernetes -----------------------------------------------------------------------------------------------------

_KUBERNETES = """\
# Workers of {app}. The image is that of `sapwood generate service docker`.
# Secret:  kubectl create secret generic {name} --from-literal=database-url=…
# Apply:   kubectl apply -f deploy/{name}.yaml
# A linter has checked this file; the tests of Sapwood do not run it.

apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
spec:
  replicas: 1
  strategy:
    # A new pod is ready before an old one is told to stop.
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {name}
    spec:
      automountServiceAccountToken: false
      # Running jobs get {shutdown_timeout} seconds of it.
      terminationGracePeriodSeconds: {stop_seconds}
      securityContext:
        runAsNonRoot: true
        runAsUser: {user}
        runAsGroup: {user}
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: worker
          image: registry.example.com/{name}:1
          command: {command}
          env:
            # The variable that your app reads.
            - name: DATABASE_URL
              valueFrom:
                secretKeyRef:
                  name: {name}
                  key: database-url
          ports:
            - name: probe
              containerPort: {port}
          # The application is loaded first.
          startupProbe:
            httpGet:
              path: /live
              port: probe
            timeoutSeconds: 3
            periodSeconds: 5
            failureThreshold: 24
          # A database that is away is no reason to restart.
          livenessProbe:
            httpGet:
              path: /live
              port: probe
            timeoutSeconds: 3
            periodSeconds: 10
            failureThreshold: 3
          # Every worker can claim, and the database answers.
          readinessProbe:
            httpGet:
              path: /ready
              port: probe
            timeoutSeconds: 3
            periodSeconds: 10
          # Fit them to your jobs.
          resources:
            requests:
              cpu: 100m
              memory: 256Mi
            limits:
              memory: 512Mi
          securityContext:
            allowPrivilegeEscalation: false
            capabilities:
              drop: [ALL]
"""


def kubernetes(service: Service) -> str:
    """Return a Deployment."""
    words = ["python", "-m", "sapwood", *service.words(host="0.0.0.0:")]
    return _KUBERNETES.format(
        name=service.name,
        app=service.app,
        shutdown_timeout=_plain(service.shutdown_timeout),
        stop_seconds=service.stop_seconds,
        user=USER_ID,
        port=service.port,
        # Kubernetes would put variables in for $(NAME).
        command=_exec([word.replace("$(", "$$(") for word in words]),
    )


def _plain(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
