"""The clients that applications use, on connections that are redirected to the agent: nothing is set for them but trust in its CA.

Needs root and some programs; see namespaces.py.
"""

import contextlib
import pathlib
import subprocess
import sys
import tempfile
import unittest

import recording
import test_clients
from namespaces import PORT, THERE, Namespaces
from test_clients import HERE, SECRETS, program

SETTINGS = """\
policy: {{dir: policies}}
ca: {{dir: ca, names: [api.example.com]}}
listeners:
  - {{name: four, mode: transparent, bind: "127.0.0.1:{port}", uncovered: refuse}}
  - {{name: six, mode: transparent, bind: "[::1]:{port}", uncovered: refuse}}
upstreams:
  secure: {{url: "https://api.example.com:{secure}", tls: {{ca: public.pem}}, idle: 4s}}
log: {{level: debug}}
"""


class TransparentClients(unittest.TestCase):
    plan = test_clients.Clients.plan
    judge = test_clients.Clients.judge

    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.world = Namespaces(stack, THERE[:1])
        place = cls.world.place
        with cls.world.network():
            serving = recording.serving(place / "cert.pem", place / "key.pem", [], also=THERE[0])
            cls.upstream, cls.clear, cls.secure = stack.enter_context(serving)
        cls.ca = place / "agent/ca/ca.pem"
        cls.world.agent(SETTINGS.format(port=PORT, secure=cls.secure), test_clients.POLICY, (cls.clear, cls.secure))

    @classmethod
    def tearDownClass(cls):
        log = cls.world.said().encode()
        assert b"status=200" in log
        for value in SECRETS:
            assert value not in log, "a value is in the log"

    def check(self, command, version, *, secure, told=None, without=(), **environment):
        self.upstream.got.clear()
        with self.subTest(version=version, tls=secure), tempfile.TemporaryDirectory() as directory:
            self.out = pathlib.Path(directory)
            url = f"https://api.example.com:{self.secure}" if secure else f"http://api.example.com:{self.clear}"
            arguments = [url, version, self.ca if secure else "-", self.plan(self.out, without), directory]
            done = subprocess.run(
                self.world.application(*command, *arguments), capture_output=True, text=True, timeout=200,
                env=test_clients.environment(**environment),
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            # With TLS the service chooses; without, the client knows what it speaks.
            self.judge(told or version, without, "2" if secure or (told or version) == "2" else "1.1")

    def both(self, command, version="1.1", **more):
        for secure in (False, True):
            self.check(command, version, secure=secure, **more)

    def test_curl(self):
        program("curl")
        command = [sys.executable, HERE / "with_curl.py"]
        self.both(command)
        # As in test_clients.py, it cannot follow a redirection there. And curl 7.88 may lose an answer that comes before it has sent its
        # body: the stream's RST_STREAM behind that answer (RFC 9113 section 8.1) is then all that it sees.
        self.check(command, "2", secure=False, without=("redirect", "refused"))
        self.check(command, "2", secure=True)

    def test_requests(self):
        self.both([sys.executable, HERE / "with_requests.py"], without=("expect",))

    def test_httpx(self):
        for version in ("1.1", "2"):
            self.both([sys.executable, HERE / "with_httpx.py"], version, without=("expect",))

    def test_aiohttp(self):
        self.both([sys.executable, HERE / "with_aiohttp.py"])

    def test_node_fetch(self):
        command = [program("node"), HERE / "with_fetch.mjs"]
        more = {"told": "-", "without": ("expect",), "NODE_EXTRA_CA_CERTS": str(self.ca)}
        self.both(command, **more)
        self.check(command, "2", secure=True, **more)

    def test_axios(self):
        self.both([program("node"), HERE / "with_axios.mjs"])

    def test_go(self):
        command = test_clients.with_go()
        for version in ("1.1", "2"):
            self.both(command, version)

    def test_java(self):
        command = test_clients.with_java()
        self.both(command)
        self.check(command, "2", secure=False, told="1.1")
        self.check(command, "2", secure=True, without=("expect",))


if __name__ == "__main__":
    unittest.main()
