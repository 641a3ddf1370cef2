"""The libraries of OpenAI and Anthropic, streaming through the agent under policies/chat.yaml.

The upstream is a model that repeats what it was sent (npm's aimock): the token of the prompt comes back amid other words, a few characters an event.
"""

import contextlib
import json
import pathlib
import re
import tempfile
import unittest

import anthropic
import openai
import requests

import support
from test_clients import NODE_MODULES, program

SYSTEM = "You are the assistant of a clinic."
PROMPT = 'Does Zoë Fuchs, 078-05-1120, take "Lisinopril"?\nShe was born in Łódź. 🩺'
TOKEN = re.compile(r"fv1~[A-Za-z0-9_-]+~")
# So many characters come in each event: one, fewer than a token's beginning, some, most of a token.
PIECES = (1, 3, 20, 150)
SETTINGS = """\
policy: {{dir: policies}}
listeners: [{{name: out, bind: "127.0.0.1:{port}", upstream: models}}]
upstreams: {{models: {{url: "http://127.0.0.1:{upstream}"}}}}
log: {{level: debug}}
"""
HEADERS = {"X-Workspace": "practice-12"}


@contextlib.contextmanager
def mock():
    """A model that answers `plain` with a word; gives its port."""
    port = support.free_port()
    with tempfile.TemporaryDirectory() as directory:
        fixtures = pathlib.Path(directory) / "fixtures.json"
        fixtures.write_text(json.dumps({"fixtures": [{"match": {"model": "plain"}, "response": {"content": "Noted."}}]}))
        command = [
            program("node"), str(NODE_MODULES / "@copilotkit/aimock/dist/cli.js"), "--port", str(port), "--fixtures", str(fixtures),
            "--strict", "--log-level", "warn",
        ]
        with support.running(command, port):
            yield port


@contextlib.contextmanager
def agent(upstream):
    """The agent under the policy for conversations, with the mock as their gateway; gives its base URL and the path of its output."""
    port = support.free_port()
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        (place / "policies").mkdir()
        policy = (support.PROJECT / "policies/chat.yaml").read_text()
        (place / "policies/chat.yaml").write_text(policy.replace("host: gateway.chat.example", "host: 127.0.0.1"))
        (place / "settings.yaml").write_text(SETTINGS.format(port=port, upstream=upstream))
        command = [support.BINARY, "run", "--config", str(place / "settings.yaml"), "--data-dir", str(place / "data")]
        with support.running(command, port) as log:
            yield f"http://127.0.0.1:{port}", log


class OpenAI:
    """Asks as applications do; gives the texts of the answer as they come."""

    def __init__(self, base):
        transport = openai.DefaultHttpxClient(trust_env=False)
        self.client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", default_headers=HEADERS, max_retries=0, timeout=60, http_client=transport)

    def ask(self, model):
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
        with self.client.chat.completions.create(model=model, messages=messages, stream=True) as stream:
            return [chunk.choices[0].delta.content for chunk in stream if chunk.choices and chunk.choices[0].delta.content is not None]


class Anthropic:
    """Likewise, with its library's own gathering of the answer beside the texts."""

    def __init__(self, base):
        transport = anthropic.DefaultHttpxClient(trust_env=False)
        self.client = anthropic.Anthropic(base_url=base, api_key="none", default_headers=HEADERS, max_retries=0, timeout=60, http_client=transport)

    def ask(self, model):
        messages = [{"role": "user", "content": PROMPT}]
        with self.client.messages.stream(model=model, system=SYSTEM, messages=messages, max_tokens=1000) as stream:
            texts = list(stream.text_stream)
            if "".join(texts) != stream.get_final_text():
                raise AssertionError("the texts are not those of the message")
            return texts


class LanguageModels(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.session = stack.enter_context(requests.Session())
        cls.session.trust_env = False
        port = stack.enter_context(mock())
        cls.upstream = f"http://127.0.0.1:{port}"
        cls.base, cls.log = stack.enter_context(agent(port))

    def last_request(self):
        """What the model was sent, as it keeps it."""
        answer = self.session.get(f"{self.upstream}/__aimock/journal", timeout=60)
        answer.raise_for_status()
        return json.dumps(answer.json()[-1]["body"], ensure_ascii=False)

    def sealed(self):
        """The tokens of what the model was last sent, of which nothing was in clear."""
        body = self.last_request()
        for words in (SYSTEM, "Fuchs", "078-05-1120", "Lisinopril", "Łódź"):
            self.assertNotIn(words, body)
        tokens = TOKEN.findall(body)
        self.assertEqual(len(tokens), 2, "the system's prompt and the user's")
        return tokens

    def learn(self, model, content, pieces):
        """Teaches the model an answer, cut in pieces."""
        fixture = {"match": {"model": model}, "response": {"content": content}, "chunkSize": pieces}
        self.session.post(f"{self.upstream}/__aimock/fixtures", json={"fixtures": [fixture]}, timeout=60).raise_for_status()

    def converse(self, library):
        through, beside = library(self.base), library(self.upstream)
        self.addCleanup(through.client.close)
        self.addCleanup(beside.client.close)
        self.assertEqual("".join(through.ask("plain")), "Noted.")
        system, prompt = self.sealed()
        said = f"fv1, you asked “{prompt}”, and then {prompt}{system}. fv1~"
        opened = f"fv1, you asked “{PROMPT}”, and then {PROMPT}{SYSTEM}. fv1~"
        for pieces in PIECES:
            with self.subTest(pieces=pieces):
                model = f"{library.__name__}-{pieces}"
                self.learn(model, said, pieces)
                texts = through.ask(model)
                self.assertEqual("".join(texts), opened)
                self.sealed()
                # The model sent it in pieces, sealed: what came without the agent.
                direct = beside.ask(model)
                self.assertEqual("".join(direct), said)
                self.assertFalse(any(prompt in text for text in direct))
                # Each event went on by itself, perhaps with an empty text; what had begun like a token is in one more.
                self.assertEqual(len(texts), len(direct) + 1)
        said = self.log.read_text()
        self.assertNotIn("Fuchs", said)
        self.assertNotIn("Lisinopril", said)

    def test_openai(self):
        self.converse(OpenAI)

    def test_anthropic(self):
        self.converse(Anthropic)


if __name__ == "__main__":
    unittest.main()
