"""The examples, as their READMEs have them."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import urllib.request

import kubernetes_validate
import yaml

import support

EXAMPLES = support.PROJECT / "examples"
SECRETS = ("123-45-6789", "4111111111111111", "5500005555555559")


def run(*command, place=None, **environment):
    """What a program prints that ends well and says nothing on its standard error."""
    done = subprocess.run(
        [str(word) for word in command], cwd=place, env={**os.environ, "NO_PROXY": "*", **environment},
        capture_output=True, text=True, timeout=120,
    )
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


class Applications(unittest.TestCase):
    """Each of them places an order and reads it back; what changed in it is its base URL."""

    def order(self, *command, **environment):
        """In front of the demo it prints plaintext, and the API sees tokens."""
        with support.demo() as (url, log):
            before = log.read_text()
            done = run(*command, BASE_URL=url, **environment)
            shown = log.read_text()[len(before) :]
        self.assertEqual(done.stderr, "")
        self.assertNotIn("fv1~", done.stdout)
        for secret in SECRETS:
            self.assertEqual(done.stdout.count(secret), 2)
        # The demo prints what the application sent (plaintext) and what the API saw (tokens).
        # Of the order, of the answer, and of what was read, side by side.
        sides = [line.split("│") for line in shown.splitlines() if "│" in line]
        application, upstream = ("\n".join(side) for side in zip(*sides, strict=True))
        for secret in SECRETS:
            self.assertEqual(application.count(secret), 3)
            self.assertNotIn(secret, upstream)
        self.assertEqual(upstream.count("fv1~"), 9)
        self.assertNotIn("fv1~", application)

    def test_python(self):
        self.order(sys.executable, EXAMPLES / "python/orders.py")

    def test_node(self):
        self.order("node", EXAMPLES / "node/orders.mjs")

    def test_go(self):
        self.order(support.go(), "run", EXAMPLES / "go/orders.go", **support.go_environment())


class Agents(unittest.TestCase):
    """A directory with a policy and settings, and what runs before it and behind it."""

    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.enter, self.place = stack.enter_context, pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))

    def agent(self, settings, behind, *flags, **environment):
        """Runs one with these settings, but ports of its own; gives its port, and the probes'."""
        listen, probes = support.free_port(), support.free_port()
        command = [
            support.BINARY, "run", "--config", str(settings), "--listen", f"127.0.0.1:{listen}",
            "--upstream", f"http://127.0.0.1:{behind}", "--probes", f"127.0.0.1:{probes}", *flags,
        ]
        self.enter(support.running(command, listen, **environment))
        return listen, probes

    def order(self, listen, got):
        """The example application gets its order back; what came behind the agent are tokens."""
        done = run(sys.executable, EXAMPLES / "python/orders.py", BASE_URL=f"http://127.0.0.1:{listen}")
        self.assertEqual(len(got), 1)
        self.assertEqual(got[0].count(b'"fv1~'), 3)
        for secret in SECRETS:
            self.assertEqual(done.stdout.count(secret), 2)
            self.assertNotIn(secret.encode(), got[0])

    def test_orders(self):
        """A policy, settings and a keyring; the application before it, a small API behind it."""
        place = self.place / "orders"
        shutil.copytree(EXAMPLES / "orders", place)
        run(support.BINARY, "policy", "check", "policies", place=place)
        run(
            support.BINARY, "keyring", "init", "--dir", "keyring", "--key-file", "keyring.key", "identity", "cards",
            place=place,
        )
        behind, got = self.enter(support.order_api())
        listen, _ = self.agent(place / "settings.yaml", behind)
        self.order(listen, got)

    def test_inbound(self):
        """Before a service: callers have tokens, the service has values."""
        place = self.place / "inbound"
        shutil.copytree(EXAMPLES / "inbound", place)
        run(support.BINARY, "policy", "check", "policies", place=place)
        tested = run(support.BINARY, "policy", "test", "policies", place=place)
        self.assertIn("3 passed, 0 failed", tested.stdout)
        run(
            support.BINARY, "keyring", "init", "--dir", "keyring", "--key-file", "keyring.key", "identity", "contact",
            place=place,
        )
        behind = support.free_port()
        got = self.enter(support.running([sys.executable, str(place / "service.py")], behind, PORT=str(behind)))
        listen, _ = self.agent(place / "settings.yaml", behind)
        done = run(sys.executable, place / "caller.py", BASE_URL=f"http://127.0.0.1:{listen}")
        for secret in ("078-05-1120", "ada@example.com"):
            self.assertNotIn(secret, done.stdout)
        # Enrolled with an ssn and an address, found with both.
        self.assertEqual(done.stdout.count('"fv1~'), 4)
        # In plaintext when it was enrolled, and again when the caller asked with the token.
        self.assertEqual(got.read_text().count("078-05-1120"), 2)
        self.assertNotIn("fv1~", got.read_text())


