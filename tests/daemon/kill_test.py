# SPDX-License-Identifier: Apache-2.0
"""
kill -9 of cairnd, again and again, at random moments of uploads and commits. After each: it starts; in the end everything that
was acknowledged is there (finished uploads are done jobs whose files answer, open sessions stand at their offset or beyond), and
`cairn store check` finds nothing. CAIRN_KILLS says how often (50), CAIRN_SEED repeats a run.
"""
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403

KILLS = int(os.environ.get("CAIRN_KILLS", "50"))
PAUSE = 0.25  # seconds between an uploader's variants: what is left when the kills are over is waited for
SEED = int(os.environ.get("CAIRN_SEED", str(int(time.time()))))


class Uploader(threading.Thread):
    """Uploads variants of one binary, each with a build ID and so a table of its own, without end; writes down only what was acknowledged."""

    def __init__(self, daemon, content, identity, number, stop):
        super().__init__(daemon=True)
        self.daemon_, self.content, self.number, self.stop_ = daemon, content, number, stop
        self.identity = bytes.fromhex(identity)
        self.random = random.Random(SEED * 100 + number)
        self.finished = {}  # file ID -> job
        self.offsets = {}  # upload ID -> bytes acknowledged, while open
        self.variants = 0
        self.failure = None

    def run(self):
        try:
            self.upload_variants()
        except BaseException as failure:  # shown by check()
            self.failure = failure

    def upload_variants(self):
        while not self.stop_.is_set():
            self.variants += 1
            identity = hashlib.sha1(b"%d.%d.%d" % (SEED, self.number, self.variants)).digest()
            content = self.content.replace(self.identity, identity)
            while not self.stop_.is_set():
                try:
                    self.one(content)
                    self.stop_.wait(PAUSE)
                    break
                except (OSError, http.client.HTTPException):
                    time.sleep(0.02)  # it was killed: again, from what the server has

    def one(self, content):
        begun = self.daemon_.begin(content, file_id=file_id(content)).json
        if begun["status"] == "exists":
            if "job_id" in begun:
                self.finished[file_id(content)] = begun["job_id"]
            return
        upload, offset = begun["upload_id"], begun["offset"]
        if offset < self.offsets.get(upload, 0):
            raise AssertionError("upload %s: %d bytes were acknowledged, %d are there" %
                                 (upload, self.offsets[upload], offset))
        while offset < len(content):
            answer = self.daemon_.chunk(upload, offset, content[offset:offset + self.random.choice((4000, 20000, CHUNK))])
            if answer.status != 200:
                raise AssertionError("%d %s" % (answer.status, answer.body))
            offset = answer.json["offset"]
            self.offsets[upload] = offset
        answer = self.daemon_.finish(upload)
        if answer.status != 202:
            raise AssertionError("%d %s" % (answer.status, answer.body))
        self.finished[file_id(content)] = answer.json["job_id"]
        self.offsets.pop(upload, None)  # nothing is there when the acknowledgement of the last chunk was lost


def check(daemon, uploaders, content, addresses, expected):
    for uploader in uploaders:
        if uploader.failure:
            raise uploader.failure
    finished = {k: v for u in uploaders for k, v in u.finished.items()}
    for job in finished.values():
        state = daemon.wait_job(job, timeout=300)
        assert state["state"] == "done", state
    for identity in finished:
        module = daemon.symbolize({"modules": [{"file_id": identity, "addresses": addresses}]})[0]
        assert module["status"] == "ok", (identity, module)
        assert [chain(r) for r in module["results"]] == expected, identity
    for uploader in uploaders:
        for upload, offset in uploader.offsets.items():
            answer = daemon.get("/v1/uploads/" + upload)
            # Its finish may have been done and only the answer lost; then the session is gone.
            assert answer.status == 404 or answer.json["offset"] >= offset, (upload, offset, answer.body)
    return len(finished)


def main():
    print("seed %d, %d kills" % (SEED, KILLS))
    rng = random.Random(SEED)
    folder = tempfile.mkdtemp(prefix="cairn-kill-")
    path = compile_sample(folder)
    content = read(path)
    addresses = text_addresses(path, 40)
    expected = oracle(path, addresses)
    daemon = Cairnd("--ingest.attempts", "100", "--log.level", "warn")
    stop = threading.Event()
    daemon.start()
    try:
        # The port changes with each start: the uploaders ask for it each time.
        uploaders = [Uploader(daemon, content, build_id(path), i, stop) for i in range(3)]
        for uploader in uploaders:
            uploader.start()
        for kill in range(KILLS):
            time.sleep(rng.uniform(0.02, 0.6))
            daemon.kill()
            daemon.start()
        time.sleep(0.5)
        stop.set()
        for uploader in uploaders:
            uploader.join(60)
            assert not uploader.is_alive()
        count = check(daemon, uploaders, content, addresses, expected)
        status = daemon.stop()
        assert status == 0, daemon.stderr()
        result = subprocess.run([CAIRN, "store", "check", "--data-dir", os.path.join(daemon.data_dir, "data")],
                                capture_output=True, text=True)
        print(result.stdout, result.stderr)
        assert result.returncode == 0, "cairn store check: %d" % result.returncode
        print("%d kills, %d finished uploads, %d variants begun: all there" %
              (KILLS, count, sum(u.variants for u in uploaders)))
    finally:
        stop.set()
        if daemon.process:
            daemon.kill()
    shutil.rmtree(daemon.data_dir)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
