"""A server with as much of W&B's protocol as runs and `wandb sync` need. It stores the history of each run."""

import gzip
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "0123456789" * 4


class Server:
    def __init__(self):
        self.history, self.summary, self.runs = {}, {}, {}
        self.address = ""

    def environment(self):
        return {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": self.address}

    def rows(self, run):
        return [json.loads(line) for line in self.history[run]]

    def stream(self, run, files):
        for name, chunk in files.items():
            lines, offset = chunk["content"], chunk["offset"]
            if name == "wandb-history.jsonl":
                history = self.history.setdefault(run, [])
                history[offset : offset + len(lines)] = lines
            elif name == "wandb-summary.json":
                self.summary[run] = lines[-1]

    def answer(self, operation, query, given):
        run = given.get("name")
        project = {"id": "p", "name": given.get("project") or "p", "entity": {"id": "e", "name": "me"}}
        if "upsertBucket" in query:
            self.runs.setdefault(run, {}).update({key: value for key, value in given.items() if value is not None})
            bucket = {"id": run, "name": run, "displayName": run, "description": "", "config": "{}", "sweepName": None}
            return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0, "project": project}, "inserted": True}}
        if operation == "RunResumeStatus":
            return {"model": {**project, "bucket": self.state(run)}} if run in self.history else {"model": None}
        if "viewer" in query:
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if "serverInfo" in query:
            return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "0.99.0"}, "features": []}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.address}/upload"} for name in given.get("files") or []]
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        if "createArtifact(" in query:  # as if the server had it already, so that nothing is uploaded
            latest = {"id": "a", "versionIndex": 0}
            artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": latest}}
            return {"createArtifact": {"artifact": artifact}}
        if operation == "ProjectArtifactType":
            return {"project": {"artifactType": {"id": "t", "name": given["type"], "description": "", "createdAt": ""}}}
        return {}

    def state(self, run):
        history = self.history[run]
        counts = {"logLineCount": 0, "historyLineCount": len(history), "eventsLineCount": 0}
        tails = {"historyTail": json.dumps(history[-1:]), "eventsTail": "[]"}
        texts = {"summaryMetrics": self.summary.get(run, "{}"), "config": "{}", "wandbConfig": "{}"}
        return {"id": run, "name": run, "displayName": run, "tags": [], **counts, **tails, **texts}


@contextmanager
def running():
    """Runs a server on a free local port."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def respond(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            answer = {}
            if self.path.endswith("/graphql"):
                content = json.loads(body)
                given = content.get("variables") or {}
                answer = {"data": server.answer(content.get("operationName"), content.get("query", ""), given)}
            elif self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = respond  # noqa: N815

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass  # a client that ends closes its connections

    http = Quiet(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
