"""The examples, as their READMEs have them."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import support

SECRETS = ("123-45-6789", "4111111111111111", "5500005555555559")


class Examples(unittest.TestCase):
    def order(self, url):
        """What the example application prints, with this base URL."""
        done = subprocess.run(
            [sys.executable, str(support.PROJECT / "examples/python/orders.py")],
            env={**os.environ, "BASE_URL": url, "NO_PROXY": "*"}, capture_output=True, text=True, timeout=60,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertNotIn("fv1~", done.stdout)
        return done.stdout

    def test_an_application_that_changes_its_base_url(self):
        """In front of the demo it prints plaintext, and the API sees tokens."""
        with support.demo() as (url, log):
            before = log.read_text()
            printed = self.order(url)
            shown = log.read_text()[len(before) :]
        for secret in SECRETS:
            self.assertEqual(printed.count(secret), 2)
        # The demo prints what the application sent (plaintext) and what the API saw (tokens).
        self.assertIn("fv1~", shown)

    def test_an_agent_with_files(self):
        """examples/orders: a policy, settings and a keyring; the application before it, a small API behind it."""
        with tempfile.TemporaryDirectory() as directory:
            place = pathlib.Path(directory, "orders")
            shutil.copytree(support.PROJECT / "examples/orders", place)

            def fieldveil(*arguments):
                done = subprocess.run(
                    [support.BINARY, *arguments], cwd=place, capture_output=True, text=True, timeout=60
                )
                self.assertEqual(done.returncode, 0, done.stderr)

            fieldveil("policy", "check", "policies")
            fieldveil("keyring", "init", "--dir", "keyring", "--key-file", "keyring.key", "identity", "cards")
            with support.order_api() as (behind, got):
                listen, probes = support.free_port(), support.free_port()
                command = [
                    support.BINARY, "run", "--config", str(place / "settings.yaml"), "--listen", f"127.0.0.1:{listen}",
                    "--upstream", f"http://127.0.0.1:{behind}", "--probes", f"127.0.0.1:{probes}",
                ]
                with support.running(command, listen):
                    printed = self.order(f"http://127.0.0.1:{listen}")
            self.assertEqual(len(got), 1)
            self.assertEqual(got[0].count(b'"fv1~'), 3)
            for secret in SECRETS:
                self.assertEqual(printed.count(secret), 2)
                self.assertNotIn(secret.encode(), got[0])


if __name__ == "__main__":
    unittest.main()
