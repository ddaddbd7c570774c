# SPDX-License-Identifier: Apache-2.0
"""Profiles in and out of a real cairnd: Export by grpcio, OTLP/HTTP, GET /v1/profiles, cairn profile, and the tools that read its files."""
import gzip
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import grpc
from google.protobuf import json_format

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "profiles"))
from cairnd import *  # noqa: E402,F403
import otlp_encode  # noqa: E402

EXPORT = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
SYMBOLIZE = "/cairn.v1.Symbolizer/Symbolize"
PATH = "/v1development/profiles"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
TYPE = "profile.frame.type"


def now():
    return time.time_ns()


def model(samples, service="shop", sample_type=("samples", "count"), **members):
    profile = {"sample_type": sample_type, "period_type": ("cpu", "nanoseconds"), "period": 50_000_000, "time": now(),
               "duration": 10**9, "samples": samples}
    profile.update(members)
    return [{"attributes": [("service.name", service), ("process.pid", 4711)], "profiles": [profile]}]


def plain(count=1, name="f", **members):
    """A sample of an interpreted frame with `count` timestamps."""
    start = now() - 5 * 10**9
    return {"frames": [{"attributes": [(TYPE, "cpython")], "lines": [(name, "", "a.py", 1, 2, 0)]}],
            "timestamps": [start + i for i in range(count)], **members}


def folded(text):
    """{stack: value} of folded stacks."""
    out = {}
    for line in text.splitlines():
        stack, value = line.rsplit(" ", 1)
        out[stack] = out.get(stack, 0) + int(value)
    return out


class Client:
    def __init__(self, daemon, **options):
        self.channel = grpc.insecure_channel("127.0.0.1:%d" % daemon.grpc_port, options=[
            ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)], **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def export(self, message, **options):
        """Raw bytes in, an ExportResponse out."""
        call = self.channel.unary_unary(EXPORT, request_serializer=lambda b: b,
                                        response_deserializer=otlp_encode.module("1.10").ExportResponse.FromString)
        return call(message, timeout=30, **options)

    def status(self, message, path=EXPORT):
        try:
            self.channel.unary_unary(path, request_serializer=lambda b: b, response_deserializer=lambda b: b)(message, timeout=30)
        except grpc.RpcError as e:
            return e.code(), e.details()
        return grpc.StatusCode.OK, ""


def cairn_profile(daemon, *arguments, check=True):
    return subprocess.run([CAIRN, "profile", "--url", "http://127.0.0.1:%d" % daemon.port, *arguments],
                          check=check, capture_output=True)


