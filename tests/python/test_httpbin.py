"""A real HTTP client (requests, curl) through the agent, with httpbin behind it and nothing configured but flags."""

import contextlib
import gzip
import json
import subprocess
import unittest
import zlib

import brotli
import requests

import support

SECRET = "078-05-1120"
PERSON = {
    "name": "Ada",
    "ssn": SECRET,
    "cards": [{"number": "4111111111111111", "ssn": 42}, {"number": None, "ssn": {"nested": [1, 2.5, True]}}],
    "big": 12345678901234567890,
    "odd": "ä€😀 \u2028 \" \\ /",
    "empty": [{}, [], "", None],
}


class Httpbin(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        port, cls.behind = stack.enter_context(support.httpbin())
        flags = ("--seal", "$..ssn", "--seal", "$.cards[*].number=pan", "--open", "$..*")
        cls.url, cls.log = stack.enter_context(support.agent(port, *flags))
        cls.direct = f"http://127.0.0.1:{port}"
        cls.session = stack.enter_context(requests.Session())
        cls.session.trust_env = False

    @classmethod
    def tearDownClass(cls):
        log = cls.log.read_text()
        assert "status=200" in log
        for value in (SECRET, "4111111111111111"):
            assert value not in log, "a value is in the log"

    def ask(self, method, path, **more):
        answer = self.session.request(method, self.url + path, timeout=30, **more)
        self.assertLess(answer.status_code, 400, answer.text)
        return answer

    def round_trip(self, got, sent):
        """What the client gets is what it sent; what httpbin saw (`data`, a string) is sealed."""
        self.assertEqual(got["json"], sent)
        seen = json.loads(got["data"])
        self.assertTrue(seen["ssn"].startswith("fv1~") and seen["ssn"].endswith("~"), seen["ssn"])
        self.assertNotIn(SECRET, got["data"])
        return seen

    def test_post_put_patch_delete(self):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            with self.subTest(method):
                seen = self.round_trip(self.ask(method, "/anything", json=PERSON).json(), PERSON)
                self.assertTrue(all(card["number"].startswith("fv1~") for card in seen["cards"]))
                self.assertEqual(seen["odd"], PERSON["odd"])
                self.assertEqual(seen["big"], PERSON["big"])

    def test_own_endpoints_of_methods(self):
        for method in ("post", "put", "patch", "delete"):
            self.round_trip(self.ask(method.upper(), f"/{method}", json=PERSON).json(), PERSON)

    def test_a_thousand_on_one_connection(self):
        with requests.Session() as session:
            session.trust_env = False
            for number in range(1000):
                person = {"ssn": f"{number:09}", "n": number}
                self.round_trip(session.post(f"{self.url}/anything", json=person, timeout=30).json(), person)
            pools = session.get_adapter(self.url).poolmanager.pools
            self.assertEqual([pools.get(key).num_connections for key in pools.keys()], [1])

    def test_a_chunked_upload(self):
        body = json.dumps(PERSON).encode()
        pieces = (body[at : at + 7] for at in range(0, len(body), 7))
        answer = self.ask("POST", "/anything", data=pieces, headers={"Content-Type": "application/json"})
        self.round_trip(answer.json(), PERSON)

    def test_large_documents(self):
        people = {"ssn": "x" * 100_000, "list": [{"ssn": str(n), "pad": "y" * 500} for n in range(2000)]}
        self.round_trip(self.ask("POST", "/anything", json=people).json(), people)

    def test_result_header(self):
        answer = self.ask("POST", "/anything", json=PERSON)
        # Three of ssn and two of number; null is a value, too.
        self.assertIn("sealed=5", answer.headers["Fieldveil-Result"])
        self.assertIn("opened=5", answer.headers["Fieldveil-Result"])

    def test_headers_query_and_cookies_pass(self):
        answer = self.ask(
            "GET", "/anything/a%20b?x=1&x=2&y=%26", headers={"X-Odd": "a, b", "Accept": "*/*"}, cookies={"c": "1"}
        ).json()
        self.assertEqual(answer["args"], {"x": ["1", "2"], "y": "&"})
        self.assertEqual(answer["headers"]["X-Odd"], "a, b")
        self.assertEqual(answer["headers"]["Cookie"], "c=1")
        self.assertIn("/anything/a%20b?x=1&x=2&y=%26", answer["url"])

    def test_statuses_and_redirects(self):
        for status in (200, 204, 304, 404, 418, 500, 503):
            answer = self.session.get(f"{self.url}/status/{status}", timeout=30)
            self.assertEqual(answer.status_code, status)
        self.assertEqual(self.ask("GET", "/redirect/2").json()["args"], {})
        self.assertEqual(self.ask("HEAD", "/get").content, b"")
        self.assertIn("POST", self.ask("OPTIONS", "/post").headers["Allow"])

    def test_answers_that_are_not_json_are_the_same_as_without_the_agent(self):
        for path in ("/html", "/xml", "/robots.txt", "/image/png", "/bytes/70000?seed=1", "/encoding/utf8", "/links/3/0"):
            with self.subTest(path):
                answer = self.ask("GET", path)
                self.assertTrue(answer.content)
                self.assertEqual(answer.content, self.session.get(self.direct + path, timeout=30).content)

    def test_codings_that_the_upstream_insists_on_pass(self):
        for path, coding, take_off, said in (
            ("gzip", "gzip", gzip.decompress, "gzipped"),
            ("deflate", "deflate", zlib.decompress, "deflated"),
            ("brotli", "br", brotli.decompress, "brotli"),
        ):
            with self.subTest(coding):
                answer = self.session.get(f"{self.url}/{path}", timeout=30, stream=True)
                raw = answer.raw.read(decode_content=False)
                self.assertEqual(answer.status_code, 200)
                self.assertEqual(answer.headers["Content-Encoding"], coding)
                self.assertIs(json.loads(take_off(raw))[said], True)

    def test_streams_pass(self):
        lines = self.ask("GET", "/stream/20").text.splitlines()
        self.assertEqual([json.loads(line)["id"] for line in lines], list(range(20)))
        self.assertEqual(self.ask("GET", "/drip?duration=0&numbytes=500&delay=0").content, b"*" * 500)
        self.assertEqual(len(self.ask("GET", "/stream-bytes/5000?seed=7&chunk_size=100").content), 5000)

    def test_what_is_not_json_is_refused_and_not_sent(self):
        for content_type, body, status, code in (
            ("text/plain", "ssn=1", 415, "content-type"),
            ("application/x-www-form-urlencoded", "ssn=1", 415, "content-type"),
            ("application/json", '{"ssn":1,}', 400, "not-json"),
        ):
            answer = self.session.post(
                self.url + "/anything/refused", data=body, headers={"Content-Type": content_type}, timeout=30
            )
            self.assertEqual((answer.status_code, answer.json()["code"]), (status, code))
        # httpbin says what it was asked before it answers.
        self.ask("POST", "/anything/sent", json=PERSON)
        behind = self.behind.read_text()
        self.assertIn("POST /anything/sent ", behind)
        self.assertNotIn("/anything/refused", behind)

    def test_curl(self):
        def curl(*more):
            done = subprocess.run(
                ["curl", "-sS", "--noproxy", "*", "--max-time", "30", "-H", "content-type: application/json", *more],
                capture_output=True, check=True, text=True,
            )
            self.round_trip(json.loads(done.stdout), PERSON)

        body = json.dumps(PERSON)
        curl(self.url + "/anything", "-d", body)
        curl(self.url + "/anything", "-X", "PUT", "-d", body)
        curl(self.url + "/anything", "-H", "Expect: 100-continue", "-d", body)
        curl(self.url + "/anything", "-H", "Transfer-Encoding: chunked", "-d", body)
        curl(self.url + "/anything", "--http1.0", "-d", body)


if __name__ == "__main__":
    unittest.main()
