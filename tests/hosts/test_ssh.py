"""One host by SSH: what runs there, whom we trust, and the sentences for what goes wrong."""

import re
import subprocess
import time
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.machine import CommandError, LinkError, Local
from tasks.hosts.ssh import Remote
from tasks.spec import Host
from tests.hosts.lab import Host as Machine
from tests.hosts.lab import Lab, call, parameters
from tests.waiting import within


def test_script_sees_its_arguments_and_input(remote: Remote) -> None:
    result = remote.run('printf "%s|" "$@"; cat', "it's", 'a "b" $c', "back\\slash", stdin=b"in\x00put")
    assert result.out == 'it\'s|a "b" $c|back\\slash|in\x00put'
    assert remote.run("cd /tmp\r\npwd\r\n").out == "/tmp\n"


def test_startup_noise_of_the_login_shell_is_left_out(remote: Remote) -> None:
    remote.run('echo "echo welcome to the machine" >"$HOME/.bashrc"')
    try:
        assert remote.run("echo done").out == "done\n"
    finally:
        remote.run('rm "$HOME/.bashrc"')


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ("echo the terminal is taken; exit 0", "ended with status 0 and says: the terminal is taken"),
        ("exec true", "status 0"),
    ],
)
def test_a_script_that_never_ran_is_no_success(start: str, says: str, remote: Remote, machine: Machine) -> None:
    machine.run(f"echo {start!r} >.bashrc")
    try:
        for attempt in (lambda: remote.put("secret", "/tmp/never"), lambda: remote.run("true", check=False)):
            with pytest.raises(InputError, match=rf"ran no command of ours, its login shell .*{says}.*~/\.bashrc"):
                attempt()
    finally:
        machine.run("rm .bashrc")


def test_words_of_a_forced_command_are_shown(lab: Lab, known: KnownHosts) -> None:
    machine = lab.host("forced", ForceCommand="echo come back on Monday; false")
    with (
        Remote(parameters(machine), known) as remote,
        pytest.raises(InputError, match="status 1 and says: come back on Monday"),
    ):
        remote.run("true")


def test_a_server_that_allows_one_session_at_a_time(lab: Lab, known: KnownHosts) -> None:
    machine = lab.host("single", MaxSessions="1")
    with Remote(parameters(machine), known) as remote:
        assert [remote.run(f"echo {number}").out for number in range(5)] == [f"{number}\n" for number in range(5)]


def test_an_agent_with_more_keys_than_the_server_tries(
    machine: Machine, known: KnownHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        monkeypatch.setenv("HOME", str(tmp_path))
        assert within(10, lambda: call("ssh-add", "-l", check=False).returncode != 2)  # 2: nobody listens yet
        for number in range(9):
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / f"key{number}"))
            call("ssh-add", "-q", str(tmp_path / f"key{number}"))
        with (
            Remote(parameters(machine, key_file=None), known) as remote,
            pytest.raises(
                InputError, match=r"fewer tries than ssh-agent and ~/.ssh have keys: give the right one as key_file"
            ),
        ):
            remote.run("true")
        with Remote(parameters(machine), known) as remote:
            remote.run("true")
    finally:
        agent.terminate()
        agent.wait()


def test_an_account_with_a_second_factor_is_named(lab: Lab, known: KnownHosts) -> None:
    second = {"KbdInteractiveAuthentication": "yes", "UsePAM": "yes"}
    machine = lab.host("careful", AuthenticationMethods="publickey,keyboard-interactive", **second)
    with (
        Remote(parameters(machine), known) as remote,
        pytest.raises(InputError, match="asks for a second factor beside the key"),
    ):
        remote.run("true")


def test_file_arrives_whole_with_its_mode(remote: Remote) -> None:
    content = bytes(range(256)) * 4000
    remote.put(content, "/tmp/a folder/a file", 0o600)
    assert remote.run('stat -c %a "$1"', "/tmp/a folder/a file").out == "600\n"
    assert int(remote.run('wc -c <"$1"', "/tmp/a folder/a file").out) == len(content)
    remote.run('rm -r "/tmp/a folder"')


def test_failing_script_says_why(remote: Remote) -> None:
    with pytest.raises(CommandError, match=r"the bucket leaks \(exit status 3\)"):
        remote.run("echo fine; echo the bucket leaks >&2; exit 3")
    for machine in (remote, Local()):
        with pytest.raises(CommandError, match=r"Killed \(killed by signal 9\)"):
            machine.run("exec sh -c 'kill -9 $$'")
    with pytest.raises(LinkError, match="no end after 1 s"):
        remote.run("sleep 30", timeout=1)
    assert remote.run("echo alive").out == "alive\n"


