"""The libraries of OpenAI and Anthropic, streaming through the agent under policies/chat.yaml.

The upstream is a model that repeats what it was sent (npm's aimock): the token of the prompt comes back amid other words, a few characters an event.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import ssl
import subprocess
import tempfile
import time
import unittest
import unittest.mock

import anthropic
import openai
import requests
import trustme

import beside
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
FORWARD = """\
policy: {{dir: policies}}
listeners: [{{name: out, mode: forward, bind: "127.0.0.1:{port}", loopback_upstreams: true}}]
ca: {{dir: ca, names: [localhost]}}
upstreams: {{models: {{url: "https://localhost:{upstream}", tls: {{ca: public.pem}}}}}}
log: {{level: debug}}
"""
PROXY_VARIABLES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file"}
HEADERS = {"X-Workspace": "practice-12"}


class Mock:
    """A model that runs on this port."""

    def __init__(self, port, session):
        self.port, self.session, self.base = port, session, f"http://127.0.0.1:{port}"

    def last_request(self):
        """What it was sent, as it keeps it."""
        answer = self.session.get(f"{self.base}/__aimock/journal", timeout=60)
        answer.raise_for_status()
        return json.dumps(answer.json()[-1]["body"], ensure_ascii=False)

    def learn(self, model, content, pieces):
        """Teaches it an answer, cut in pieces."""
        fixture = {"match": {"model": model}, "response": {"content": content}, "chunkSize": pieces}
        self.session.post(f"{self.base}/__aimock/fixtures", json={"fixtures": [fixture]}, timeout=60).raise_for_status()


@contextlib.contextmanager
def mock():
    """A model that answers `plain` with a word."""
    port = support.free_port()
    with tempfile.TemporaryDirectory() as directory:
        fixtures = pathlib.Path(directory) / "fixtures.json"
        fixtures.write_text(json.dumps({"fixtures": [{"match": {"model": "plain"}, "response": {"content": "Noted."}}]}))
        command = [
            program("node"), str(NODE_MODULES / "@copilotkit/aimock/dist/cli.js"), "--port", str(port), "--fixtures", str(fixtures),
            "--strict", "--log-level", "warn",
        ]
        with support.running(command, port), requests.Session() as session:
            session.trust_env = False
            yield Mock(port, session)


@contextlib.contextmanager
def agent(place, settings, host, upstream, bundle=None):
    """The agent under the policy for conversations, with the mock as their gateway, of that name; gives its base URL and the path of its
    output. `bundle`: it has a CA of its own, and here go the roots for its clients."""
    port = support.free_port()
    (place / "policies").mkdir()
    policy = (support.PROJECT / "policies/chat.yaml").read_text()
    (place / "policies/chat.yaml").write_text(policy.replace("host: gateway.chat.example", f"host: {host}"))
    config = ["--config", str(place / "settings.yaml")]
    (place / "settings.yaml").write_text(settings.format(port=port, upstream=upstream))
    for words in () if bundle is None else (["init"], ["trust", "--bundle", str(bundle)]):
        subprocess.run([support.BINARY, "ca", *words, *config], check=True, capture_output=True)
    with support.running([support.BINARY, "run", *config, "--data-dir", str(place / "data")], port) as log:
        yield f"http://127.0.0.1:{port}", log


OPTIONS = {"api_key": "none", "default_headers": HEADERS, "max_retries": 0, "timeout": 60}
MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]


def chunk_text(chunk):
    """The text in an event of OpenAI's first API, if there is one."""
    return chunk.choices[0].delta.content if chunk.choices else None


class OpenAI:
    """Asks as applications do; gives the texts of the answer as they come."""

    def __init__(self, base):
        transport = openai.DefaultHttpxClient(trust_env=False)
        self.client = openai.OpenAI(base_url=f"{base}/v1", http_client=transport, **OPTIONS)

    def ask(self, model):
        with self.client.chat.completions.create(model=model, messages=MESSAGES, stream=True) as stream:
            return [text for text in map(chunk_text, stream) if text is not None]

    def close(self):
        self.client.close()


class Responses(OpenAI):
    """The newer API: its events have names, and say the text once more when it is over."""

    def ask(self, model):
        with self.client.responses.create(model=model, instructions=SYSTEM, input=PROMPT, stream=True) as stream:
            events = list(stream)
        if events[0].type != "response.created" or events[-1].type != "response.completed":
            raise AssertionError([event.type for event in events])
        return [event.delta for event in events if event.type == "response.output_text.delta"]


class AsyncOpenAI:
    """Each question in a loop of its own."""

    def __init__(self, base):
        self.base = base

    def ask(self, model):
        return asyncio.run(self.talk(model))

    async def talk(self, model):
        transport = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(base_url=f"{self.base}/v1", http_client=transport, **OPTIONS) as client:
            stream = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
            return [text async for chunk in stream if (text := chunk_text(chunk)) is not None]

    def close(self):
        pass


class AsyncAnthropic(AsyncOpenAI):
    async def talk(self, model):
        transport = anthropic.DefaultAsyncHttpxClient(trust_env=False)
        async with anthropic.AsyncAnthropic(base_url=self.base, http_client=transport, **OPTIONS) as client:
            messages = [{"role": "user", "content": PROMPT}]
            async with client.messages.stream(model=model, system=SYSTEM, messages=messages, max_tokens=1000) as stream:
                texts = [text async for text in stream.text_stream]
                if "".join(texts) != await stream.get_final_text():
                    raise AssertionError("the texts are not those of the message")
                return texts


