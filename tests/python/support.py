"""Processes for the drivers: the agent, httpbin, and an upstream that keeps what it got."""

import contextlib
import http.server
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target")).resolve()
BINARY = os.environ["FIELDVEIL_BIN"]
# What this machine has for the way to other machines. What the tests say stays here, and through which proxies, they say.
PROXIES = {name: os.environ.pop(name) for name in list(os.environ) if name.lower().endswith("_proxy")}


def free_port():
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for(port, process=None, log=None, address="127.0.0.1"):
    """Returns when something listens there; fails if the process ends first."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((address, port), 1).close()
            return
        if (process and process.poll() is not None) or time.monotonic() > deadline:
            said = pathlib.Path(log).read_text() if log else ""
            raise RuntimeError(f"not listening on {port}:\n{said}")
        time.sleep(0.02)


def go():
    """Go's command: the one that pip installed beside this Python, for the system's may be old."""
    found = shutil.which("go", path=pathlib.Path(sys.executable).parent) or shutil.which("go")
    if found is None:
        raise RuntimeError("go is missing; tests/run installs it")
    return found


def go_environment():
    """Neither another toolchain nor a module is fetched."""
    return {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOPROXY": "off", "CGO_ENABLED": "0"}


@contextlib.contextmanager
def running(command, port, address="127.0.0.1", **environment):
    """Runs a command until the block ends; gives the path of its output."""
    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, "output")
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **environment}
            )
        try:
            wait_for(port, process, log, address)
            yield pathlib.Path(log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


@contextlib.contextmanager
def agent(upstream_port, *flags):
    """The agent before an upstream of this machine; gives its base URL and the path of its output."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        command = [
            BINARY, "run", "--listen", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{upstream_port}",
            "--data-dir", os.path.join(data, "data"), "--log-level", "debug", *flags,
        ]
        with running(command, port) as log:
            yield f"http://127.0.0.1:{port}", log


@contextlib.contextmanager
def demo():
    """`fieldveil demo`; gives its base URL and the path of its output."""
    port = free_port()
    with running([BINARY, "demo", "--listen", f"127.0.0.1:{port}"], port) as log:
        yield f"http://127.0.0.1:{port}", log


@contextlib.contextmanager
def httpbin():
    """httpbin on HTTP/1.1, with connections kept alive; gives its port and the path of its output, a line for each request."""
    port = free_port()
    serve = (
        "import sys; from httpbin import app; from werkzeug.serving import WSGIRequestHandler, run_simple;"
        "WSGIRequestHandler.protocol_version = 'HTTP/1.1';"
        "run_simple('127.0.0.1', int(sys.argv[1]), app, threaded=True)"
    )
    with running([sys.executable, "-c", serve, str(port)], port) as log:
        yield port, log


@contextlib.contextmanager
def order_api():
    """A small order API; gives its port and the list of the bodies that it got."""
    orders = []

    class Orders(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, body, **headers):
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            orders.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(201, orders[-1], Location=f"/orders/{len(orders)}")

        def do_GET(self):
            self.answer(200, orders[int(self.path.rsplit("/", 1)[1]) - 1])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Orders) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], orders
        finally:
            server.shutdown()
            thread.join()
