"""nginx as the upstream, as it ends connections: after so many requests, and when it reads its configuration again.

Over HTTP/2 it names the last stream that it took, whatever else is on its way (RFC 9113 section 6.8); over HTTP/1.1 it hangs up.
"""

import concurrent.futures
import contextlib
import http.client
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

import trustme

import recording
import support

POLICY = """\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: records}
unmatched: pass
classes: {field: {key: field}}
routes:
  - name: records
    match: {path: /records}
    request: {rules: [{at: $.ssn, seal: field}]}
    response: {rules: [{at: $..*, open: "*"}]}
"""
SETTINGS = """\
policy: {{dir: policies}}
listeners:
  - {{name: clear, bind: "127.0.0.1:{near_clear}", upstream: clear}}
  - {{name: secure, bind: "127.0.0.1:{near_secure}", upstream: secure}}
upstreams:
  clear: {{url: "http://127.0.0.1:{clear}"}}
  secure: {{url: "https://localhost:{secure}", tls: {{ca: ca.pem}}}}
"""
# A twentieth of the requests for which nginx keeps a connection by default.
NGINX = """\
daemon off;
worker_processes 1;
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 50;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    ssl_certificate {place}/cert.pem;
    ssl_certificate_key {place}/key.pem;
    server {{
        listen 127.0.0.1:{clear};
        listen 127.0.0.1:{secure} ssl http2;
        location / {{ proxy_pass http://127.0.0.1:{behind}; }}
    }}
}}
"""
TOGETHER, EACH = 12, 50


class Nginx(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Debian keeps it off the path.
        cls.program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if cls.program is None:
            raise RuntimeError("nginx is missing; tests/run installs it")
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        place = cls.place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Its worker is another user than its master, where that is root.
        place.chmod(0o755)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(place / "ca.pem")
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(place / "key.pem")
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(place / "cert.pem", append=number > 0)
        cls.upstream, behind, _ = stack.enter_context(recording.serving(place / "cert.pem", place / "key.pem", []))
        ports = {name: support.free_port() for name in ("clear", "secure", "near_clear", "near_secure")}
        cls.ports = ports
        (place / "nginx.conf").write_text(NGINX.format(place=place, behind=behind, **ports))
        cls.command = [cls.program, "-e", place / "error.log", "-p", place, "-c", place / "nginx.conf"]
        stack.enter_context(support.running(cls.command, ports["secure"]))
        (place / "policies").mkdir()
        (place / "policies/records.yaml").write_text(POLICY)
        (place / "settings.yaml").write_text(SETTINGS.format(**ports))
        command = [support.BINARY, "run", "--config", place / "settings.yaml", "--data-dir", place / "data"]
        stack.enter_context(support.running(command, ports["near_secure"]))

    def one(self, port, method, path, exchange):
        """An exchange on a connection of its own; the status, and whether the answer is what was sent."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            body = f'{{"ssn": "{exchange}"}}'.encode() if method == "POST" else None
            fields = {"X-Exchange": exchange, **({"Content-Type": "application/json"} if body else {})}
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            got = answer.read()
            return answer.status if answer.status != 200 or not body or got == body else f"{got}"

    def exchanges(self, near, method, path):
        """Many at once. Every one of them is answered, and has come to the application behind nginx once."""
        self.upstream.got.clear()
        names = [f"{near}-{method}-{number}" for number in range(TOGETHER * EACH)]
        with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
            answers = list(pool.map(lambda name: self.one(self.ports[near], method, path, name), names))
        self.assertEqual(set(answers), {200}, near)
        self.assertEqual(sorted(got.exchange for got in self.upstream.got), sorted(names))

    def test_connections_that_end_after_so_many_requests(self):
        for near in ("near_secure", "near_clear"):
            # Held, streamed, and without a body.
            for method, path in (("POST", "/records"), ("POST", "/elsewhere"), ("GET", "/records")):
                with self.subTest(near=near, method=method, path=path):
                    self.exchanges(near, method, path)

    def test_a_configuration_that_is_read_again(self):
        # What is no safe method may fail over HTTP/1.1: nobody knows whether it was taken.
        for near, method in (("near_secure", "POST"), ("near_secure", "GET"), ("near_clear", "GET")):
            over = threading.Event()

            def reload():
                while not over.wait(0.2):
                    subprocess.run([*self.command, "-s", "reload"], check=True, timeout=60, capture_output=True)

            with self.subTest(near=near, method=method):
                reloading = threading.Thread(target=reload)
                reloading.start()
                try:
                    self.exchanges(near, method, "/records")
                finally:
                    over.set()
                    reloading.join()
                time.sleep(0.2)


if __name__ == "__main__":
    unittest.main()