class Anthropic:
    """Likewise, with its library's own gathering of the answer beside the texts."""

    def __init__(self, base):
        transport = anthropic.DefaultHttpxClient(trust_env=False)
        self.client = anthropic.Anthropic(base_url=base, http_client=transport, **OPTIONS)

    def ask(self, model):
        messages = [{"role": "user", "content": PROMPT}]
        with self.client.messages.stream(model=model, system=SYSTEM, messages=messages, max_tokens=1000) as stream:
            texts = list(stream.text_stream)
            if "".join(texts) != stream.get_final_text():
                raise AssertionError("the texts are not those of the message")
            return texts

    def close(self):
        self.client.close()


@contextlib.contextmanager
def tls_before(port, place):
    """TLS as `localhost` in front of a server of this machine; gives its port. Whom to trust is in public.pem."""
    public = trustme.CA()
    public.cert_pem.write_to_path(place / "public.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    public.issue_cert("localhost").configure_cert(context)

    async def copy(source, sink):
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def relay(near, to_near):
        far, to_far = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(near, to_far), copy(far, to_near))

    @contextlib.asynccontextmanager
    async def serve():
        server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
        yield server
        server.close()

    with beside.running(serve) as port_of_tls:
        yield port_of_tls


class LanguageModels(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.model = stack.enter_context(mock())
        place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cls.base, cls.log = stack.enter_context(agent(place, SETTINGS, "127.0.0.1", cls.model.port))

    def sealed(self, model=None):
        """The tokens of what the model was last sent, of which nothing was in clear."""
        body = (model or self.model).last_request()
        for words in (SYSTEM, "Fuchs", "078-05-1120", "Lisinopril", "Łódź"):
            self.assertNotIn(words, body)
        tokens = TOKEN.findall(body)
        self.assertEqual(len(tokens), 2, "the system's prompt and the user's")
        return tokens

    def logged(self, log, answers):
        """So many answers are on record, and nothing of what was said."""
        deadline = time.monotonic() + 60
        while (said := log.read_text()).count("status=200") < answers:
            self.assertLess(time.monotonic(), deadline, said)
            time.sleep(0.05)
        for words in ("Fuchs", "Lisinopril"):
            self.assertNotIn(words, said)

    def converse(self, library):
        before = self.log.read_text().count("status=200")
        through, beside = library(self.base), library(self.model.base)
        self.addCleanup(through.close)
        self.addCleanup(beside.close)
        self.assertEqual("".join(through.ask("plain")), "Noted.")
        system, prompt = self.sealed()
        said = f"fv1, you asked “{prompt}”, and then {prompt}{system}. fv1~"
        opened = f"fv1, you asked “{PROMPT}”, and then {PROMPT}{SYSTEM}. fv1~"
        for pieces in PIECES:
            with self.subTest(pieces=pieces):
                model = f"{library.__name__}-{pieces}"
                self.model.learn(model, said, pieces)
                texts = through.ask(model)
                self.assertEqual("".join(texts), opened)
                self.sealed()
                # The model sent it in pieces, sealed: what came without the agent.
                direct = beside.ask(model)
                self.assertEqual("".join(direct), said)
                self.assertFalse(any(prompt in text for text in direct))
                # Each event went on by itself, perhaps with an empty text; what had begun like a token is in one more.
                self.assertEqual(len(texts), len(direct) + 1)
        self.logged(self.log, before + 1 + len(PIECES))

    def test_openai(self):
        self.converse(OpenAI)

    def test_anthropic(self):
        self.converse(Anthropic)

    def test_responses(self):
        self.converse(Responses)

    def test_openai_async(self):
        self.converse(AsyncOpenAI)

    def test_anthropic_async(self):
        self.converse(AsyncAnthropic)

    def test_the_whole_text_of_the_newer_api_is_opened_where_it_is_a_token(self):
        client = Responses(self.base)
        self.addCleanup(client.close)
        client.ask("plain")
        _, prompt = sorted(self.sealed(), key=len)
        self.model.learn("whole", prompt, 20)
        with client.client.responses.stream(model="whole", instructions=SYSTEM, input=PROMPT) as stream:
            texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
            final = stream.get_final_response()
        self.assertEqual("".join(texts), PROMPT)
        self.assertEqual(final.output_text, PROMPT)

    def test_openai_through_the_forward_proxy(self):
        """A base URL of https, and no more than the variables that say where the proxy is and whom to trust."""
        with contextlib.ExitStack() as stack:
            model = stack.enter_context(mock())
            place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            secure = stack.enter_context(tls_before(model.port, place))
            bundle = place / "bundle.pem"
            proxy, log = stack.enter_context(agent(place, FORWARD, "localhost", secure, bundle))
            environment = {key: value for key, value in os.environ.items() if key.lower() not in PROXY_VARIABLES}
            environment |= {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": str(bundle)}
            stack.enter_context(unittest.mock.patch.dict(os.environ, environment, clear=True))
            client = stack.enter_context(openai.OpenAI(base_url=f"https://localhost:{secure}/v1", **OPTIONS))

            def ask(name):
                with client.chat.completions.create(model=name, messages=MESSAGES, stream=True) as events:
                    return [text for text in map(chunk_text, events) if text is not None]

            self.assertEqual("".join(ask("plain")), "Noted.")
            _, prompt = self.sealed(model)
            model.learn("again", f"You said {prompt}.", 20)
            texts = ask("again")
            self.assertEqual("".join(texts), f"You said {PROMPT}.")
            self.assertGreater(len(texts), 5)
            self.logged(log, 2)


if __name__ == "__main__":
    unittest.main()