class Export(unittest.TestCase):
    def setUp(self):
        self.daemon = Cairnd()
        self.daemon.start()
        self.addCleanup(self.daemon.__exit__)

    def total(self, query=""):
        answer = self.daemon.get("/v1/profiles?format=folded" + query)
        assert answer.status == 200, answer.body
        return sum(folded(answer.body.decode()).values())

    def test_every_version_by_grpcio_plain_and_gzip(self):
        with Client(self.daemon) as client:
            for i, version in enumerate(otlp_encode.VERSIONS):
                for compression in (None, grpc.Compression.Gzip):
                    message = otlp_encode.encode(version, model([plain(3, attributes=[("thread.id", i)])]))
                    response = client.export(message, compression=compression)
                    self.assertFalse(response.HasField("partial_success"), response)
        self.assertEqual(self.total(), 3 * 2 * len(otlp_encode.VERSIONS))

    def test_every_version_by_http_plain_and_gzip(self):
        for version in otlp_encode.VERSIONS:
            message = otlp_encode.encode(version, model([plain(2)]))
            answer = self.daemon.request("POST", PATH, message, PROTOBUF)
            self.assertEqual((answer.status, answer.body), (200, b""), answer.body)
            self.assertEqual(answer.headers["content-type"], "application/x-protobuf")
            message = otlp_encode.encode(version, model([plain(2)]))
            answer = self.daemon.request("POST", PATH, gzip.compress(message), {**PROTOBUF, "Content-Encoding": "gzip"})
            self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(self.total(), 4 * len(otlp_encode.VERSIONS))

    def test_json_says_the_same_as_protobuf(self):
        request = otlp_encode.Encoder("1.10").encode(model([plain(2, attributes=[("cpu.logical_number", 3), ("x", 0.5)])]))
        text = json_format.MessageToJson(request)
        answer = self.daemon.post_json(PATH, text)
        self.assertEqual((answer.status, answer.json), (200, {}))
        self.assertEqual(self.total("&filter=cpu%3D3&filter=x%3D0.5&filter=service%3Dshop"), 2)
        # The same content again, in the other encoding, is a retry.
        self.assertEqual(self.daemon.request("POST", PATH, request.SerializeToString(), PROTOBUF).status, 200)
        self.assertEqual(self.total(), 2)

    def test_a_retry_is_not_counted_twice_after_a_kill_too(self):
        message = otlp_encode.encode("1.10", model([plain(7)]))
        shuffled = otlp_encode.encode("1.10", model([plain(7)]))
        with Client(self.daemon) as client:
            client.export(message)
            client.export(message)
        self.daemon.kill()
        self.daemon.start()
        with Client(self.daemon) as client:
            client.export(message)
        self.assertEqual(self.total(), 7)
        self.assertNotEqual(message, shuffled)

    def test_a_retry_of_what_says_no_time_is_not_counted_twice(self):
        profile = {"sample_type": ("samples", "count"), "time": 0, "samples": [plain(values=[7], timestamps=[])]}
        message = otlp_encode.encode("1.10", [{"attributes": [], "profiles": [profile]}])
        with Client(self.daemon) as client:
            client.export(message)
            client.export(message)
        self.assertEqual(self.total(), 7)

    def test_a_faulty_profile_is_rejected_and_its_neighbour_stays(self):
        encoder = otlp_encode.Encoder("1.10")
        request = encoder.encode(model([plain(5)]) + model([plain(5)], service="other"))
        request.resource_profiles[1].scope_profiles[0].profiles[0].samples[0].stack_index = 99
        with Client(self.daemon) as client:
            response = client.export(request.SerializeToString())
        self.assertEqual(response.partial_success.rejected_profiles, 1)
        self.assertIn("profile 1: sample 0: stack 99 of", response.partial_success.error_message)
        self.assertEqual(self.total(), 5)
        answer = self.daemon.post_json(PATH, json_format.MessageToJson(request))
        self.assertEqual(answer.json["partialSuccess"]["rejectedProfiles"], "1")
        self.assertIn("stack 99 of", answer.json["partialSuccess"]["errorMessage"])

    def test_clocks_in_the_future_are_told(self):
        ahead = {**plain(), "timestamps": [now() + 3600 * 10**9]}
        with Client(self.daemon) as client:
            response = client.export(otlp_encode.encode("1.10", model([ahead, plain(2)])))
        self.assertEqual(response.partial_success.rejected_profiles, 0)
        self.assertIn("1 samples are later than now", response.partial_success.error_message)
        self.assertEqual(self.total(), 2)

    def test_statuses_of_bad_requests(self):
        no_dictionary = otlp_encode.module("1.10").ExportRequest()
        no_dictionary.resource_profiles.add().scope_profiles.add().profiles.add().period = 1
        with Client(self.daemon) as client:
            code, details = client.status(b"\xff\xff\xff")
            self.assertEqual(code, grpc.StatusCode.INVALID_ARGUMENT, details)
            code, details = client.status(no_dictionary.SerializeToString())
            self.assertEqual(code, grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn("1.6 and older are not supported", details)
            code, details = client.status(b"\0" * ((64 << 20) + 1))
            self.assertEqual(code, grpc.StatusCode.RESOURCE_EXHAUSTED, details)
            self.assertEqual(client.status(b"", "/cairn.v1.Nothing/Here")[0], grpc.StatusCode.UNIMPLEMENTED)
            self.assertEqual(client.status(b"")[0], grpc.StatusCode.OK)
        self.assertEqual(self.daemon.request("POST", PATH, b"\xff\xff\xff", PROTOBUF).status, 400)
        answer = self.daemon.request("POST", PATH, no_dictionary.SerializeToString(), PROTOBUF)
        self.assertEqual((answer.status, answer.headers["content-type"]), (400, "application/x-protobuf"))
        self.assertIn(b"1.6 and older are not supported", answer.body)
        self.assertEqual(self.daemon.post_json(PATH, "{").code, "invalid")
        self.assertIn("resourceProfiles", self.daemon.post_json(PATH, {"resourceProfiles": 7}).message)
        self.assertEqual(self.daemon.request("POST", PATH, b"x", {"Content-Type": "text/plain"}).status, 415)
        self.assertEqual(self.daemon.request("POST", PATH, b"x", {**PROTOBUF, "Content-Encoding": "br"}).status, 415)
        bomb = gzip.compress(b"\0" * (65 << 20))
        self.assertEqual(self.daemon.request("POST", PATH, bomb, {**PROTOBUF, "Content-Encoding": "gzip"}).status, 413)
        metrics = self.daemon.get("/metrics").body.decode()
        self.assertRegex(metrics, r"(?m)^cairn_otlp_rejected_requests_total [1-9]")
        self.assertEqual(self.daemon.get("/v1/profiles").status, 200)

    def agents(self):
        """{(host, agent): element} of /v1/agents."""
        return {(a.get("host", ""), a.get("agent", "")): a for a in self.daemon.get("/v1/agents").json["agents"]}

    def test_agents_are_known_by_scope_and_host(self):
        ebpf, sdk = ("go.opentelemetry.io/ebpf-profiler", "v0.0.202633"), ("", "")

        def resource(samples_, scope, **attributes):
            attributes = {k.replace("_", "."): v for k, v in attributes.items()}
            return {**model([plain(samples_)])[0], "scope": scope, "attributes": list(attributes.items())}

        request = [resource(3, ebpf, host_name="h1", host_id="abc", host_arch="amd64", os_description="Debian 12", process_pid=1),
                   resource(4, ebpf, host_name="h1", host_id="abc", process_pid=2),
                   resource(5, ebpf, k8s_node_name="node7"),
                   resource(6, sdk, host_name="h1", telemetry_sdk_name="opentelemetry", telemetry_sdk_version="1.2")]
        with Client(self.daemon) as client:
            client.export(otlp_encode.encode("1.10", request))
        self.assertEqual(self.daemon.request("POST", PATH, otlp_encode.encode("1.8", [resource(1, ("", ""))]), PROTOBUF).status, 200)
        text = json_format.MessageToJson(otlp_encode.Encoder("1.10").encode([resource(2, ebpf, host_name="h1", host_id="abc")]))
        self.assertEqual(self.daemon.post_json(PATH, text).status, 200)
        agents = self.agents()
        self.assertEqual({k: a["samples"] for k, a in agents.items()}, {
            ("h1", ebpf[0]): "9", ("node7", ebpf[0]): "5", ("h1", "opentelemetry"): "6", ("", ""): "1"})
        one = agents["h1", ebpf[0]]
        self.assertEqual([one[k] for k in ("protocol", "version", "host_id")], ["otlp", ebpf[1], "abc"])
        self.assertEqual(agents["h1", "opentelemetry"]["version"], "1.2")
        self.assertTrue(agents["", ""]["peer"].startswith("127.0.0.1:"))
        self.assertLess(abs(int(one["last_seen_unix_ms"]) / 1000 - time.time()), 60)
        out = subprocess.run([CAIRN, "agents", "--url", "http://127.0.0.1:%d" % self.daemon.port], capture_output=True, text=True, check=True).stdout
        self.assertRegex(out, r"(?m)^h1 +otlp +go.opentelemetry.io/ebpf-profiler v0.0.202633 ")
        # What was told is there after a crash, too.
        self.daemon.kill()
        self.daemon.start()
        again = self.agents()
        self.assertEqual(set(again), set(agents))
        self.assertEqual([again["h1", ebpf[0]][k] for k in ("protocol", "version", "host_id")], ["otlp", ebpf[1], "abc"])

    def test_many_clients_at_once_total_exactly(self):
        def send(number):
            with Client(self.daemon) as client:
                for i in range(10):
                    client.export(otlp_encode.encode("1.10", model([plain(10, attributes=[("thread.id", 100 * number + i)])])),
                                  compression=grpc.Compression.Gzip)
        threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.total(), 800)

    def test_types_are_never_added_together(self):
        with Client(self.daemon) as client:
            client.export(otlp_encode.encode("1.10", model([plain(4)])))
            client.export(otlp_encode.encode("1.10", model([{**plain(), "values": [1000]}], sample_type=("off_cpu", "nanoseconds"),
                                                            period_type=("", ""), period=0)))
        answer = self.daemon.get("/v1/profiles?format=folded")
        self.assertEqual((answer.status, answer.code), (400, "invalid"))
        self.assertIn("off_cpu", answer.message)
        self.assertEqual(self.total("&type=samples"), 4)
        self.assertEqual(self.total("&type=cpu"), 4)
        self.assertEqual(self.total("&type=off_cpu"), 1000)
        self.assertEqual(self.daemon.get("/v1/profiles?type=alloc").status, 404)

    def test_times_filters_and_groups(self):
        with Client(self.daemon) as client:
            client.export(otlp_encode.encode("1.10", model([plain(4, "a"), plain(2, "b", attributes=[("thread.name", "io")])])))
            client.export(otlp_encode.encode("1.10", model([plain(8, "c")], service="other")))
        self.assertEqual(self.total("&from=-1h&to=now"), 14)
        self.assertEqual(self.total("&from=-2h&to=-1h"), 0)
        self.assertEqual(self.total("&from=%d" % (time.time() - 60)), 14)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
        self.assertEqual(self.total("&from=" + stamp), 14)
        self.assertEqual(self.total("&to=" + stamp), 0)
        self.assertEqual(self.total("&filter=service%3Dother"), 8)
        self.assertEqual(self.total("&filter=service.name%3Dshop&filter=comm%3Dio"), 2)
        grouped = folded(self.daemon.get("/v1/profiles?format=folded&group_by=service").body.decode())
        self.assertEqual({k.split(";")[0]: v for k, v in grouped.items() if v == 8}, {"service=other": 8}, grouped)
        for bad in ("from=yesterday", "to=-1x", "filter=x", "group_by=", "format=svg", "frm=1", "from=2&to=1", "from=1&from=2",
                    "type=%zz", "from=2026-02-30T00:00:00Z"):
            answer = self.daemon.get("/v1/profiles?" + bad)
            self.assertEqual((answer.status, answer.code), (400, "invalid"), bad)


