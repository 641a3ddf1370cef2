"""Bodies in content codings, made and read by other people's codecs, with an upstream that mirrors them."""

import contextlib
import gzip
import http.server
import json
import threading
import unittest
import zlib

import brotli
import requests
import zstandard

import support

SECRET = "078-05-1120"
PERSON = json.dumps({"name": "Ada", "ssn": SECRET, "list": [{"ssn": n, "pad": "ä" * 50} for n in range(500)]}, indent=1).encode()


def raw_deflate(body):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


# By name of the test: Content-Encoding, how to put it on, how to take it off.
CODINGS = {
    "gzip": ("gzip", gzip.compress, gzip.decompress),
    "two members": ("gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]), gzip.decompress),
    "zlib": ("deflate", zlib.compress, zlib.decompress),
    "raw deflate": ("deflate", raw_deflate, lambda coded: zlib.decompress(coded, -15)),
    "brotli": ("br", brotli.compress, brotli.decompress),
    "zstd": ("zstd", zstandard.compress, lambda coded: zstandard.ZstdDecompressor().decompressobj().decompress(coded)),
    "two": ("br, gzip", lambda body: gzip.compress(brotli.compress(body)), lambda coded: brotli.decompress(gzip.decompress(coded))),
}


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers with the request's own body and coding, and keeps the body."""

    protocol_version = "HTTP/1.1"
    seen = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Encoding", self.headers["Content-Encoding"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Codings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        cls.url, _ = stack.enter_context(support.agent(server.server_port, "--seal", "$..ssn", "--open", "$..*"))
        cls.session = stack.enter_context(requests.Session())
        cls.session.trust_env = False

    def test_sealed_inside_and_opened_again(self):
        for name, (coding, put_on, take_off) in CODINGS.items():
            with self.subTest(name):
                Mirror.seen.clear()
                headers = {"Content-Type": "application/json", "Content-Encoding": coding}
                answer = self.session.post(self.url, data=put_on(PERSON), headers=headers, timeout=30, stream=True)
                self.assertEqual(answer.status_code, 200)
                self.assertEqual(take_off(answer.raw.read(decode_content=False)), PERSON)
                [got] = Mirror.seen
                seen = take_off(got)
                self.assertNotIn(SECRET.encode(), seen)
                self.assertEqual(seen.count(b'"fv1~'), 501)


if __name__ == "__main__":
    unittest.main()
