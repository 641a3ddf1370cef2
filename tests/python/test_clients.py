"""The clients that applications use, each in its own process, through an agent to an upstream that records what it gets.

Every client sends the same exchanges (tests/clients/README.md), over each version of HTTP that it speaks, to a listener with TLS and to
one without; behind the agent is HTTP/1.1 or HTTP/2, in turn. Every one gets back what it sent; the upstream sees the same bytes with
tokens in the marked places, and nothing else differs.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import trustme

import recording
import support

HERE = support.PROJECT / "tests/clients"
NODE_MODULES = pathlib.Path(os.environ.get("FIELDVEIL_NODE_MODULES", support.PROJECT / "target/npm/node_modules"))
POLICY = """\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: clients}
unmatched: reject
classes: {field: {key: field}}
routes:
  - name: all
    match: {}
    request: {rules: [{at: "$..['ssn','number']", seal: field}]}
    response: {rules: [{at: $..*, open: "*"}]}
"""
SETTINGS = """\
policy: {{dir: policies}}
listeners:
  - {{name: clear-one, bind: "127.0.0.1:{clear_one}", upstream: one}}
  - {{name: clear-two, bind: "127.0.0.1:{clear_two}", upstream: two}}
  - {{name: secure-one, bind: "127.0.0.1:{secure_one}", upstream: one, tls: {{cert: cert.pem, key: key.pem}}}}
  - {{name: secure-two, bind: "127.0.0.1:{secure_two}", upstream: two, tls: {{cert: cert.pem, key: key.pem}}}}
upstreams:
  one: {{url: "http://127.0.0.1:{clear}"}}
  two: {{url: "https://127.0.0.1:{secure}", tls: {{ca: ca.pem}}, idle: 4s}}
