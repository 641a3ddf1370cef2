"""The clients that applications use, pinned to a forward proxy by environment variables alone.

Every client is given the upstream's own URL, and of certificates the agent's CA alone: what comes back came through the agent. What ignores the
variables is shown to do so, and to work with the remedy of docs/forward.md.
"""

import contextlib
import pathlib
import socket
import subprocess
import sys
import tempfile
import unittest

import trustme

import recording
import support
import test_clients
from test_clients import HERE, NODE_MODULES, SECRETS, program

SETTINGS = """\
policy: {{dir: policies}}
listeners:
  - {{name: out, mode: forward, bind: "127.0.0.1:{port}", loopback_upstreams: true, credentials_file: users}}
  - {{name: free, mode: forward, bind: "127.0.0.1:{free}", loopback_upstreams: true}}
ca: {{dir: ca, names: ["{name}"]}}
upstreams:
  secure: {{url: "https://{name}:{secure}", tls: {{ca: ca.pem}}, idle: 4s}}
log: {{level: debug}}
"""
USER = "app:correct-horse-battery"
# Loaded ahead of the application; what docs/forward.md says.
REMEDY = """\
import {{ createRequire }} from "node:module";
const {{ EnvHttpProxyAgent, setGlobalDispatcher }} = createRequire("{modules}/")("undici");
setGlobalDispatcher(new EnvHttpProxyAgent({{ proxyTunnel: false }}));
"""
# By the modules that are older than fetch.
NODE_POST = """\
const url = process.argv[1];
const asked = require(url.split(":")[0]).request(url, { method: "POST", headers: { "Content-Type": "application/json" } }, async (answer) => {
  for await (const piece of answer) process.stdout.write(piece);
});
asked.end(JSON.stringify({ ssn: "078-05-1120" }));
"""


def newer_node():
    """Node as of when it goes by the variables, if it is told to; the system's may be older."""
    package, = NODE_MODULES.glob("node-linux-*/bin/node")
    return str(package)