class Symbols(unittest.TestCase):
    """Samples of a real executable, before and after its symbols came."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="cairn-sample-")
        cls.path = compile_sample(cls.folder)
        cls.content = read(cls.path)
        cls.file_id, cls.build_id = file_id(cls.content), build_id(cls.path)
        cls.addresses = text_addresses(cls.path, 40)
        cls.expected = oracle(cls.path, cls.addresses)
        out = subprocess.run(["readelf", "-lW", cls.path], check=True, capture_output=True, text=True).stdout
        cls.code = next([int(x, 16) for x in line.split()[1:6]] for line in out.splitlines()
                        if line.split()[:1] == ["LOAD"] and " R E " in line)  # offset, vaddr, paddr, filesz, memsz

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def mapping(self, ids=("htlhash", "gnu"), process=False, zero=False):
        offset, vaddr, _, _, size = self.code
        attributes = {"htlhash": ("process.executable.build_id.htlhash", self.file_id),
                      "gnu": ("process.executable.build_id.gnu", self.build_id)}
        start = 0x7f0000000000 if process else vaddr
        facts = {} if zero else {"start": start, "limit": start + size, "offset": offset}
        return {**facts, "name": "sample", "attributes": [attributes[i] for i in ids]}

    def samples(self, **how):
        """One sample for each address, under a root without an ID; each twice."""
        mapping, shift = self.mapping(**how), 0x7f0000000000 - self.code[1] if how.get("process") else 0
        start = now() - 10**9
        root = {"attributes": [(TYPE, "native")], "mapping": {"name": "anonymous"}, "address": 0x77}
        return [{"frames": [{"mapping": mapping, "address": a + shift, "attributes": [(TYPE, "native")]}, root],
                 "timestamps": [start + 2 * i, start + 2 * i + 1]} for i, a in enumerate(self.addresses)]

    def wanted(self):
        out = {}
        for chain_ in self.expected:
            stack = ";".join(["anonymous+0x77"] + [f[0] for f in reversed(chain_)])
            out[stack] = out.get(stack, 0) + 2
        return out

    def shown(self, daemon):
        # Semicolons of names would be taken for frames: the writer replaces them, and sample.cc has none.
        return folded(cairn_profile(daemon).stdout.decode())

    def test_each_way_to_give_addresses_finds_the_oracles_names(self):
        for how in ({}, {"process": True}, {"zero": True}, {"ids": ("htlhash",)}, {"ids": ("gnu",)}):
            with self.subTest(**how), Cairnd() as daemon:
                daemon.wait_job(daemon.upload(self.content, file_id=self.file_id, build_id=self.build_id)["job_id"])
                with Client(daemon) as client:
                    self.assertFalse(client.export(otlp_encode.encode("1.10", model(self.samples(**how)))).HasField("partial_success"))
                self.assertEqual(self.shown(daemon), self.wanted())

    def test_symbols_that_come_later_show_for_all_of_them(self):
        with Cairnd() as daemon:
            with Client(daemon) as client:
                client.export(otlp_encode.encode("1.10", model(self.samples())))
            before = self.shown(daemon)
            self.assertEqual(sum(before.values()), 2 * len(self.addresses))
            self.assertTrue(all(re.fullmatch(r"anonymous\+0x77;sample\+0x[0-9a-f]+", s) for s in before), before)
            daemon.stop()
            daemon.start()
            daemon.wait_job(daemon.upload(self.content, file_id=self.file_id, build_id=self.build_id)["job_id"])
            self.assertEqual(self.shown(daemon), self.wanted())

    def test_symbols_by_build_id_alone_make_the_file_id_an_alias(self):
        debug = os.path.join(self.folder, "sample.debug")
        subprocess.run(["objcopy", "--only-keep-debug", self.path, debug], check=True)
        with Cairnd() as daemon:
            job = daemon.upload(read(debug), role="debug", build_id=self.build_id)
            self.assertEqual(daemon.wait_job(job["job_id"])["state"], "done")
            self.assertEqual(daemon.get("/v1/files/" + self.file_id).status, 404)
            with Client(daemon) as client:
                client.export(otlp_encode.encode("1.10", model(self.samples())))
            self.assertEqual(self.shown(daemon), self.wanted())
            for _ in range(100):
                answer = daemon.get("/v1/files/" + self.file_id)
                if answer.status == 200:
                    break
                time.sleep(0.05)
            self.assertEqual(answer.json["build_id"], self.build_id)

    def test_kernel_interpreted_and_symbolized_frames_stand_beside_native_ones(self):
        """One stack: python over a symbolized native frame over one without symbols, the kernel's with and without the sender's name, a module's."""
        ids = [("process.executable.build_id.htlhash", c * 32) for c in "abc"]
        vmlinux, ext4, lib = ({"name": n, "attributes": [i]} for n, i in zip(("vmlinux", "ext4", "libz.so.1"), ids))
        kernel, native = [(TYPE, "kernel")], [(TYPE, "native")]
        frames = [{"attributes": kernel, "mapping": ext4, "address": 0x1f},
                  {"attributes": kernel, "mapping": vmlinux, "address": 0x2f},
                  {"attributes": kernel, "mapping": vmlinux, "address": 0x3f, "lines": [("vfs_read", "", "", 0, 0, 0)]},
                  {"attributes": kernel, "lines": [("bpf_prog_1", "", "", 0, 0, 0)]},
                  {"attributes": native, "mapping": lib, "address": 0x4f},
                  {"attributes": native, "mapping": self.mapping(), "address": self.addresses[0]},
                  {"attributes": [(TYPE, "go")], "mapping": lib, "address": 0x5f, "lines": [("main.run", "", "/go/main.go", 0, 12, 0)]},
                  {"attributes": [(TYPE, "cpython")], "lines": [("handler", "", "app.py", 1, 7, 0)]}]
        with Cairnd() as daemon:
            daemon.wait_job(daemon.upload(self.content, file_id=self.file_id, build_id=self.build_id)["job_id"])
            with Client(daemon) as client:
                client.export(otlp_encode.encode("1.10", model([{"frames": frames, "timestamps": [now() - 10**9] * 3}])))
            shown, tree = self.shown(daemon), daemon.get("/v1/profiles?format=json").json
        native_names = [f[0] for f in self.expected[0]][::-1]
        names = ["handler", "main.run", *native_names, "libz.so.1+0x4f", "bpf_prog_1", "vfs_read", "vmlinux+0x2f", "ext4+0x1f"]
        self.assertEqual(shown, {";".join(names): 3})
        nodes = list(self.walk(tree))[1:]
        self.assertEqual([n["name"] for n in nodes], names)
        kinds = ["interpreted", None] + [None] * len(native_names) + [None] + ["kernel"] * 4
        self.assertEqual([n.get("kind") for n in nodes], kinds)
        unresolved = {n["name"]: tree["unresolved"][n["unresolved"]] for n in nodes if "unresolved" in n}
        self.assertEqual({name: (u["file"], u["file_id"], u["frames"]) for name, u in unresolved.items()}, {
            "libz.so.1+0x4f": ("libz.so.1", "c" * 32, 1), "vmlinux+0x2f": ("vmlinux", "a" * 32, 1), "ext4+0x1f": ("ext4", "b" * 32, 1)})
        for row in unresolved.values():
            self.assertEqual(row["reason"], "nothing was uploaded under this ID")

    def test_callgrind_annotate_accepts_the_file_and_nothing_vanishes(self):
        total = 2 * len(self.addresses)
        with Cairnd() as daemon:
            daemon.wait_job(daemon.upload(self.content, file_id=self.file_id, build_id=self.build_id)["job_id"])
            with Client(daemon) as client:
                client.export(otlp_encode.encode("1.10", model(self.samples())))
            callgrind = os.path.join(self.folder, "callgrind.out")
            cairn_profile(daemon, "--format", "callgrind", "-o", callgrind)
            tree = daemon.get("/v1/profiles?format=json").json
        self.assertEqual(tree["value"], total)
        self.assertTrue(any(c.get("inlined") for c in self.walk(tree)))
        self.check_callgrind(callgrind, total)

    def walk(self, node):
        yield node
        for child in node.get("children", []):
            yield from self.walk(child)

    def check_callgrind(self, path, total):
        result = subprocess.run(["callgrind_annotate", "--inclusive=yes", path], capture_output=True, text=True, check=True)
        self.assertEqual(result.stderr, "")
        self.assertRegex(result.stdout, r"(?m)^ *%d \(100\.0%%\) +PROGRAM TOTALS$" % total)
        self.assertRegex(result.stdout, r"(?m)^ *[\d,]+ .*sample::outer\(int\)")

    def test_cairn_profile_says_what_is_wrong(self):
        with Cairnd() as daemon:
            result = cairn_profile(daemon, "--from", "yesterday", check=False)
            self.assertEqual(result.returncode, 1)
            self.assertIn(b"from: \"yesterday\" is no time", result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1)
            self.assertEqual(cairn_profile(daemon, "--format", "svg", check=False).returncode, 2)
            self.assertEqual(cairn_profile(daemon, "extra", check=False).returncode, 2)
            self.assertEqual(cairn_profile(daemon).stdout, b"")
        self.assertEqual(subprocess.run([CAIRN, "profile", "--help"], capture_output=True, check=True).stderr, b"")

    def test_symbolize_over_grpc_is_the_message_of_http(self):
        sys.path.insert(0, self.folder)
        subprocess.run(["protoc", "-I", os.path.join(SOURCE_DIR, "proto"), "--python_out", self.folder,
                        "cairn/v1/symbolize.proto"], check=True)
        import importlib
        pb = importlib.import_module("cairn.v1.symbolize_pb2")
        request = pb.SymbolizeRequest()
        module = request.modules.add()
        module.file_id = bytes.fromhex(self.file_id)
        module.addresses.extend(self.addresses)
        with Cairnd() as daemon:
            job = daemon.upload(self.content, file_id=self.file_id, build_id=self.build_id)
            with Client(daemon) as client:
                call = client.channel.unary_unary(SYMBOLIZE, request_serializer=lambda m: m.SerializeToString(),
                                                  response_deserializer=lambda b: b)
                request.wait_ms = 60000
                waited = call(request, timeout=60)  # held until the job is done
                self.assertEqual(daemon.wait_job(job["job_id"])["state"], "done")
                request.wait_ms = 0
                got = call(request, timeout=60, compression=grpc.Compression.Gzip)
                body = daemon.request("POST", "/v1/symbolize", request.SerializeToString(), PROTOBUF).body
                self.assertEqual(got, body)
                self.assertEqual(waited, body)
                response = pb.SymbolizeResponse.FromString(got)
                self.assertEqual(response.modules[0].status, pb.MODULE_STATUS_OK)
                self.assertEqual(list(response.modules[0].frame_count), [len(c) for c in self.expected])
                code, details = client.status(b"\x0a\x02\x0a\x00", SYMBOLIZE)
                self.assertEqual(code, grpc.StatusCode.INVALID_ARGUMENT)
                self.assertIn("modules[0]", details)


