"""One host by SSH.

Scripts travel encoded and arguments quoted, so that line endings, spaces in paths and the account's login shell do not
matter. A link that dies is noticed within a minute and raises `LinkError`: the step is run again.
"""

import base64
import contextlib
import shlex
import socket
import threading
import time
import uuid

import paramiko

from tasks.errors import InputError
from tasks.hosts.hostkeys import KEY_TYPES, FirstKey, KnownHosts, fingerprint_of, installation_folder
from tasks.hosts.keys import load_key
from tasks.hosts.machine import LinkError, Machine, Result
from tasks.hosts.route import CONNECT_SECONDS, Route
from tasks.spec import Host

LINK_SECONDS = 45
UNWRAP = 's=$1 e=$2; shift 2; (eval "$(printf %s "$s" | base64 -d)"); s=$?; echo; echo "$e $s"; exit "$s"'
"""Scripts travel as base64: no login shell (csh, fish) then finds a newline or a backslash to interpret. They run in a subshell:
one that a signal ends has an exit status then, which a connection that breaks off has not. A script says when it begins, and what
runs it says when it has ended: whatever a login shell prints or does before is told apart.
"""


class StrangerError(InputError):
    """Who answers at the address has not the host's key."""


class _SecondFactor(paramiko.SSHException):
    """The account wants more than a key."""


class _Transport(paramiko.Transport):
    """A connection that asks nobody at the terminal."""

    def auth_interactive_dumb(self, *_: object, **__: object) -> list[str]:
        raise _SecondFactor