log: {{level: debug}}
"""
TOKEN = rb'"fv1~[A-Za-z0-9_-]+~"'
TOGETHER = 12

# Bodies; what stands between the brackets is sealed, and the upstream gets a token in its place.
UNICODE = """\
{ "name" : "Zoë 😀 \\u00e9\\/\\ud83d\\ude00", "ssn":⟦"078-05-1120 ünï"⟧,  "big": 12345678901234567890123, "tiny":1.50e+0,
  "cards": [ {"number": ⟦4111111111111111⟧, "n": -0.0}, {"number":⟦null⟧}, {"number": ⟦{"of": ["many", 9007199254740993]}⟧} ],
\t"\\u0073sn" : ⟦"escaped\\tname"⟧, "empty": [{}, [], "", null] }
"""
DUPLICATES = '{"ssn":⟦"first-071"⟧,"n":1,"n":2,"ssn":⟦"second-072"⟧}'
LARGE = "[" + ",\n".join(f'{{"id": {n}, "ssn": ⟦"large-{n:06}"⟧, "pad": "{"ä" * 300}"}}' for n in range(2000)) + "]"


def small(name):
    return f'{{"ssn": ⟦"only-{name}"⟧, "name": "{name}"}}'


# name, method, path, framing, body; the status that comes back.
EXCHANGES = [
    ("unicode", "POST", "/records", "length", UNICODE, 200),
    ("duplicates", "POST", "/records", "length", DUPLICATES, 200),
    ("large", "POST", "/records", "length", LARGE, 200),
    ("chunked", "POST", "/records", "chunked", UNICODE, 200),
    ("expect", "POST", "/records", "expect", UNICODE, 200),
    ("put", "PUT", "/records/1", "length", UNICODE, 200),
    # Comes with a coding, if it may; what was kept is opened for a client that takes gzip.
    ("get", "GET", "/records/1", "none", None, 200),
    ("head", "HEAD", "/records/1", "none", None, 200),
    ("empty", "POST", "/records", "none", None, 200),
    ("delete", "DELETE", "/records/1?reason=none%20of%20yours", "none", None, 204),
    # 307, to an address that names the upstream: the client is to come back to the agent with the body.
    ("redirect", "POST", "/moved", "length", UNICODE, 200),
    # No JSON: refused by the agent, in a form that the client can read.
    ("refused", "POST", "/records", "length", "ssn=refused-073", 415),
    *((f"again-{n}", "POST", "/records", "length", small(f"again-{n}"), 200) for n in range(10)),
    *((f"together-{n}", "POST", "/records", "length", small(f"together-{n}"), 200) for n in range(TOGETHER)),
]


def sent(body):
    """The body as the client sends it."""
    return b"" if body is None else body.replace("⟦", "").replace("⟧", "").encode()


def sealed(body):
    """The body as the upstream should get it."""
    pieces = re.split("⟦.*?⟧", body or "")
    return re.compile(TOKEN.join(re.escape(piece.encode()) for piece in pieces))


def values(body):
    """What must not be seen behind the agent."""
    return [value.strip('"').encode() for value in re.findall("⟦(.*?)⟧", body or "") if value != "null"]


SECRETS = {value for _, _, _, _, body, _ in EXCHANGES if body is not LARGE for value in values(body)}
# What all of LARGE's begin with, and what is refused.
SECRETS |= {b"large-0", b"refused-073"}


def program(name):
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing; tests/run installs it")
    return found


def with_go():
    """Builds the client in Go; the command."""
    binary = support.TARGET / "clients/with_go"
    command = [support.go(), "build", "-o", str(binary), "."]
    subprocess.run(command, cwd=HERE / "go", check=True, timeout=300, env=support.go_environment())
    return [str(binary)]


def with_java():
    """Likewise in Java."""
    classes = support.TARGET / "clients/java"
    subprocess.run([program("javac"), "-d", str(classes), str(HERE / "java/Client.java")], check=True, timeout=300)
    return [program("java"), "-cp", str(classes), "Client"]


def environment(**more):
    """This machine's, but for what has to do with proxies or trust."""
    gone = ("proxy", "ssl_cert", "ca_bundle", "node_", "java_tool")
    kept = {name: value for name, value in os.environ.items() if not any(word in name.lower() for word in gone)}
    return {**kept, "NODE_MODULES": str(NODE_MODULES), **more}


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        place = cls.place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(place / "ca.pem")
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(place / "key.pem")
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(place / "cert.pem", append=number > 0)

        ports = {name: support.free_port() for name in ("clear_one", "clear_two", "secure_one", "secure_two")}
        cls.relays = {name: recording.Relay(port) for name, port in ports.items()}
        cls.upstream, clear, secure = stack.enter_context(
            recording.serving(place / "cert.pem", place / "key.pem", cls.relays.values())
        )
        (place / "policies").mkdir()
        (place / "policies/clients.yaml").write_text(POLICY)
        (place / "settings.yaml").write_text(SETTINGS.format(clear=clear, secure=secure, **ports))
        command = [support.BINARY, "run", "--config", str(place / "settings.yaml"), "--data-dir", str(place / "data")]
        cls.log = stack.enter_context(support.running(command, ports["secure_two"]))

    @classmethod
    def tearDownClass(cls):
        log = cls.log.read_bytes()
        assert b"status=200" in log
        for value in SECRETS:
            assert value not in log, "a value is in the log"

    def plan(self, directory, without):
        """Writes the plan down, but for exchanges that the client cannot do."""
        lines = []
        for name, method, path, framing, body, _ in EXCHANGES:
            if name in without:
                continue
            file = "-"
            if body is not None:
                file = directory / f"{name}.sent"
                file.write_bytes(sent(body))
            media = "-" if body is None else "text/plain" if name == "refused" else "application/json"
            together = "yes" if name.startswith("together") else "no"
            lines.append("\t".join((name, method, path, framing, together, media, str(file))) + "\n")
        plan = directory / "plan"
        plan.write_text("".join(lines))
        return plan

    def judge(self, told, without, behind):
        """Compares what the client got and what the upstream saw with what should be."""
        got = {}
        for one in self.upstream.got:
            got.setdefault(one.exchange, []).append(one)
            for value in SECRETS:
                self.assertNotIn(value, one.body, one.exchange)
                self.assertNotIn(value, repr(one.headers).encode(), one.exchange)
        for name, method, path, _, body, status in EXCHANGES:
            if name in without:
                continue
            with self.subTest(exchange=name):
                head = (self.out / f"{name}.head").read_text().split()
                answer = (self.out / f"{name}.body").read_bytes()
                self.assertEqual(head, [str(status), told], answer[:300])
                if name == "refused":
                    self.assertIn(b'"code":"content-type"', answer.replace(b": ", b":"))
                    self.assertNotIn(name, got)
                    continue
                back = {"get": UNICODE, "head": None, "delete": None}.get(name, body)
                self.assertTrue(answer == sent(back), answer[:300])
                requests = got[name]
                paths = ["/moved", "/records"] if name == "redirect" else [path.split("?")[0]]
                self.assertEqual([one.path for one in requests], paths)
                for one in requests:
                    self.assertEqual((one.method, one.version), (method, behind))
                    self.assertTrue(sealed(body).fullmatch(one.body), one.body[:300])

    def check(self, command, version, *, secure, told=None, without=(), connections=None, environment=None):
        """Runs the client. `told`: the version that it says it spoke; `connections`: how many it may make."""
        # Each version comes before either one of the upstream, once with TLS on the listener and once without.
        behind = "one" if (version == "2") != secure else "two"
        if connections is None:
            # One for each exchange that goes beside others, and a few: some clients give one up after HEAD, all after the refusal.
            connections = {"1.1": TOGETHER + 4, "2": 2}[version]
        relay = self.relays[f"{'secure' if secure else 'clear'}_{behind}"]
        self.upstream.got.clear()
        before = relay.connections
        with self.subTest(version=version, tls=secure), tempfile.TemporaryDirectory() as directory:
            self.out = pathlib.Path(directory)
            arguments = [
                f"{'https' if secure else 'http'}://localhost:{relay.port}", version,
                str(self.place / "ca.pem") if secure else "-", str(self.plan(self.out, without)), directory,
            ]
            done = subprocess.run(
                [*command, *arguments], capture_output=True, text=True, timeout=200,
                env={**os.environ, "NO_PROXY": "*", **(environment or {})},
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.judge(told or version, without, "1.1" if behind == "one" else "2")
            self.assertLessEqual(relay.connections - before, connections, "connections are not used again")

    def python(self, name, versions, **more):
        command = [sys.executable, str(HERE / name)]
        for version in versions:
            for secure in (False, True):
                self.check(command, version, secure=secure, **more)

    def test_curl(self):
        program("curl")
        command = [sys.executable, str(HERE / "with_curl.py")]
        self.check(command, "1.1", secure=False)
        self.check(command, "1.1", secure=True)
        # curl 7.88 says its preface again where it uses a connection of prior knowledge again, whatever the server; so it is
        # started for each exchange, and cannot follow a redirection.
        self.check(command, "2", secure=False, without=("redirect",), connections=len(EXCHANGES))
        self.check(command, "2", secure=True)

    def test_requests(self):
        self.python("with_requests.py", ("1.1",), without=("expect",))

    def test_httpx(self):
        self.python("with_httpx.py", ("1.1", "2"), without=("expect",))

    def test_aiohttp(self):
        self.python("with_aiohttp.py", ("1.1",))

    def test_node_fetch(self):
        """It does not say which version it spoke, and over HTTP/2 it wants TLS; the connections tell."""
        command = [program("node"), str(HERE / "with_fetch.mjs")]
        environment = {"NODE_MODULES": str(NODE_MODULES), "NODE_EXTRA_CA_CERTS": str(self.place / "ca.pem")}
        for version, secure in (("1.1", False), ("1.1", True), ("2", True)):
            self.check(command, version, secure=secure, told="-", without=("expect",), environment=environment)

    def test_axios(self):
        command = [program("node"), str(HERE / "with_axios.mjs")]
        for secure in (False, True):
            self.check(command, "1.1", secure=secure, environment={"NODE_MODULES": str(NODE_MODULES)})

    def test_go(self):
        command = with_go()
        for version in ("1.1", "2"):
            for secure in (False, True):
                self.check(command, version, secure=secure)

    def test_java(self):
        command = with_java()
        self.check(command, "1.1", secure=False)
        self.check(command, "1.1", secure=True)
        # An upgrade to HTTP/2 without TLS is not taken: the agent goes on in HTTP/1.1, and so does the client.
        self.check(command, "2", secure=False, told="1.1", connections=TOGETHER + 4)
        # Over HTTP/2 it waits for a 100 without end, and the agent sends none there (docs/settings.md).
        self.check(command, "2", secure=True, without=("expect",))


if __name__ == "__main__":
    unittest.main()