class Kubernetes(Agents):
    """The manifest: valid as Kubernetes has it, true to itself, and its settings and policy at work."""

    def setUp(self):
        super().setUp()
        text = (EXAMPLES / "kubernetes/deployment.yaml").read_text()
        self.documents = {document["kind"]: document for document in yaml.safe_load_all(text)}
        self.pod = self.documents["Deployment"]["spec"]["template"]["spec"]
        self.sidecar, = self.pod["initContainers"]

    # What the class above has is tested there.
    test_orders = test_inbound = None

    def test_the_manifest_is_valid(self):
        for document in self.documents.values():
            kubernetes_validate.validate(document, "1.29", strict=True)

    def test_the_manifest_is_true_to_itself(self):
        self.assertEqual(self.sidecar["restartPolicy"], "Always")
        settings = yaml.safe_load(self.documents["ConfigMap"]["data"]["settings.yaml"])
        # What the application is told is where the agent listens.
        application, = self.pod["containers"]
        base, = (one["value"] for one in application["env"] if one["name"] == "BASE_URL")
        self.assertEqual(base, f"http://{settings['listeners'][0]['bind']}")
        # Probes go where the probes are.
        port = {one["name"]: one["containerPort"] for one in self.sidecar["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            self.assertEqual(f"0.0.0.0:{port[self.sidecar[probe]['httpGet']['port']]}", settings["probes"]["bind"])
        # Mounts are of volumes; files of the volume are of the map, and where the command looks.
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in self.sidecar["volumeMounts"]}
        self.assertEqual(len(volumes), len(mounts))
        keys = mounts["/var/lib/fieldveil"]["persistentVolumeClaim"]["claimName"]
        self.assertEqual(keys, self.documents["PersistentVolumeClaim"]["metadata"]["name"])
        files = mounts["/etc/fieldveil"]["configMap"]
        self.assertEqual(files["name"], self.documents["ConfigMap"]["metadata"]["name"])
        self.assertEqual({item["key"] for item in files["items"]}, set(self.documents["ConfigMap"]["data"]))
        self.assertIn("/etc/fieldveil/settings.yaml", self.sidecar["command"])
        drain = int(settings["limits"]["drain"].removesuffix("s"))
        self.assertGreater(self.pod["terminationGracePeriodSeconds"], drain)
        # The embedded key store is for one agent.
        deployment = self.documents["Deployment"]["spec"]
        self.assertEqual((deployment["replicas"], deployment["strategy"]["type"]), (1, "Recreate"))

    def test_the_manifest_is_restricted(self):
        """What the Pod Security Standard of that name asks for."""
        pod = self.pod["securityContext"]
        self.assertTrue(pod["runAsNonRoot"])
        self.assertNotEqual(pod["runAsUser"], 0)
        self.assertEqual(pod["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & self.pod.keys())
        for volume in self.pod["volumes"]:
            self.assertIn(*volume.keys() - {"name"}, {"configMap", "persistentVolumeClaim"})
        for container in self.pod["initContainers"] + self.pod["containers"]:
            context = container["securityContext"]
            self.assertEqual((context["allowPrivilegeEscalation"], context["capabilities"]), (False, {"drop": ["ALL"]}))
            self.assertFalse({"privileged", "runAsUser", "procMount", "seccompProfile"} & context.keys())
            self.assertFalse([port for port in container.get("ports", []) if "hostPort" in port])

    def test_the_settings_and_the_policy_at_work(self):
        """In a directory instead of the pod's, with another upstream."""
        files = {item["key"]: item["path"] for item in self.pod["volumes"][0]["configMap"]["items"]}
        for key, text in self.documents["ConfigMap"]["data"].items():
            path = self.place / "etc" / files[key]
            path.parent.mkdir(parents=True, exist_ok=True)
            # The upstream is on this machine here, and the policy's host is its name.
            path.write_text(text.replace("api.example.com", "127.0.0.1").replace("loopback_upstreams: false", "loopback_upstreams: true"))
        # As a volume with an fsGroup is: of the group, which may write.
        keys = self.place / "keys"
        keys.mkdir()
        keys.chmod(0o2770)
        variable, = self.sidecar["env"]
        flags = [word.replace("/var/lib/fieldveil", str(keys)) for word in self.sidecar["command"][4:]]
        behind, got = self.enter(support.order_api())
        listen, probes = self.agent(
            self.place / "etc/settings.yaml", behind, *flags, **{variable["name"]: "a passphrase of some length"}
        )
        path = self.sidecar["livenessProbe"]["httpGet"]["path"]
        with urllib.request.urlopen(f"http://127.0.0.1:{probes}{path}", timeout=30) as answer:
            self.assertEqual(answer.status, 200)
        self.order(listen, got)


if __name__ == "__main__":
    unittest.main()
