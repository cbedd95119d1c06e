"""Settings of this process: the only reader of the environment and of the user's configuration file.

Precedence: argument, environment (``FRAY_ADDRESS``, ``FRAY_TOKEN``, ``FRAY_STORAGE``), file, default. The file is
``~/.config/fray/config.toml`` (``FRAY_CONFIG`` names another) with the keys ``address``, ``storage`` and ``token_file``.
``FRAY_FAULTS`` and ``FRAY_FAULTS_LOG`` are for tests and have no other place.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fray.errors import ConfigurationError

DEFAULT_PORT = 50051
"""Where a controller listens unless told otherwise."""

KNOWN_FILE_KEYS = ("address", "storage", "token_file")


@dataclass(frozen=True, slots=True)
class FrayConfig:
    """What a process needs to know to take part in a cluster."""

    address: str | None = None
    """URL of the controller, such as ``http://127.0.0.1:50051``; None when there is none."""
    storage: str | None = None
    """fsspec URL under which large payloads are kept; None for a private directory of this machine."""
    token: str | None = field(default=None, repr=False)
    """The cluster's secret as set by an argument or the environment; None to use the token file."""
    token_path: Path = field(default_factory=lambda: _default_dir() / "token")
    """The file that holds the user's token, mode 0600."""

    def require_token(self) -> str:
        """Return the token: the given one, else the token file's, which is made on first use.

        Raises:
            ConfigurationError: if the file is readable by others, empty, or cannot be made.
        """
        return self.token if self.token else ensure_token_file(self.token_path)


def load_config(
    address: str | None = None,
    storage: str | None = None,
    token: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> FrayConfig:
    """Return this process's settings; arguments win over the environment, which wins over the file."""
    env = os.environ if environ is None else environ
    values = _read_file(Path(env.get("FRAY_CONFIG") or _default_dir(env) / "config.toml"))
    token_file = values.get("token_file")
    found_address = address or env.get("FRAY_ADDRESS") or values.get("address")
    return FrayConfig(
        address=normalize_address(found_address) if found_address else None,
        storage=storage or env.get("FRAY_STORAGE") or values.get("storage"),
        token=_checked_token(token or env.get("FRAY_TOKEN")),
        token_path=Path(token_file).expanduser() if token_file else _default_dir(env) / "token",
    )


def load_faults(environ: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Return ``FRAY_FAULTS`` and ``FRAY_FAULTS_LOG`` as they stand, empty when unset: see ``fray.job.rpc.wire.faults``."""
    env = os.environ if environ is None else environ
    return env.get("FRAY_FAULTS", ""), env.get("FRAY_FAULTS_LOG", "")


def normalize_address(address: str) -> str:
    """Return ``address`` as a URL without a trailing slash; ``host:port`` becomes ``http://host:port``.

    Raises:
        ConfigurationError: if it has no port or another scheme.
    """
    text = address.strip().rstrip("/")
    if "://" not in text:
        text = f"http://{text}"
    scheme, _, rest = text.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme not in ("http", "https") or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(
            f"controller address {address!r} is not a URL such as http://127.0.0.1:{DEFAULT_PORT}; it needs a host and a port"
        )
    return text


def default_storage_root() -> str:
    """Return (and make) this user's private directory for payloads on this machine, mode 0700.

    Raises:
        ConfigurationError: if somebody else owns the directory.
    """
    root = Path(os.environ.get("TMPDIR") or tempfile.gettempdir()) / f"fray-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    info = root.lstat()
    if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode) or info.st_mode & 0o077:
        raise ConfigurationError(
            f"{root} is not a private directory of yours (mode 0700); remove it or set FRAY_STORAGE to another place"
        )
    return str(root)


def default_state_path(port: int) -> str:
    """Return where a controller of this user on a port saves its state (``XDG_STATE_HOME``, else ``~/.local/state``)."""
    base = os.environ.get("XDG_STATE_HOME")
    directory = Path(base) if base else Path(os.environ.get("HOME") or Path.home()) / ".local" / "state"
    return str(directory / "fray" / f"controller-{port}.sqlite")


def ensure_token_file(path: Path) -> str:
    """Return the token in ``path``, making a random one first if there is none. Safe against a concurrent maker."""
    for _ in range(100):
        try:
            return _read_token(path)
        except FileNotFoundError:
            pass
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
            try:
                os.link(draft, path)  # fails if another process was first: then its token counts
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        except OSError as error:
            raise ConfigurationError(f"cannot make the token file {path}: {error}; or set FRAY_TOKEN") from error
    raise ConfigurationError(f"cannot read the token file {path}; remove it or set FRAY_TOKEN")


def executor_environment(address: str, token: str, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a process whose code should find the cluster it runs on."""
    env = dict(os.environ if base is None else base)
    env.update(FRAY_ADDRESS=address, FRAY_TOKEN=token, PYTHONUNBUFFERED="1")
    return env


def _default_dir(env: Mapping[str, str] | None = None) -> Path:
    env = os.environ if env is None else env
    base = env.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path(env.get("HOME") or Path.home()) / ".config") / "fray"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the configuration file {path}: {error}") from error
    unknown = sorted(set(values) - set(KNOWN_FILE_KEYS))
    if unknown:
        raise ConfigurationError(f"{path}: unknown key {', '.join(unknown)}; there are: {', '.join(KNOWN_FILE_KEYS)}")
    for key, value in values.items():
        if not isinstance(value, str):
            raise ConfigurationError(f"{path}: {key} must be a string, not {value!r}")
    return values


def _read_token(path: Path) -> str:
    with path.open() as file:
        info = os.fstat(file.fileno())
        if info.st_mode & 0o077:
            raise ConfigurationError(f"the token file {path} can be read by others; run: chmod 600 {path}")
        token = file.read().strip()
    if not token:
        raise ConfigurationError(f"the token file {path} is empty; remove it and a new one is made")
    return token


def _checked_token(token: str | None) -> str | None:
    if token is None or token == "":
        return None
    if not token.isascii() or any(c.isspace() for c in token):
        raise ConfigurationError("the token must be ASCII without spaces (it travels in an HTTP header)")
    return token