class Go(unittest.TestCase):
    """Programs of fixtures/go, known by their Go build IDs: that of Go 1.19 has no other, that of Go 1.26 has a GNU one, too."""

    def load(self, version):
        folder = os.path.join(SOURCE_DIR, "fixtures", "go")
        with lzma.open(os.path.join(folder, version + ".xz")) as file:
            self.content = file.read()
        self.go_id = re.search(rb"\0Go\0\0([\w/-]{83})", self.content).group(1).decode()
        with open(os.path.join(folder, version + ".truth")) as file:
            lines = [line.rstrip("\n").split("\t") for line in file][:300]
        # address -> its functions, outermost first
        self.truth = {int(line[0], 16): line[1::2][::-1] for line in lines}

    def export(self, daemon, *ids):
        start = now() - 5 * 10**9
        mapping = {"name": "main", "attributes": [("process.executable.build_id." + key, value) for key, value in ids]}
        samples = [{"frames": [{"address": a, "mapping": mapping, "attributes": [(TYPE, "go")]}], "timestamps": [start + i]}
                   for i, a in enumerate(self.truth)]
        with Client(daemon) as client:
            self.assertFalse(client.export(otlp_encode.encode("1.10", model(samples))).HasField("partial_success"))

    def check(self, daemon):
        shown = folded(cairn_profile(daemon).stdout.decode())
        want = {}
        for functions in self.truth.values():
            want[";".join(functions)] = want.get(";".join(functions), 0) + 1
        self.assertEqual(shown, want)

    def test_a_go_build_id_alone_finds_the_upload(self):
        for version in ("go1.19", "go1.26"):
            self.load(version)
            with self.subTest(version), Cairnd() as daemon:
                self.export(daemon, ("go", self.go_id))
                daemon.wait_job(daemon.upload(self.content, name="main")["job_id"])
                self.check(daemon)

    def test_another_copy_is_known_by_its_go_build_id_and_becomes_an_alias(self):
        self.load("go1.19")
        other = "0123456789abcdef0123456789abcdef"
        with Cairnd() as daemon:
            daemon.wait_job(daemon.upload(self.content, name="main")["job_id"])
            self.export(daemon, ("htlhash", other), ("go", self.go_id))
            self.check(daemon)
            for _ in range(100):
                answer = daemon.get("/v1/files/" + other)
                if answer.status == 200:
                    break
                time.sleep(0.05)
            self.assertEqual(answer.json["build_id"], daemon.get("/v1/files/" + file_id(self.content)).json["build_id"])
            # And then its file ID alone will do.
            modules = daemon.symbolize({"modules": [{"file_id": other, "addresses": [next(iter(self.truth))]}]})
            self.assertEqual([f["function"] for f in modules[0]["results"][0]["frames"]][::-1], next(iter(self.truth.values())))


if __name__ == "__main__":
    unittest.main()
