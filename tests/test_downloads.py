"""Downloads of weight files, from a local server."""

import hashlib
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spine.checkpoints import download
from spine.checkpoints.weight_table import row_of_file
from spine.errors import InputError

CONTENT = bytes(range(256)) * 5000


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT and supports ranges. /broken.pth ends early once, /plain.pth ignores ranges, /slow.pth takes a second."""

    requests: list = []

    def do_GET(self):
        start = 0
        Handler.requests.append((self.path, self.headers.get("Range")))
        if self.path == "/missing.pth":
            self.send_error(404)
            return
        if (requested := self.headers.get("Range")) and self.path != "/plain.pth":
            start = int(requested.removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENT):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        first_time = sum(path == self.path for path, _ in Handler.requests) == 1
        end = len(CONTENT) // 2 if self.path == "/broken.pth" and first_time else len(CONTENT)
        if self.path == "/slow.pth":
            time.sleep(1)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    Handler.requests = []
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http_server.server_port}"
    http_server.shutdown()
    http_server.server_close()


def test_a_file_is_downloaded_once(server, tmp_path):
    path = download.fetch(f"{server}/a.pth", hashlib.sha256(CONTENT).hexdigest()[:8])
    assert path == tmp_path / "cache" / "a.pth" and path.read_bytes() == CONTENT
    assert download.fetch(f"{server}/a.pth") == path and len(Handler.requests) == 1


def test_files_with_the_same_name_are_stored_by_repository(server, tmp_path):
    path = download.fetch(f"{server}/owner/net.in1k/resolve/main/model.safetensors")
    assert path == tmp_path / "cache" / "owner--net.in1k--model.safetensors"


def test_an_interrupted_download_is_resumed(server):
    with pytest.raises(InputError, match="the connection ended after 640000 of 1280000 bytes.*the next attempt resumes"):
        download.fetch(f"{server}/broken.pth")
    assert download.fetch(f"{server}/broken.pth").read_bytes() == CONTENT
    assert Handler.requests[1] == ("/broken.pth", "bytes=640000-")


def test_a_server_without_ranges_sends_the_whole_file_again(server, tmp_path):
    (tmp_path / "cache").mkdir()
    download.part_path(tmp_path / "cache" / "plain.pth").write_bytes(CONTENT[:1000])
    assert download.fetch(f"{server}/plain.pth").read_bytes() == CONTENT


def test_a_complete_part_is_used(server, tmp_path):
    (tmp_path / "cache").mkdir()
    download.part_path(tmp_path / "cache" / "a.pth").write_bytes(CONTENT)
    assert download.fetch(f"{server}/a.pth", hashlib.sha256(CONTENT).hexdigest()).read_bytes() == CONTENT


def test_a_file_with_another_hash_is_rejected_and_deleted(server, tmp_path):
    with pytest.raises(
        InputError, match="is not the published file and was deleted: its SHA-256 starts with .*, the published one with 00000000"
    ):
        download.fetch(f"{server}/a.pth", "00000000")
    assert not list((tmp_path / "cache").iterdir())


def test_unreachable_addresses_are_reported(server, monkeypatch):
    with pytest.raises(InputError, match=r"missing.pth could not be downloaded \(Not Found\)"):
        download.fetch(f"{server}/missing.pth")
    with pytest.raises(InputError, match=r"could not be downloaded \(.*\). .*Without a network, put the file at .*a.pth"):
        download.fetch("http://127.0.0.1:9/a.pth")


def test_concurrent_processes_download_once(server, tmp_path):
    code = f"from spine.checkpoints import download; print(download.fetch('{server}/slow.pth'))"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0] * 4
    target = tmp_path / "cache" / "slow.pth"
    assert all(text.splitlines()[-1] == str(target) for text in printed) and target.read_bytes() == CONTENT
    assert [path for path, _ in Handler.requests] == ["/slow.pth"]
    assert list(target.parent.iterdir()) == [target]


def test_a_part_that_is_longer_than_the_file_is_downloaded_again(server, tmp_path):
    """Without a hash, only the size shows that it is another file."""
    (tmp_path / "cache").mkdir()
    download.part_path(tmp_path / "cache" / "a.pth").write_bytes(CONTENT + b"more")
    assert download.fetch(f"{server}/a.pth").read_bytes() == CONTENT


def test_machines_that_share_a_folder_have_separate_parts(tmp_path, monkeypatch):
    names = set()
    for host in ("one", "two"):
        monkeypatch.setattr(download.socket, "gethostname", lambda host=host: host)
        names.add(download.part_path(tmp_path / "a.pth"))
    assert len(names) == 2


def test_a_file_with_a_published_name_is_recognized():
    from spine.checkpoints.published import vit, xception

    row = row_of_file(Path("elsewhere/xception-43020ad28.pth"), xception.WEIGHTS)
    assert row is xception.WEIGHTS["standard"]["imagenet1k"]
    hub = Path("timm--vit_base_patch16_224.augreg2_in21k_ft_in1k--model.safetensors")
    assert row_of_file(hub, vit.WEIGHTS) is vit.WEIGHTS["base_patch16"]["timm"]
    assert row_of_file(Path("model.safetensors"), vit.WEIGHTS) is None