class Forward(unittest.TestCase):
    plan = test_clients.Clients.plan
    judge = test_clients.Clients.judge

    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        place = cls.place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Clients leave out proxies for localhost; this machine's own name they do not know.
        cls.name = socket.gethostname().lower()
        address = socket.getaddrinfo(cls.name, 80, socket.AF_INET)[0][4][0]
        authority = trustme.CA()
        authority.cert_pem.write_to_path(place / "ca.pem")
        issued = authority.issue_cert(cls.name)
        issued.private_key_pem.write_to_path(place / "key.pem")
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(place / "cert.pem", append=number > 0)
        cls.upstream, cls.clear, cls.secure = stack.enter_context(
            recording.serving(place / "cert.pem", place / "key.pem", [], also=address)
        )
        (place / "policies").mkdir()
        (place / "policies/clients.yaml").write_text(test_clients.POLICY)
        users = place / "users"
        users.touch(mode=0o600)
        users.write_text(USER + "\n")
        cls.port, cls.free = support.free_port(), support.free_port()
        settings = place / "settings.yaml"
        settings.write_text(SETTINGS.format(port=cls.port, free=cls.free, name=cls.name, secure=cls.secure))
        subprocess.run([support.BINARY, "ca", "init", "--config", str(settings)], check=True, capture_output=True)
        cls.bundle = place / "bundle.pem"
        trust = [support.BINARY, "ca", "trust", "--config", str(settings), "--bundle", str(cls.bundle)]
        subprocess.run(trust, check=True, capture_output=True)
        command = [support.BINARY, "run", "--config", str(settings), "--data-dir", str(place / "data")]
        cls.log = stack.enter_context(support.running(command, cls.port))

    @classmethod
    def tearDownClass(cls):
        log = cls.log.read_bytes()
        assert b"status=200" in log
        for value in [*SECRETS, USER.encode()]:
            assert value not in log, "a value is in the log"

    def environment(self, **more):
        """The variables, and no others that have to do with proxies or trust."""
        proxy = f"http://{USER}@127.0.0.1:{self.port}"
        variables = {name: proxy for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")}
        return test_clients.environment(**variables, **more)

    def check(self, command, version, *, secure, told=None, without=(), **more):
        self.upstream.got.clear()
        with self.subTest(version=version, tls=secure), tempfile.TemporaryDirectory() as directory:
            self.out = pathlib.Path(directory)
            url = f"https://{self.name}:{self.secure}" if secure else f"http://{self.name}:{self.clear}"
            ca = str(self.place / "ca/ca.pem") if secure else "-"
            arguments = [url, version, ca, str(self.plan(self.out, without)), directory]
            done = subprocess.run(
                [*command, *arguments], capture_output=True, text=True, timeout=200, env=self.environment(**more)
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.judge(told or version, without, "2" if secure else "1.1")

    def both(self, command, **more):
        for secure in (False, True):
            self.check(command, "1.1", secure=secure, **more)

    def test_curl(self):
        program("curl")
        command = [sys.executable, str(HERE / "with_curl.py")]
        self.both(command)
        self.check(command, "2", secure=True)

    def test_requests(self):
        self.both([sys.executable, str(HERE / "with_requests.py")], without=("expect",))

    def test_httpx(self):
        command = [sys.executable, str(HERE / "with_httpx.py")]
        self.both(command, without=("expect",))
        self.check(command, "2", secure=True, without=("expect",))

    def test_aiohttp(self):
        self.both([sys.executable, str(HERE / "with_aiohttp.py")])

    def test_axios(self):
        """What is for https:// it sends to the proxy as it is, and the agent speaks the TLS."""
        self.both([program("node"), str(HERE / "with_axios.mjs")])

    def test_node_fetch_ignores_the_variables_but_for_the_remedy(self):
        command = [program("node"), str(HERE / "with_fetch.mjs")]
        with tempfile.TemporaryDirectory() as directory:
            self.out = pathlib.Path(directory)
            self.upstream.got.clear()
            plan = self.plan(self.out, [name for name, *_ in test_clients.EXCHANGES if name != "unicode"])
            arguments = [f"http://{self.name}:{self.clear}", "1.1", "-", str(plan), directory]
            subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=200, env=self.environment())
            [got] = self.upstream.got
            self.assertIn(b"078-05-1120", got.body, "past the agent")
        remedy = self.place / "proxy.mjs"
        remedy.write_text(REMEDY.format(modules=NODE_MODULES))
        options = {"NODE_OPTIONS": f"--import {remedy}", "NODE_EXTRA_CA_CERTS": str(self.place / "ca/ca.pem")}
        self.both(command, told="-", without=("expect",), **options)

    def test_newer_node_goes_by_the_variables_if_told_to(self):
        options = {"NODE_USE_ENV_PROXY": "1", "NODE_EXTRA_CA_CERTS": str(self.place / "ca/ca.pem")}
        self.both([newer_node(), str(HERE / "with_fetch.mjs")], told="-", without=("expect",), **options)
        for scheme, port in (("http", self.clear), ("https", self.secure)):
            with self.subTest(scheme):
                self.upstream.got.clear()
                command = [newer_node(), "-e", NODE_POST, f"{scheme}://{self.name}:{port}/records"]
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.environment(**options))
                self.assertEqual((done.returncode, done.stdout), (0, '{"ssn":"078-05-1120"}'), done.stderr)
                [got] = self.upstream.got
                self.assertRegex(got.body, rb'^\{"ssn":"fv1~[^"]+~"\}$')

    def test_go(self):
        command = test_clients.with_go()
        self.both(command)
        self.check(command, "2", secure=True)

    def test_java(self):
        """It does not know the variables, but one of its own; credentials are the application's to give, so there are none."""
        command = test_clients.with_java()
        options = [f"-D{scheme}.proxyHost=127.0.0.1 -D{scheme}.proxyPort={self.free}" for scheme in ("http", "https")]
        environment = {"JAVA_TOOL_OPTIONS": " ".join(options)}
        self.both(command, **environment)
        self.check(command, "2", secure=True, without=("expect",), **environment)

    def test_trust_by_variables_alone(self):
        """The bundle in place of the system's roots: the client is told of nothing."""
        url = f"https://{self.name}:{self.secure}/records"
        script = f"import requests; answer = requests.post({url!r}, json={{'ssn': '078-05-1120'}}); print(answer.text)"
        for command, variable in (
            (["curl", "-sS", "--fail", "--json", '{"ssn": "078-05-1120"}', url], "CURL_CA_BUNDLE"),
            ([sys.executable, "-c", script], "REQUESTS_CA_BUNDLE"),
        ):
            with self.subTest(variable):
                self.upstream.got.clear()
                environment = self.environment(**{variable: str(self.bundle)})
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("078-05-1120", done.stdout)
                self.assertIn(b"fv1~", self.upstream.got[-1].body)


if __name__ == "__main__":
    unittest.main()