def test_first_key_is_pinned_aloud_and_then_kept(machine: Machine, known: KnownHosts) -> None:
    with Remote(parameters(machine), known) as first:
        first.run("true")
        assert machine.fingerprint in first.notes[0]
        assert "Trusted on first use" in first.notes[0]
    with Remote(parameters(machine), known) as second:
        second.run("true")
        assert second.notes == []
    assert known.path.read_text().startswith(f"[{machine.address}]:{machine.port} ssh-ed25519 ")


def test_a_key_is_pinned_only_by_a_login_that_succeeds(machine: Machine, known: KnownHosts, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger))
    for given in (None, machine.fingerprint):
        with (
            Remote(parameters(machine, key_file=str(stranger), host_key=given), known) as refused,
            pytest.raises(
                InputError, match=rf"refuses the key .* check that {re.escape(machine.fingerprint)}, .* not pinned"
            ),
        ):
            refused.run("true")
        assert known.pinned(machine.address, machine.port) is None
    with Remote(parameters(machine), known) as right:
        right.run("true")
    with (
        Remote(parameters(machine, key_file=str(stranger)), known) as refused,
        pytest.raises(InputError, match="refuses the key") as caught,
    ):
        refused.run("true")
    assert "not pinned" not in str(caught.value)


def unpin(known: KnownHosts, machine: Machine) -> None:
    """Remove a host's line, as the messages say."""
    lines = known.path.read_text().splitlines(keepends=True)
    own = f"{known.name(machine.address, machine.port)} "
    known.path.write_text("".join(line for line in lines if not line.startswith(own)))


def test_given_fingerprint_is_compared_before_anything_is_sent(machine: Machine, known: KnownHosts) -> None:
    with Remote(parameters(machine, host_key=machine.fingerprint), known) as right:
        right.run("true")
        assert right.notes == []
    unpin(known, machine)
    wrong = "SHA256:" + "A" * 43
    with Remote(parameters(machine, host_key=wrong), known) as other, pytest.raises(InputError) as caught:
        other.run("true")
    assert machine.fingerprint in str(caught.value)
    assert wrong in str(caught.value)
    assert known.pinned(machine.address, machine.port) is None


def test_changed_host_key_is_refused_by_name(lab: Lab, known: KnownHosts) -> None:
    machine = lab.host("changed")
    with Remote(parameters(machine), known) as connection:
        connection.run("true")
    before = machine.fingerprint
    machine.stop()
    after = machine.new_host_key()
    machine.start()
    with Remote(parameters(machine), known) as connection, pytest.raises(InputError) as caught:
        connection.run("true")
    for part in (before, after, str(known.path), "changed"):
        assert part in str(caught.value)
    unpin(known, machine)
    with Remote(parameters(machine), known) as connection:
        assert connection.run("echo ok").out == "ok\n"


def test_wrong_key_file(machine: Machine, known: KnownHosts, tmp_path) -> None:
    stranger = tmp_path / "stranger"
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger))
    public = stranger.with_suffix(".pub").read_text().split()[1]
    cases = {
        str(stranger): public,
        str(tmp_path / "absent"): "does not exist",
        str(stranger.with_suffix(".pub")): "is a public key",
    }
    for path, expected in cases.items():
        connection = Remote(parameters(machine, key_file=path), known)
        with connection, pytest.raises(InputError) as caught:
            connection.run("true")
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
    locked = tmp_path / "locked"
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked))
    with (
        Remote(parameters(machine, key_file=str(locked)), known) as connection,
        pytest.raises(InputError, match="agent"),
    ):
        connection.run("true")


def test_nobody_answers(known: KnownHosts) -> None:
    with (
        Remote(Host(address="127.0.0.1", port=9), known) as connection,
        pytest.raises(LinkError, match="does not answer"),
    ):
        connection.run("true")


def test_full_disk_is_named(lab: Lab, known: KnownHosts) -> None:
    machine = lab.host("small", disk="2m")
    with Remote(parameters(machine), known) as connection, pytest.raises(InputError, match=r"disk of small .* is full"):
        connection.put(b"x" * 4_000_000, f"{machine.home}/large")


def test_dead_host_ends_the_command(lab: Lab, known: KnownHosts) -> None:
    machine = lab.host("mortal")
    with Remote(parameters(machine), known) as connection:
        connection.run("true")
        machine.stop()
        started = time.monotonic()
        with pytest.raises(LinkError):
            connection.run("true")
        assert time.monotonic() - started < 30
        machine.start()
        assert connection.run("echo back").out == "back\n"
