"""docs/getting-started.md, command by command, as a new user would type it into one shell in an empty directory."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import unittest

import support

PAGE = support.PROJECT / "docs/getting-started.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# The page's ports may be taken here.
PORTS = ("8080", "9000", "9902")


def steps(page):
    """Each `sh` block with the `text` block behind it, which is what it prints; without one, it prints nothing."""
    steps = []
    for kind, text in BLOCK.findall(page):
        if kind == "sh":
            steps.append([text, ""])
        elif kind == "text":
            steps[-1][1] = text
        else:
            raise ValueError(f"a block of another kind: {kind}")
    return steps


def printed(text):
    """What a `text` block allows."""
    return re.compile(".*".join(map(re.escape, text.split("…"))))


class GettingStarted(unittest.TestCase):
    def test_the_page(self):
        page = PAGE.read_text()
        for port in PORTS:
            page = re.sub(rf"\b{port}\b", str(support.free_port()), page)
        found = steps(page)
        self.assertGreater(len(found), 9)
        with tempfile.TemporaryDirectory() as directory:
            place = pathlib.Path(directory)
            script = "".join(f"exec > '{place}/{number}'\n{commands}" for number, (commands, _) in enumerate(found))
            path = f"{pathlib.Path(support.BINARY).parent}{os.pathsep}{os.environ['PATH']}"
            errors = place / "errors"
            with errors.open("wb") as to:
                shell = subprocess.Popen(
                    ["bash", "-euo", "pipefail", "-c", script], cwd=place, stdin=subprocess.DEVNULL, stderr=to,
                    env={**os.environ, "PATH": path, "NO_PROXY": "*"}, start_new_session=True,
                )
            try:
                shell.wait(timeout=120)
            finally:
                # What a page that failed left behind is of its shell's process group.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGTERM)
            said = errors.read_text()
            for number, (commands, expected) in enumerate(found):
                out = place / str(number)
                self.assertTrue(out.exists(), f"not come to:\n{commands}\n{said}")
                shown = f"{commands}\nprinted:\n{out.read_text()}\ninstead of:\n{expected}\n{said}"
                self.assertTrue(printed(expected).fullmatch(out.read_text()), shown)
            self.assertEqual(shell.returncode, 0, said)


if __name__ == "__main__":
    unittest.main()
