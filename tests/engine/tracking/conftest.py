"""A loopback stand-in for a W&B server: enough for runs, tables, artifacts, sweeps and agents."""

import itertools
import json
import math
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ENTITY = {"id": "E", "name": "lab"}


def proposed(parameter):
    """Values of a sweep's parameter, as a server would propose them; of a distribution, one."""
    if parameter.get("distribution") == "log_uniform_values":
        return [math.sqrt(parameter["min"] * parameter["max"])]
    return parameter.get("values", [parameter.get("value")])


class Store:
    """Everything the client sent, and what the server is to decide.

    Attributes:
        stop_after: run id -> how many values of the sweep's metric it may log before an agent is told to stop it.
    """

    def __init__(self):
        self.stop_after = {}
        self.calls, self.runs, self.streams, self.uploads = [], {}, {}, {}
        self.sweeps, self.agents, self.artifacts, self.exit_codes = {}, {}, {}, {}

    def judged(self, run_id, metric):
        """Values of `metric` in the history that a run has sent so far."""
        rows = map(json.loads, list(self.streams.get(run_id, {}).get("wandb-history.jsonl", ())))
        return [row[metric] for row in rows if metric in row]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _read(self):
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self._answer({}, 404)

    def do_PUT(self):
        self.server.store.uploads[self.path] = self._read()
        self._answer({})

    def do_POST(self):
        body, store = self._read(), self.server.store
        if self.path == "/graphql":
            return self._graphql(json.loads(body), store)
        stream = re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if stream:
            sent = json.loads(body)
            if sent.get("complete"):
                store.exit_codes[stream[1]] = sent["exitcode"]
            for name, part in (sent.get("files") or {}).items():
                store.streams.setdefault(stream[1], {}).setdefault(name, []).extend(part["content"])
        return self._answer({})  # telemetry ends here too

    def _graphql(self, request, store):
        name = re.search(r"\b(?:query|mutation)\s+(\w+)", request["query"]).group(1)
        store.calls.append(name)
        operation = getattr(self, f"op_{name}", None)
        if operation is None:
            return self._answer({"errors": [{"message": f"stub: no {name}"}]})
        return self._answer({"data": operation(request.get("variables") or {}, store)})

    def _upload_url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}/up/{path}"

    def op_Viewer(self, v, store):
        viewer = {"id": "u", "entity": "lab", "username": "lab", "email": "x@example.com", "flags": "{}"}
        return {"viewer": viewer | {"teams": {"edges": []}}}

    def op_ServerFeaturesQuery(self, v, store):
        return {"serverInfo": {"features": []}}

    def op_UpsertBucket(self, v, store):
        name = v.get("name") or v["id"]
        new = name not in store.runs
        run = store.runs.setdefault(name, {})
        run.update({key: value for key, value in v.items() if value is not None})
        bucket = {
            "id": f"B{name}",
            "name": name,
            "displayName": run.get("displayName") or name,
            "description": None,
            "config": run.get("config", "{}"),
            "sweepName": run.get("sweep"),
            "project": {"id": "P", "name": run.get("project", "p"), "entity": ENTITY},
            "historyLineCount": 0,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def op_CreateRunFiles(self, v, store):
        files = [{"name": f, "uploadUrl": self._upload_url(f"{v['run']}/{f}")} for f in v["files"]]
        return {"createRunFiles": {"runID": f"B{v['run']}", "uploadHeaders": [], "files": files}}

    def op_RunResumeStatus(self, v, store):
        return {"model": {"id": "P", "name": v["project"], "entity": ENTITY, "bucket": None}}

    def op_UpsertSweep(self, v, store):
        config = yaml.safe_load(v["config"])
        parameters = config["parameters"]
        values = [proposed(parameter) for parameter in parameters.values()]
        todo = [dict(zip(parameters, combination, strict=True)) for combination in itertools.product(*values)]
        todo = todo[: config.get("run_cap")]
        name = f"sw{len(store.sweeps)}"
        store.sweeps[name] = {"config": v["config"], "todo": todo, "started": 0}
        project = {"id": "P", "name": config.get("project", "p"), "entity": ENTITY}
        return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}

    def op_SweepWithRuns(self, v, store):
        config = store.sweeps[v["sweep"]]["config"]
        sweep = {"id": "S", "name": v["sweep"], "state": "RUNNING", "config": config, "runs": {"edges": []}}
        return {"project": {"sweep": sweep}}

    def op_CreateAgent(self, v, store):
        store.agents["A"] = v["sweep"]
        return {"createAgent": {"agent": {"id": "A"}}}

    def op_Heartbeat(self, v, store):
        sweep, commands = store.sweeps[store.agents[v["id"]]], []
        metric = yaml.safe_load(sweep["config"])["metric"]["name"]
        running = json.loads(v["runState"])
        for run_id in running:
            if len(store.judged(run_id, metric)) >= store.stop_after.get(run_id, math.inf):
                commands.append({"type": "stop", "run_id": run_id})
        if not running:
            if sweep["todo"]:
                sweep["started"] += 1
                arguments = {key: {"value": value} for key, value in sweep["todo"].pop(0).items()}
                program = yaml.safe_load(sweep["config"])["program"]
                run_id = f"r{sweep['started']}"
                commands = [{"type": "run", "run_id": run_id, "program": program, "args": arguments}]
            else:
                commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": v["id"]}, "commands": json.dumps(commands)}}

    def op_CreateArtifact(self, v, store):
        name = f"ART{len(store.artifacts)}"
        store.artifacts[name] = v["input"]
        artifact = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def op_CreateArtifactManifest(self, v, store):
        file = {"id": "F", "uploadUrl": self._upload_url("manifest"), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "M", "file": file}}}

    def op_CreateArtifactFiles(self, v, store):
        def node(file):
            path = f"art/{file['name']}"
            upload = {"uploadUrl": self._upload_url(path), "uploadHeaders": [], "uploadMultipartUrls": None}
            return {"storagePath": path, "artifact": {"id": file["artifactID"]}} | upload

        edges = [{"node": node(file)} for file in v["input"]["artifactFiles"]]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def op_CommitArtifact(self, v, store):
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": "x"}}}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """The client resets connections when it ends; that is no fault."""

    @property
    def environment(self):
        """Variables that point the client here, with the running Python first on the path."""
        return {
            "WANDB_BASE_URL": f"http://127.0.0.1:{self.server_port}",
            "WANDB_API_KEY": "0" * 40,
            "WANDB_MODE": "online",
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        }


@pytest.fixture
def wandb_server():
    server = Server(("127.0.0.1", 0), Handler)
    server.store = Store()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def _wandb_home(tmp_path, monkeypatch):
    """No credentials and no settings of the person who runs the tests; no address but this machine's.

    The client reads its environment once per process, so it starts anew for each test.
    """
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    own = (
        "API_KEY",
        "MODE",
        "DISABLED",
        "PROJECT",
        "ENTITY",
        "NAME",
        "TAGS",
        "RUN_ID",
        "NOTES",
        "RUN_GROUP",
        "JOB_TYPE",
        "DIR",
    )
    for name in (*(f"WANDB_{name}" for name in own), "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home" / name.lower()))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    yield
    wandb.teardown()
