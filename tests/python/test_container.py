"""The image that docker/Dockerfile makes, in containers: what is in it, compose.yaml and the manifest for Kubernetes at work."""

import contextlib
import http.client
import os
import pathlib
import socket
import stat
import tempfile
import tomllib
import unittest

import yaml

import containers
import support

DOCKER = support.PROJECT / "docker"
SECRETS = ("123-45-6789", "4111111111111111", "5500005555555559")
PASSPHRASE = "FIELDVEIL_KEYRING_PASSPHRASE=a passphrase of some length"


def setUpModule():
    # What is written for other users to read.
    unittest.addModuleCleanup(os.umask, os.umask(0o022))
    unittest.addModuleCleanup(containers.forget)
    why_not = containers.why_not()
    if why_not:
        # tests/run says so at its end; nothing else may be skipped.
        raise unittest.SkipTest(f"containers cannot run here: {why_not}")
    containers.image()
    # What stands under it stays for the next run.
    unittest.addModuleCleanup(containers.podman, "image", "prune", "--force")
    unittest.addModuleCleanup(containers.podman, "rmi", "--force", containers.IMAGE)


def get(port, path):
    """Status and text, from this network's loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


class Image(unittest.TestCase):
    def test_how_it_is_run(self):
        image, = yaml.safe_load(containers.podman("image", "inspect", containers.IMAGE).stdout)
        config = image["Config"]
        self.assertRegex(config["User"], r"^[1-9][0-9]*:[1-9][0-9]*$")
        self.assertEqual(config["Entrypoint"], ["fieldveil"])
        settings = ["--config", "/etc/fieldveil/settings.yaml"]
        self.assertEqual(config["Cmd"], ["run", *settings])
        self.assertEqual(image["Healthcheck"]["Test"], ["CMD", "fieldveil", "probe", "ready", *settings])
        self.assertEqual(config["StopSignal"], "SIGTERM")
        package = tomllib.loads((support.PROJECT / "Cargo.toml").read_text())["package"]
        labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
        for name in ("version", "description"):
            self.assertEqual(labels[name], package[name])
        self.assertEqual(labels["licenses"], package["license"])
        # The compiler is the oldest that will do.
        self.assertIn(f"rust:{package['rust-version']}-slim-", (DOCKER / "Dockerfile").read_text())

    def test_what_is_in_it(self):
        """The program, the libraries that it is linked against, certificates: no shell, and nothing that gives rights."""
        with containers.files(containers.IMAGE) as root:
            programs, size = [], 0
            for path in root.rglob("*"):
                mode, name = path.lstat(), str(path.relative_to(root))
                self.assertFalse(mode.st_mode & (stat.S_ISUID | stat.S_ISGID), name)
                owner = 65532 if name == "var/lib/fieldveil" else 0
                self.assertEqual((mode.st_uid, mode.st_gid), (owner, owner), name)
                if stat.S_ISREG(mode.st_mode):
                    size += mode.st_size
                    if mode.st_mode & 0o111 and ".so" not in path.name:
                        programs.append(name)
            self.assertEqual(programs, ["usr/local/bin/fieldveil"])
            self.assertEqual(stat.S_IMODE((root / "var/lib/fieldveil").stat().st_mode), 0o700)
            beside = size - (root / "usr/local/bin/fieldveil").stat().st_size
            self.assertLess(beside, 8 << 20)
            certificates = (root / "etc/ssl/certs/ca-certificates.crt").read_text()
            self.assertGreater(certificates.count("BEGIN CERTIFICATE"), 50)
            packages = {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()}
            self.assertGreaterEqual(packages, {"libc6", "libgcc-s1", "ca-certificates"})

    def test_any_user_and_nothing_to_write(self):
        """As platforms do that give each project a user of its own."""
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        policies = containers.readable(stack, support.PROJECT / "examples/orders/policies")
        done = containers.podman(
            "run", "--rm", "--network", "none", "--read-only", "--read-only-tmpfs=false", "--user", "1000640000:0", "--cap-drop", "all",
            "--volume", f"{policies}:/etc/fieldveil/policies:ro", containers.IMAGE,
            "policy", "check", "/etc/fieldveil/policies",
        )
        self.assertEqual(done.stderr, "")
        self.assertIn("orders.yaml: ok", done.stdout)


class Compose(unittest.TestCase):
    """docker/compose.yaml, service by service, but on one network without names: what it says is what podman is told."""

    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.stack = stack
        self.services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
        containers.python_image()

    def start(self, name, *network):
        """Runs a service with all that is said of it: a word that is not known here fails."""
        service = dict(self.services[name])
        arguments, image = list(network), service.pop("image")
        image = containers.IMAGE if service.pop("build", None) else image
        if image.startswith("docker.io/library/python:"):
            image = containers.PYTHON
        for volume in service.pop("volumes"):
            source, rest = volume.split(":", 1)
            if source.startswith("."):
                source = containers.readable(self.stack, (DOCKER / source).resolve(strict=True))
            else:
                source = f"{source}-{os.getpid()}"
                self.stack.callback(containers.podman, "volume", "rm", "--force", source)
            arguments += ["--volume", f"{source}:{rest}"]
        for variable, value in service.pop("environment", {}).items():
            value = PASSPHRASE.split("=", 1)[1] if value.startswith("${FIELDVEIL_KEYRING_PASSPHRASE:?") else value
            arguments += ["--env", f"{variable}={value}"]
        if service.pop("read_only", False):
            arguments += ["--read-only", "--read-only-tmpfs=false"]
        arguments += [word for capability in service.pop("cap_drop", []) for word in ("--cap-drop", capability)]
        arguments += [word for option in service.pop("security_opt", []) for word in ("--security-opt", option.replace(":true", ""))]
        arguments += [word for what, most in service.pop("ulimits", {}).items() for word in ("--ulimit", f"{what}={most}:{most}")]
        if user := service.pop("user", None):
            arguments += ["--user", user]
        if healthcheck := service.pop("healthcheck", None):
            kind, *test = healthcheck["test"]
            self.assertEqual(kind, "CMD")
            self.assertEqual(test, ["fieldveil", "probe", "ready", "--config", "/etc/fieldveil/settings.yaml"])
        command = service.pop("command")
        # In what order they start and how long they may take to end is the test's affair.
        for known in ("depends_on", "network_mode", "stop_grace_period"):
            service.pop(known, None)
        self.assertEqual(service, {}, "the test does not know these")
        return containers.Container(self.stack, name, *arguments, image, *command)

    def test_the_file_is_valid(self):
        """Compose's own opinion; and without a passphrase it refuses."""
        command = ["docker-compose", "--file", str(DOCKER / "compose.yaml"), "config", "--quiet"]
        containers.run(*command, FIELDVEIL_KEYRING_PASSPHRASE="x")
        with self.assertRaisesRegex(RuntimeError, "a passphrase for the keyring"):
            containers.run(*command)

    def test_an_order_goes_through_it_and_it_ends_in_order(self):
        agent = self.start("fieldveil", "--network", "none", "--add-host", "api:127.0.0.1")
        shared = ("--network", f"container:{agent.name}")
        api = self.start("api", *shared)
        agent.until("healthy", agent.healthy)

        app = self.start("app", *shared)
        self.assertEqual(int(containers.podman("wait", app.name).stdout), 0, app.said())
        for secret in SECRETS:
            self.assertEqual(app.said().count(secret), 2)
            self.assertNotIn(secret, api.said() + agent.said())
        api.until("it got tokens", lambda: api.said().count("fv1~") == 3)

        # What the kernel says of the agent: not root, no capability, none to be had, system calls filtered, keys locked.
        status = agent.status()
        self.assertEqual(status["Uid"].split(), ["65532"] * 4)
        self.assertEqual({status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}, {"0" * 16})
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
        self.assertNotEqual(status["VmLck"], "0 kB")
        self.assertIn("fieldveil_key_memory_locked 1.0\n", self.metrics(agent))
        mounts = (line.split() for line in pathlib.Path(f"/proc/{agent.pid()}/mountinfo").read_text().splitlines())
        options, = (fields[5] for fields in mounts if fields[4] == "/")
        self.assertIn("ro", options.split(","))

        # A request that has begun is answered before it ends; no other begins.
        body = b'{"ssn": "987-65-4321"}'
        begun = agent.inside(lambda: socket.create_connection(("127.0.0.1", 8080), 60))
        self.stack.callback(begun.close)
        begun.sendall(b"POST /orders HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
        agent.until("it has begun", lambda: 'in_flight{listener="out"} 1.0' in self.metrics(agent))
        # Not `stop`: after that podman would ask for no health.
        agent.signal("TERM")
        agent.until("it drains", lambda: '"draining"' in agent.said())
        self.assertFalse(agent.healthy())
        begun.sendall(body)
        answer = http.client.HTTPResponse(begun)
        answer.begin()
        self.assertEqual((answer.status, answer.read()), (201, body))
        self.assertEqual(int(containers.podman("wait", agent.name).stdout), 0, agent.said())
        api.until("it got one more", lambda: api.said().count("fv1~") == 4)
        self.assertNotIn("987-65-4321", api.said())

    def metrics(self, agent):
        return agent.inside(lambda: get(9902, "/metrics")[1])


class Kubernetes(unittest.TestCase):
    """The sidecar of the manifest in this image: its user, its command, its volumes, a root that cannot be written to, its probes."""

    def test_the_sidecar(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.chmod(0o755)
        manifest = (support.PROJECT / "examples/kubernetes/deployment.yaml").read_text()
        documents = {document["kind"]: document for document in yaml.safe_load_all(manifest)}
        pod = documents["Deployment"]["spec"]["template"]["spec"]
        sidecar, = pod["initContainers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        arguments = []
        for mount in sidecar["volumeMounts"]:
            source = place / mount["name"]
            source.mkdir()
            if "configMap" in volumes[mount["name"]]:
                config, items = source, volumes[mount["name"]]["configMap"]["items"]
                data = documents["ConfigMap"]["data"]
                self.swap(config, items, data, "1")
            else:
                # As a volume with an fsGroup is: of the group, which may write.
                os.chown(source, 0, pod["securityContext"]["fsGroup"])
                source.chmod(0o2770)
            arguments += ["--volume", f"{source}:{mount['mountPath']}:{'ro' if mount.get('readOnly') else 'rw'}"]
        user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
        program, *command = sidecar["command"]
        self.assertTrue(sidecar["securityContext"]["readOnlyRootFilesystem"])
        agent = containers.Container(
            stack, "sidecar", "--network", "none", "--user", user, "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all",
            "--security-opt", "no-new-privileges", "--env", PASSPHRASE, *arguments, "--entrypoint", program, containers.IMAGE, *command,
        )
        port, = (port["containerPort"] for port in sidecar["ports"])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = sidecar[probe]["httpGet"]["path"]
            agent.until(probe, lambda: agent.inside(lambda: self.answers(port, path)))
        # Its upstream is vouched for by the system's certificates: it does not start without any.
        self.assertIn("https://", data["settings.yaml"])
        # A changed map is a changed policy.
        more = data["orders.yaml"].replace("{at: $..ssn, seal: ssn}", "{at: $..ssn, seal: ssn}, {at: $..pan, seal: pan}")
        self.assertNotEqual(more, data["orders.yaml"])
        self.swap(config, items, {**data, "orders.yaml": more}, "2")
        agent.signal("HUP")
        agent.until("reloaded", lambda: 'policy_reloads_total{outcome="loaded"} 1' in agent.inside(lambda: get(port, "/metrics")[1]))
        stopping = agent.stop()
        self.assertEqual(stopping.wait(60), 0)
        self.assertEqual(agent.look("State.ExitCode"), 0, agent.said())

    def swap(self, directory, items, data, version):
        """Writes a ConfigMap's files as the kubelet does: into a directory of their own, to which links lead."""
        for item in items:
            path = directory / f"..{version}" / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(data[item["key"]])
            top = directory / pathlib.PurePath(item["path"]).parts[0]
            if not top.is_symlink():
                top.symlink_to(pathlib.PurePath("..data") / top.name)
        (directory / "..data_tmp").symlink_to(f"..{version}")
        (directory / "..data_tmp").rename(directory / "..data")

    def answers(self, port, path):
        with contextlib.suppress(OSError):
            return get(port, path)[0] == 200
        return False


if __name__ == "__main__":
    unittest.main()