class Remote(Machine):
    """A host by SSH. Connects at the first use and again after the link was lost.

    `notes` tells what a person should know, such as a host key that was trusted on first use.
    """

    def __init__(self, host: Host, known: KnownHosts | None = None):
        self.host = host
        self.route = Route.to(host)
        self.label = f"{host.name} ({self.route.place}:{self.route.port})"
        self.known = known or KnownHosts(installation_folder() / "known_hosts")
        self.notes: list[str] = []
        self._client: paramiko.SSHClient | None = None

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> paramiko.SSHClient:
        """The connection, made anew when there is none that lives.

        Raises StrangerError for another host key, InputError for a key that is refused, LinkError when nobody answers.
        """
        if self._client is not None and self._client.get_transport() and self._client.get_transport().is_active():
            return self._client
        self.close()
        pinned = self.known.pinned(self.route.name, self.route.port)
        if pinned is not None:
            self._match_given(fingerprint_of(pinned))
            self._client = self._attempt(pinned.get_name())
            return self._client
        seen = []
        for kind in KEY_TYPES if self.host.host_key else (None,):
            first = FirstKey(self.host.host_key)
            try:
                client = self._attempt(kind, first)
            except paramiko.BadHostKeyException:
                seen.append(fingerprint_of(first.key))
                continue
            except paramiko.ssh_exception.IncompatiblePeer:
                continue
            except InputError as error:
                if first.key is None:
                    raise
                raise InputError(
                    f"{str(error).rstrip('.')}; and check that {fingerprint_of(first.key)}, the host key that answers there, is "
                    "the host's own: it is not pinned before a login succeeds."
                ) from error
            self._client = self._pinned(client, first.key)
            return self._client
        raise StrangerError(
            f"{self.label} shows the host key {' and '.join(seen) or 'of no known type'}, not {self.host.host_key}: check "
            "the address and the fingerprint, another machine may answer there."
        )

    def _pinned(self, client: paramiko.SSHClient, key: paramiko.PKey) -> paramiko.SSHClient:
        """Pin the key by which a host let us in, aloud. Raises StrangerError when another login has pinned another one meanwhile."""
        there = self.known.pin(self.route.name, self.route.port, key)
        if there != key:
            client.close()
            raise StrangerError(self._another(key, there))
        if self.host.host_key is None:
            self.notes.append(
                f"Trusted on first use: the host key {fingerprint_of(key)} of {self.label} is now pinned in "
                f"{self.known.path}; compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host."
            )
        return client

    def _another(self, key: paramiko.PKey, pinned: paramiko.PKey) -> str:
        return (
            f"{self.label} shows another host key ({fingerprint_of(key)}) than the pinned one ({fingerprint_of(pinned)}): it was "
            f"set up anew or another machine answers; if that is right, remove its line from {self.known.path}."
        )

    def _match_given(self, pinned: str) -> None:
        if self.host.host_key not in (None, pinned):
            raise InputError(
                f"{self.label} is pinned with the host key {pinned} in {self.known.path}, but host_key says "
                f"{self.host.host_key}: remove its line there if the host was set up anew."
            )

    def _attempt(self, kind: str | None, first: FirstKey | None = None) -> paramiko.SSHClient:
        """One connection that accepts host keys of one type only (None: any)."""
        route, client = self.route, paramiko.SSHClient()
        if first is None:
            client.load_host_keys(str(self.known.path))
        client.set_missing_host_key_policy(first or paramiko.RejectPolicy())
        refused = [t for t in KEY_TYPES if kind not in (None, t)]
        if "ssh-rsa" in refused:
            refused += ["rsa-sha2-512", "rsa-sha2-256"]
        key = load_key(route.key_file) if route.key_file else None
        link = self._link()
        try:
            client.connect(
                route.name,
                route.port,
                route.user,
                pkey=key,
                allow_agent=key is None,
                look_for_keys=key is None,
                sock=link,
                banner_timeout=CONNECT_SECONDS,
                auth_timeout=CONNECT_SECONDS * 2,
                timeout=CONNECT_SECONDS,
                disabled_algorithms={"keys": refused},
                transport_factory=_Transport,
            )
        except paramiko.BadHostKeyException as error:
            client.close()
            if first is not None:
                raise
            raise StrangerError(self._another(error.key, error.expected_key)) from error
        except paramiko.AuthenticationException as error:
            client.close()
            raise InputError(self._refused(key, str(error))) from error
        except paramiko.ssh_exception.IncompatiblePeer as error:
            client.close()
            if first is not None:
                raise
            raise StrangerError(
                f"{self.label} no longer offers a host key of the pinned type {kind}: it was set up anew or another machine "
                f"answers; if that is right, remove its line from {self.known.path}."
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            client.close()
            if "No authentication methods" in str(error):
                raise InputError(self._refused(key)) from error
            if key is None and "No existing session" in str(error):  # the server ended it
                raise InputError(self._refused(key, "too many")) from error
            if isinstance(error, _SecondFactor):
                raise InputError(
                    f"{self.label} asks for a second factor beside the key: give an account that takes the key alone."
                ) from error
            raise LinkError(f"{self.label} broke off the connection ({_words_of(link) or error}).") from error
        client.get_transport().set_keepalive(10)
        return client

    def _link(self) -> socket.socket | paramiko.ProxyCommand:
        """What carries the connection: a socket, or the command that leads through another host."""
        if self.route.proxy:
            return paramiko.ProxyCommand(self.route.proxy)
        try:
            link = socket.create_connection((self.route.address, self.route.port), timeout=CONNECT_SECONDS)
        except OSError as error:
            reason = error.strerror or str(error)
            raise LinkError(
                f"{self.label} does not answer ({reason}): check the address, the port and that it runs."
            ) from error
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LINK_SECONDS * 1000)
        return link

    def _refused(self, key: paramiko.PKey | None, said: str = "") -> str:
        if "too many" in said.lower():
            return (
                f"{self.label} takes fewer tries than ssh-agent and ~/.ssh have keys: give the right one as key_file."
            )
        if key is None:
            return (
                f"{self.label} accepts none of the keys in ssh-agent and ~/.ssh: give key_file, or add a public key to "
                f"~/.ssh/authorized_keys of {self.route.user}."
            )
        return (
            f"{self.label} refuses the key {self.route.key_file}: add `{key.get_name()} {key.get_base64()}` to "
            f"~/.ssh/authorized_keys of {self.route.user}."
        )

    def _session(self) -> paramiko.Channel:
        """A new session; where the server allows one at a time, the last may not be over yet: then on a new connection."""
        for attempt in range(3):
            try:
                return self.connect().get_transport().open_session(timeout=CONNECT_SECONDS)
            except paramiko.ChannelException:
                self.close()
                if attempt == 2:
                    raise
        raise AssertionError

    def _run(self, script: str, args: list[str], timeout: float, stdin: bytes) -> Result:
        begin, end = (f"{word}-{uuid.uuid4().hex}" for word in ("begin", "end"))
        encoded = base64.b64encode(f"printf '%s\\n' {begin}\n{script}\n".encode()).decode()
        command = shlex.join(["sh", "-c", UNWRAP, "sh", encoded, end, *args])
        ended = threading.Event()
        self.connect()
        try:
            channel = self._session()
            transport = channel.get_transport()
            channel.exec_command(command)
            watch = threading.Timer(timeout, lambda: (ended.set(), channel.close()))
            watch.daemon = True
            watch.start()
            errors: list[bytes] = []
            reader = threading.Thread(target=_drain, args=(channel.recv_stderr, errors), daemon=True)
            reader.start()
            writer = threading.Thread(target=_feed, args=(channel, stdin), daemon=True)
            writer.start()
            output: list[bytes] = []
            _drain(channel.recv, output)
            reader.join()
            while not channel.exit_status_ready() and transport.is_active() and not ended.is_set():
                time.sleep(0.02)  # the status follows the end of the output
            watch.cancel()
            status = channel.recv_exit_status() if channel.exit_status_ready() else -1
        except LinkError:
            raise
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.close()
            reason = str(error) or type(error).__name__
            raise LinkError(f"The link to {self.label} was cut ({reason}).") from error
        text = b"".join(output).decode(errors="replace")
        said = b"".join(errors).decode(errors="replace")
        before, began, text = text.partition(f"{begin}\n")
        if ended.is_set():
            shell = (
                "" if began else "; its login shell did not get to our command, check ~/.bashrc and ~/.profile there"
            )
            raise LinkError(f"{self.label}: no end after {timeout:.0f} s{shell}.")
        if status == -1:
            self.close()
            raise LinkError(f"The link to {self.label} was cut while a command ran there.")
        if not began:
            words = Result(status, before, said).last
            raise InputError(
                f"{self.label} ran no command of ours, its login shell ended with status {status} and says: {words.rstrip('.')}: "
                "check ~/.bashrc and ~/.profile there, the account's shell, and a command= in authorized_keys."
            )
        text, whole, _ = text.rpartition(f"\n{end} {status}\n")
        if not whole:
            self.close()
            raise LinkError(f"{self.label}: a command ended before its end ({Result(status, text, said).last}).")
        return Result(status, text, said)


def _words_of(link: socket.socket | paramiko.ProxyCommand) -> str:
    """What a command that leads through another host said last before it ended."""
    if isinstance(link, socket.socket):
        return ""
    with contextlib.suppress(ProcessLookupError):
        link.close()
    lines = link.process.stderr.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _drain(receive, into: list[bytes]) -> None:
    with contextlib.suppress(OSError, EOFError):
        while chunk := receive(1 << 16):
            into.append(chunk)


def _feed(channel: paramiko.Channel, data: bytes) -> None:
    with contextlib.suppress(OSError, EOFError):
        channel.sendall(data)
        channel.shutdown_write()
