# SPDX-License-Identifier: Apache-2.0
"""Upload -> job -> POST /v1/symbolize: against llvm-symbolizer, against known lines, and as protobuf by another decoder."""
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403


class Symbolize(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="cairn-sample-")
        cls.path = compile_sample(cls.folder)
        cls.content = read(cls.path)
        cls.file_id, cls.build_id = file_id(cls.content), build_id(cls.path)
        cls.stripped = os.path.join(cls.folder, "stripped")
        subprocess.run(["objcopy", "--strip-all", cls.path, cls.stripped], check=True)
        cls.debug = os.path.join(cls.folder, "sample.debug")
        subprocess.run(["objcopy", "--only-keep-debug", cls.path, cls.debug], check=True)
        cls.daemon = Cairnd()
        cls.daemon.start()
        job = cls.daemon.upload(cls.content, file_id=cls.file_id, build_id=cls.build_id)
        cls.job = cls.daemon.wait_job(job["job_id"])
        cls.addresses = text_addresses(cls.path)
        cls.expected = oracle(cls.path, cls.addresses)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.__exit__()
        shutil.rmtree(cls.folder)

    def ask(self, demangle="full", **module):
        return self.daemon.symbolize({"modules": [module], "demangle": demangle})[0]

    def test_job_is_done_and_the_file_says_so(self):
        self.assertEqual(self.job["state"], "done", self.job)
        known = self.daemon.get("/v1/files/" + self.file_id).json
        self.assertEqual(known["status"], "ok")
        self.assertEqual(known["file_id"], self.file_id)
        self.assertEqual(known["build_id"], self.build_id)
        self.assertEqual(known["entries"][0]["source"], "upload")
        self.assertEqual(known["entries"][0]["kind"], "dwarf")
        self.assertGreater(known["entries"][0]["table_bytes"], 0)
        self.assertTrue(any(s["executable"] for s in known["segments"]))
        self.assertEqual(known["jobs"][0]["state"], "done")
        self.assertEqual(known["size"], len(self.content))

    def test_every_address_has_the_oracles_chain(self):
        self.assertGreater(len(self.addresses), 100)
        module = self.ask(file_id=self.file_id, addresses=[hex(a) for a in self.addresses])
        self.assertEqual(module["status"], "ok")
        self.assertEqual(module["symbols"], {"source": "upload", "kind": "dwarf"})
        self.assertEqual(len(module["results"]), len(self.addresses))
        deep = 0
        for address, result, expected in zip(self.addresses, module["results"], self.expected):
            self.assertEqual(chain(result), expected, hex(address))
            self.assertEqual([f["inlined"] for f in result["frames"]],
                             [True] * (len(expected) - 1) + [False])
            deep = max(deep, len(expected))
        self.assertEqual(deep, 3)

    def test_inline_chain_has_the_lines_of_the_source(self):
        wanted = [("sample::innermost(int)", mark("innermost")), ("sample::middle(int)", mark("middle")),
                  ("sample::outer(int)", mark("outer"))]
        module = self.ask(file_id=self.file_id, addresses=self.addresses)
        found = [[(f["function"], f["line"]) for f in r["frames"]] for r in module["results"]]
        self.assertIn(wanted, found)
        outer = [f for r in module["results"] for f in r["frames"] if f["function"] == "sample::outer(int)"]
        self.assertEqual({f["start_line"] for f in outer}, {mark("outer_start")})
        self.assertEqual({f["symbol"] for f in outer}, {"_ZN6sample5outerEi"})

    def test_ids_of_every_form_find_the_same(self):
        address = [self.addresses[0]]
        by_file = self.ask(file_id=self.file_id, addresses=address)["results"]
        self.assertEqual(self.ask(file_id=base64url(self.file_id), addresses=address)["results"], by_file)
        self.assertEqual(self.ask(file_id=self.file_id.upper(), addresses=address)["results"], by_file)
        by_build = self.ask(build_id=self.build_id, addresses=address)
        self.assertEqual(by_build["results"], by_file)
        self.assertEqual(by_build["file_id"], self.file_id)
        for text in (base64url(self.file_id), self.build_id):
            self.assertEqual(self.daemon.get("/v1/files/" + text).json["file_id"], self.file_id)

    def test_ids_that_disagree_are_answered_by_the_file_id_with_a_reason(self):
        module = self.ask(file_id=self.file_id, build_id="ab" * 20, addresses=[self.addresses[0]])
        self.assertEqual(module["status"], "ok")
        self.assertIn("file ID", module["reason"])

    def test_file_offsets_go_through_the_load_segments(self):
        segments = self.daemon.get("/v1/files/" + self.file_id).json["segments"]
        code = next(s for s in segments if s["executable"])
        delta = int(code["vaddr"], 16) - int(code["file_offset"], 16)
        by_vaddr = self.ask(file_id=self.file_id, addresses=self.addresses)["results"]
        by_offset = self.ask(file_id=self.file_id, address_kind="file_offset",
                             addresses=[a - delta for a in self.addresses])["results"]
        self.assertEqual(by_offset, by_vaddr)
        far = self.ask(file_id=self.file_id, address_kind="file_offset", addresses=[1 << 40])["results"]
        self.assertEqual(far, [{"status": "out_of_range"}])

    def test_addresses_outside_of_code_are_told_from_those_without_symbol(self):
        results = self.ask(file_id=self.file_id, addresses=["0xffffffffffffffff", 0])["results"]
        self.assertEqual([r["status"] for r in results], ["out_of_range", "out_of_range"])

    def test_demangle_short_and_none(self):
        address = [a for a, e in zip(self.addresses, self.expected) if "holder" in e[-1][0]][:1]
        full = self.ask(file_id=self.file_id, addresses=address)["results"][0]["frames"][-1]
        short = self.ask("short", file_id=self.file_id, addresses=address)["results"][0]["frames"][-1]
        none = self.ask("none", file_id=self.file_id, addresses=address)["results"][0]["frames"][-1]
        self.assertEqual(full["function"], "sample::holder<long>::get(char const*) const")
        self.assertTrue(short["function"].startswith("sample::holder") and "(" not in short["function"], short)
        self.assertEqual(none["function"], full["symbol"])
        self.assertNotIn("symbol", none)

    def test_unknown_ids_say_so_and_do_not_disturb_their_neighbours(self):
        modules = self.daemon.symbolize({"modules": [
            {"file_id": "00" * 16, "addresses": [1]}, {"file_id": self.file_id, "addresses": self.addresses[:2]},
            {"build_id": "1234", "addresses": []}]})
        self.assertEqual([m["status"] for m in modules], ["unknown", "ok", "unknown"])
        self.assertTrue(modules[0]["reason"])
        self.assertGreater(modules[0]["retry_after_s"], 0)
        self.assertNotIn("results", modules[0])
        self.assertEqual(len(modules[1]["results"]), 2)

    def test_repeated_addresses_and_modules_answer_alike(self):
        a = self.addresses[0]
        modules = self.daemon.symbolize({"modules": [{"file_id": self.file_id, "addresses": [a, a, a]}] * 2})
        self.assertEqual(modules[0], modules[1])
        self.assertEqual(modules[0]["results"][0], modules[0]["results"][2])

    def test_stripped_file_and_debug_file_make_one(self):
        with Cairnd() as daemon:
            content, debug = read(self.stripped), read(self.debug)
            runtime = daemon.upload(content, file_id=file_id(content), build_id=self.build_id)
            self.assertEqual(daemon.wait_job(runtime["job_id"])["state"], "done")
            before = daemon.symbolize({"modules": [{"file_id": file_id(content), "addresses": self.addresses[:1]}]})[0]
            self.assertIn(before["status"], ("ok", "no_symbols"), before)
            job = daemon.upload(debug, "debug", file_id=file_id(content), build_id=self.build_id)
            self.assertEqual(daemon.wait_job(job["job_id"])["state"], "done")
            module = daemon.symbolize({"modules": [{"file_id": file_id(content), "addresses": self.addresses}]})[0]
            self.assertEqual(module["symbols"]["kind"], "dwarf", module.get("reason"))
            self.assertEqual([chain(r) for r in module["results"]], self.expected)

    def test_protobuf_says_the_same_as_json(self):
        generated = os.path.join(self.folder, "py")
        os.makedirs(generated, exist_ok=True)
        subprocess.run(["protoc", "-I", os.path.join(SOURCE_DIR, "proto"), "--python_out", generated,
                        "cairn/v1/symbolize.proto"], check=True)
        sys.path.insert(0, generated)
        pb = importlib.import_module("cairn.v1.symbolize_pb2")
        request = pb.SymbolizeRequest()
        module = request.modules.add()
        module.file_id = bytes.fromhex(self.file_id)
        module.addresses.extend(self.addresses + [0, (1 << 64) - 1])
        request.modules.add().build_id = b"\x12\x34"
        answer = self.daemon.request("POST", "/v1/symbolize", request.SerializeToString(),
                                     {"Content-Type": "application/x-protobuf"})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["content-type"], "application/x-protobuf")
        response = pb.SymbolizeResponse()
        response.ParseFromString(answer.body)
        self.assertEqual(len(response.strings), len(set(response.strings)))
        self.assertEqual(len(response.frames), len({f.SerializeToString() for f in response.frames}))
        got, unknown = response.modules
        self.assertEqual(unknown.status, pb.MODULE_STATUS_UNKNOWN)
        self.assertEqual(got.status, pb.MODULE_STATUS_OK)
        self.assertEqual((got.symbols.source, got.symbols.kind), ("upload", "dwarf"))
        wanted = self.ask(file_id=self.file_id, addresses=self.addresses + [0, str((1 << 64) - 1)])["results"]
        self.assertEqual(len(got.result_status), len(wanted))
        next_frame = 0
        for i, result in enumerate(wanted):
            self.assertEqual(pb.ResultStatus.Name(got.result_status[i]), "RESULT_STATUS_" + result["status"].upper())
            frames = [response.frames[k] for k in got.frames[next_frame:next_frame + got.frame_count[i]]]
            next_frame += got.frame_count[i]
            self.assertEqual(self.plain(response, frames, got.function_offset[i]), self.json_plain(result))
        self.assertEqual(next_frame, len(got.frames))

    @staticmethod
    def plain(response, frames, offset):
        out = []
        for frame in frames:
            function = response.functions[frame.function]
            out.append((response.strings[function.name], response.strings[function.symbol],
                        response.strings[frame.file], frame.line, frame.column, function.start_line, frame.inlined,
                        None if frame.inlined else offset))
        return out

    @staticmethod
    def json_plain(result):
        return [(f["function"], f.get("symbol", f["function"]), f.get("file", ""), f.get("line", 0),
                 f.get("column", 0), f.get("start_line", 0), f["inlined"],
                 None if f["inlined"] else int(f["offset"], 16)) for f in result.get("frames", [])]

    def test_files_are_listed_page_by_page(self):
        with Cairnd() as daemon:
            ids = set()
            for i in range(5):
                content = self.content + bytes([i])  # bytes after the end are nobody's: five files, one build ID
                self.assertEqual(daemon.wait_job(daemon.upload(content)["job_id"])["state"], "done")
                ids.add(file_id(content))
            seen, after, pages = set(), "", 0
            while True:
                page = daemon.get("/v1/files?limit=2" + after).json
                seen |= {f["file_id"] for f in page["files"]}
                pages += 1
                if "next" not in page:
                    break
                after = "&after=" + page["next"]
            self.assertEqual(seen, ids)
            self.assertEqual(pages, 3)
            self.assertEqual(set(daemon.get("/v1/files/" + self.build_id).json["file_ids"]), ids)

    def test_answer_is_held_while_a_job_runs(self):
        with Cairnd() as daemon:
            job = daemon.upload(self.content, file_id=self.file_id, build_id=self.build_id)
            modules = daemon.symbolize({"modules": [{"file_id": self.file_id, "addresses": self.addresses[:1]}],
                                        "wait_ms": 60000})
            self.assertEqual(modules[0]["status"], "ok", modules)
            self.assertEqual(daemon.get("/v1/jobs/" + job["job_id"]).json["state"], "done")

    def test_metrics_count_what_happened(self):
        self.ask(file_id=self.file_id, addresses=self.addresses[:3])
        text = self.daemon.get("/metrics")
        self.assertEqual(text.headers["content-type"], "text/plain; version=0.0.4")
        lines = text.body.decode().splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        self.assertGreaterEqual(int(values['cairn_symbolize_addresses_total{outcome="ok"}']), 3)
        self.assertGreaterEqual(int(values['cairn_http_requests_total{path="/v1/symbolize",status="200"}']), 1)
        self.assertEqual(int(values["cairn_upload_bytes_total"]), len(self.content))
        self.assertEqual(int(values['cairn_jobs{state="done"}']), 1)
        self.assertGreater(int(values["process_resident_memory_bytes"]), 1 << 20)
        self.assertGreater(int(values["cairn_store_file_bytes"]), 0)
        self.assertEqual(int(values["cairn_ingest_jobs_done_total"]), 1)
        types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
        self.assertEqual(len(types), len(set(types)))
        for line in lines:  # every sample belongs to a metric that was announced
            if not line.startswith("#"):
                name = line.split("{")[0].split(" ")[0]
                base = name.rsplit("_", 1)[0] if name.endswith(("_bucket", "_sum", "_count")) else name
                self.assertTrue(name in types or base in types, name)


if __name__ == "__main__":
    unittest.main(verbosity=1)
