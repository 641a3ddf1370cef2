"""Two network namespaces joined by a cable: an application's, whose connections are redirected to the agent there, and the network's.

Needs root, iproute2, nftables and iptables: tests/run sees to the programs, and what is missing is an error.
"""

import contextlib
import ctypes
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import trustme

import support

# The user that the agent runs as; its own connections are exempt.
AGENT = 4242
PORT = 15001
HERE, THERE = ("198.51.100.1", "2001:db8:1::1"), ("198.51.100.2", "2001:db8:1::2")
CLONE_NEWNET = 0x40000000


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Namespaces:
    """They, and what is started in them, end with the stack. The network's names are api.example.com and other.example.com, at these addresses."""

    def __init__(self, stack, addresses=THERE):
        for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("iptables", "iptables"), ("setpriv", "util-linux"), ("curl", "curl")):
            if shutil.which(program) is None:
                raise RuntimeError(f"{program} is missing (Debian: apt install {package})")
        if os.geteuid() != 0:
            raise RuntimeError("network namespaces need root")
        self.stack = stack
        self.place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.chmod(self.place, 0o755)
        self.app, self.net = (f"fieldveil-{kind}-{os.getpid()}" for kind in ("app", "net"))
        for name in (self.app, self.net):
            self.add(name)
        self.join(self.app, "here", HERE, self.net, "there", THERE)
        hosts = ["127.0.0.1 localhost", *(f"{address} api.example.com other.example.com" for address in addresses)]
        (self.place / "hosts").write_text("\n".join(hosts) + "\n")
        public = trustme.CA()
        public.cert_pem.write_to_path(self.place / "public.pem")
        self.issued = public.issue_cert("api.example.com", "other.example.com")
        self.issued.private_key_pem.write_to_path(self.place / "key.pem")
        for number, blob in enumerate(self.issued.cert_chain_pems):
            blob.write_to_path(self.place / "cert.pem", append=number > 0)

    def add(self, name):
        run("ip", "netns", "add", name)
        self.stack.callback(run, "ip", "netns", "del", name)
        self.inside(name, "ip", "link", "set", "lo", "up")

    def join(self, one, link, address, other, far, there):
        """A cable between two, with an interface and addresses of either family at each end."""
        run("ip", "link", "add", link, "netns", one, "type", "veth", "peer", "name", far, "netns", other)
        for name, end, (four, six) in ((one, link, address), (other, far, there)):
            self.inside(name, "ip", "address", "add", f"{four}/24", "dev", end)
            self.inside(name, "ip", "address", "add", f"{six}/64", "dev", end, "nodad")
            self.inside(name, "ip", "link", "set", end, "up")

    def inside(self, name, *command, **more):
        return run("ip", "netns", "exec", name, *command, **more)

    def application(self, *command, name=None):
        """The command, as of an application (of another namespace, if that is named): its names lead to the network's."""
        mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
        return ["ip", "netns", "exec", name or self.app, "sh", "-c", mount, str(self.place / "hosts"), *map(str, command)]

    @contextlib.contextmanager
    def network(self):
        """Sockets that this thread makes within, and threads that begin within, are of the network's namespace."""
        libc = ctypes.CDLL(None, use_errno=True)

        def enter(namespace):
            if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

        with open("/proc/thread-self/ns/net") as own, open(f"/run/netns/{self.net}") as other:
            enter(other)
            try:
                yield
            finally:
                enter(own)

    def start(self, command, name, output=subprocess.DEVNULL):
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )

        def end():
            process.kill()
            process.wait()

        self.stack.callback(end)
        return process

    def until(self, what, holds):
        deadline = time.monotonic() + 60
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: {self.said()}")
            time.sleep(0.05)

    def said(self):
        """What the agent has said."""
        with contextlib.suppress(FileNotFoundError):
            return (self.place / "agent.log").read_text()
        return ""

    def agent(self, settings, policy, ports, exempt=("--uid", str(AGENT)), user=AGENT, listeners=2):
        """Runs it in the application's namespace, as a user of its own, and redirects these ports to it, but for what is exempt (nothing: does not
        redirect). Its CA is in agent/ca."""
        as_agent, home = self.prepare(settings, policy, user)
        log = self.stack.enter_context(open(self.place / "agent.log", "wb"))
        command = [*as_agent, str(home / "fieldveil"), "run", "--config", str(home / "settings.yaml"), "--data-dir", str(home / "data")]
        process = self.start(command, self.app, log)
        self.until("the agent listens", lambda: self.said().count(" listening") >= listeners)
        if exempt:
            redirected = [word for port in ports for word in ("--port", str(port))]
            self.redirect("up", *exempt, "--to", str(PORT), *redirected)
        return process

    def prepare(self, settings, policy, user=AGENT):
        """All that it needs, in a directory of its user's; what it is begun with, and that directory."""
        home = self.place / "agent"
        (home / "policies").mkdir(parents=True)
        (home / "policies/transparent.yaml").write_text(policy)
        (home / "settings.yaml").write_text(settings)
        shutil.copy(self.place / "public.pem", home)
        binary = home / "fieldveil"
        # The agent's user need not be able to read where it was built.
        shutil.copy(support.BINARY, binary)
        for path in (home, *home.rglob("*")):
            os.chown(path, user, user)
        as_agent = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        run(*as_agent, binary, "ca", "init", "--config", home / "settings.yaml")
        return as_agent, home

    def redirect(self, *arguments):
        return self.inside(self.app, support.BINARY, "redirect", *arguments)
