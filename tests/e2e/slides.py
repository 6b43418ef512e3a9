"""The demonstration of the talk *Container Migration and CRIU Details*, word for word: ``python -m e2e.slides``.

Two hosts, each with a Podman and image stores of its own, and a cable between them (`harness.machine`). A Tomcat with
a servlet that counts is run on the first, asked twice, checkpointed, copied by scp, restored on the second, asked twice
more, and started there two more times from the same file. Nothing is faked: what is printed is what the commands say.
The image is not the talk's, which no registry that can be counted on has, but made of Debian packages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack

from harness import images
from harness.machine import Machine, MachineError, need_commands
from harness.podman import Podman

#: The second host's name in the talk.
SECOND = "rhel08"
_SSHD = """\
Port 22
HostKey /etc/ssh/slides_host_key
AuthorizedKeysFile /etc/ssh/slides_key.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""
_SSH = """\
Host *
    IdentityFile /etc/ssh/slides_key
    IdentitiesOnly yes
    BatchMode yes
"""


class Slides:
    """Both hosts, and what has been typed and printed so far."""

    def __init__(self, say: Callable[[str], None]) -> None:
        need_commands(
            {"curl": "curl", "sshd": "openssh-server", "scp": "openssh-client", "ssh-keygen": "openssh-client"}
        )
        self._say = say
        self._stack = ExitStack()
        try:
            stores = images.stores()
            self.first = self._stack.enter_context(Podman(stores, "rhel07"))
            self.second = self._stack.enter_context(Podman(stores, SECOND))
            self.first.machine.join(self.second.machine)
            let_in(self.first.machine, self.second.machine)
        except BaseException:
            self._stack.close()
            raise

    def type(self, host: Podman, command: str) -> str:
        """Type a command on a host: print it and what it answers, as a terminal would."""
        self._say(f"# {command}")
        try:
            answer = host.machine.out("sh", "-c", command)
        except MachineError as error:
            for note in host.engine_logs():
                error.add_note(note)
            raise
        if answer:
            self._say(answer)
        return answer

    def first_host(self) -> tuple[str, str]:
        """Slide 74; the container's id and address."""
        container = self.type(self.first, "podman run --rm -d tomcat-hello")
        # What a person does by typing slowly.
        self.first.wait_listening(container)
        address = self.type(self.first, 'podman inspect -l --format "{{.NetworkSettings.IPAddress}}"')
        self.expect("0", self.type(self.first, f"curl {address}:8080/helloworld/"))
        self.expect("1", self.type(self.first, f"curl {address}:8080/helloworld/"))
        self.expect(container, self.type(self.first, "podman container checkpoint -l --export=/tmp/chkpt.tar.gz"))
        self.type(self.first, f"scp /tmp/chkpt.tar.gz {SECOND}:/tmp")
        return container, address

    def second_host(self, container: str, address: str) -> None:
        """Slide 75."""
        self.expect(container, self.type(self.second, "podman container restore --import=/tmp/chkpt.tar.gz"))
        self.expect(address, self.type(self.second, 'podman inspect -l --format "{{.NetworkSettings.IPAddress}}"'))
        self.expect("2", self.type(self.second, f"curl {address}:8080/helloworld/"))
        self.expect("3", self.type(self.second, f"curl {address}:8080/helloworld/"))

    def copies(self, address: str) -> None:
        """Slide 76."""
        names = ("hello1", "hello2")
        for name in names:
            self.type(self.second, f"podman container restore --import=/tmp/chkpt.tar.gz -n {name}")
        addresses = [
            self.type(self.second, f'podman inspect --format "{{{{.NetworkSettings.IPAddress}}}}" {name}')
            for name in names
        ]
        if len({address, *addresses}) != 3:
            raise AssertionError(f"not three addresses: {address}, {addresses}")
        for copy in addresses:
            self.expect("2", self.type(self.second, f"curl {copy}:8080/helloworld/"))

    def expect(self, wanted: str, said: str) -> None:
        if said != wanted:
            raise AssertionError(f"{said!r} was said where the slides say {wanted!r}")

    def close(self) -> None:
        self._stack.close()


def let_in(client: Machine, server: Machine) -> None:
    """An sshd on the server that lets the client's root in by a key, and nobody else."""
    for machine, key in ((server, "slides_host_key"), (client, "slides_key")):
        machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/etc/ssh/{key}")
    server.path("/etc/ssh/slides_key.pub").write_text(client.path("/etc/ssh/slides_key.pub").read_text())
    host_key = server.path("/etc/ssh/slides_host_key.pub").read_text()
    client.path("/etc/ssh/ssh_known_hosts").write_text(f"{server.name} {host_key}")
    settings = client.path("/etc/ssh/ssh_config.d")
    settings.mkdir(exist_ok=True)
    (settings / "slides.conf").write_text(_SSH)
    server.path("/etc/ssh/slides_sshd").write_text(_SSHD)
    # Without PAM, sshd lets nobody in whose password is locked.
    server.run("sed", "-i", "s/^root:[^:]*:/root:*:/", "/etc/shadow")
    server.run("/usr/sbin/sshd", "-f", "/etc/ssh/slides_sshd")


def main() -> int:
    """Show the slides; 0 if they came out as in the talk."""
    import pytest

    def say(text: str) -> None:
        print(text, flush=True)

    print("(The first time, an image is made of Debian packages. That takes about two minutes.)\n", flush=True)
    try:
        slides = Slides(say)
    except pytest.skip.Exception as reason:
        print(f"the slides cannot be shown here: {reason}", file=sys.stderr)
        return 1
    try:
        container, address = slides.first_host()
        say(f"\n(on the second host, {SECOND}:)")
        slides.second_host(container, address)
        say("")
        slides.copies(address)
    except (AssertionError, MachineError, TimeoutError) as error:
        print("\n".join([str(error), *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 1
    finally:
        slides.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
