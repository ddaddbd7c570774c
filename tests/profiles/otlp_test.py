# SPDX-License-Identifier: Apache-2.0
"""profiles/otlp*.c on messages that python3-protobuf wrote, in the layouts of all five proto versions, against nanopb and the model."""
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from otlp_encode import *  # noqa: E402,F403

BIN = os.path.join(os.environ.get("CAIRN_BINARY_DIR", "build/dev"), "bin")
T0 = 1_700_000_000_000_000_000
HASH, GNU, GO = "00112233445566778899aabbccddeeff", "ab" * 20, "abc/def"
KERNEL_HASH, KERNEL_GNU = "0f" * 16, "cd" * 20

APP = {"start": 0x400000, "limit": 0x500000, "offset": 0x1000, "name": "/usr/bin/app", "attributes": [
    ("process.executable.build_id.gnu", GNU), ("process.executable.build_id.htlhash", HASH),
    ("process.executable.build_id.go", GO)]}
KERNEL = {"name": "vmlinux", "attributes": [("process.executable.build_id.gnu", KERNEL_GNU),
                                           ("process.executable.build_id.htlhash", KERNEL_HASH)]}
TYPE = "profile.frame.type"
NATIVE = {"mapping": APP, "address": 0x401234, "attributes": [(TYPE, "native")]}
CALLER = {"mapping": APP, "address": 0x402000, "attributes": [(TYPE, "native")]}
SYSCALL = {"mapping": KERNEL, "address": 0x55, "attributes": [(TYPE, "kernel")], "lines": [("do_sys", "", "", 0, 0, 0)]}
PYTHON = {"attributes": [(TYPE, "cpython")], "lines": [("handler", "", "app.py", 10, 12, 4)]}
GOLANG = {"mapping": APP, "address": 0x403000, "attributes": [(TYPE, "go")],
          "lines": [("main.inner", "", "m.go", 1, 2, 0), ("main.outer", "", "m.go", 5, 7, 0)]}
LINK = (bytes(range(16)), bytes(range(8)))
MODEL = [
    {"attributes": [("service.name", "shop"), ("process.pid", 4711), ("process.executable.name", "app"), ("beta", True)],
     "profiles": [
         {"sample_type": ("samples", "count"), "period_type": ("cpu", "nanoseconds"), "period": 50_000_000, "time": T0,
          "duration": 5 * 10**9, "attributes": [("zone", "a")],
          "samples": [
              {"frames": [SYSCALL, NATIVE, CALLER], "timestamps": [T0 + 1, T0 + 2, T0 + 300],
               "attributes": [("thread.name", "worker"), ("thread.id", 99), ("cpu.logical_number", 3)], "link": LINK},
              {"frames": [PYTHON, CALLER], "timestamps": [T0 + 7], "attributes": [("thread.name", "main"), ("ratio", 0.5)]},
              {"frames": [GOLANG], "timestamps": [T0 + 8]}]},
         {"sample_type": ("off_cpu", "nanoseconds"), "time": T0, "duration": 5 * 10**9, "id": bytes(range(1, 17)),
          "samples": [{"frames": [NATIVE, CALLER], "values": [1000, 234], "timestamps": [T0 + 5, T0 + 6],
                       "attributes": [("thread.name", "worker"), ("blob", b"\x01\xfe")]}]}]},
    {"attributes": [("service.name", "other")],
     "profiles": [{"sample_type": ("alloc", "bytes"), "time": T0, "samples": [{"frames": [CALLER], "values": [4096]}]}]},
]


def run(program, *arguments, message):
    result = subprocess.run([os.path.join(BIN, program), *arguments], input=message, capture_output=True, check=False)
    assert result.returncode in (0, 1), (result.returncode, result.stderr.decode())
    return result.stdout.decode().splitlines()


def read(message):
    return run("otlp_dump", "read", message=message)


def intake(message):
    return run("otlp_dump", "intake", message=message)


def one(frames=(NATIVE,), resource=(), **members):
    """A model of one profile; members that a sample has go to its one sample."""
    sample = {"frames": list(frames)}
    profile = {"sample_type": ("samples", "count"), "time": T0, "samples": [sample]}
    for name, value in members.items():
        (sample if name in ("values", "timestamps", "attributes", "link") else profile)[name] = value
    return [{"attributes": list(resource), "profiles": [profile]}]


class Versions(unittest.TestCase):
    def test_every_version_reads_as_its_own_layout_and_says_the_model(self):
        wanted = describe(MODEL)
        for version in VERSIONS:
            with self.subTest(version):
                got = read(encode(version, MODEL))
                self.assertEqual(got[0], "layout " + version.replace("1.11", "1.10"))
                self.assertEqual(got[1:], wanted)

    def test_every_version_hands_the_same_samples_and_keys_to_the_store(self):
        wanted = intake(encode("1.10", MODEL))
        self.assertEqual(wanted[-1].strip(), "profiles 3 rejected 0 samples 8 modules 2")
        for version in VERSIONS:
            with self.subTest(version):
                self.assertEqual(intake(encode(version, MODEL)), wanted)

    def test_nanopb_reads_the_same_from_the_same_bytes(self):
        message = encode("1.10", MODEL)
        self.assertEqual(run("otlp_nanopb", message=message), read(message))

    def test_nanopb_agrees_on_string_references(self):
        encoder = Encoder("1.10")
        request = encoder.encode(MODEL)
        attribute = request.resource_profiles[0].resource.attributes.add()
        attribute.key_strindex = encoder.string("by.reference")
        attribute.value.string_value_strindex = encoder.string("a value")
        message = request.SerializeToString()
        self.assertIn("resource by.reference=a value", read(message))
        self.assertEqual(run("otlp_nanopb", message=message), read(message))

    def test_ambiguous_samples_read_as_the_newest(self):
        for version in ("1.9", "1.10", "1.11"):
            with self.subTest(version):
                got = read(encode(version, one(timestamps=[T0])))
                self.assertEqual(got, ["layout 1.10"] + describe(one(timestamps=[T0])))

    def test_what_only_1_8_writes_tells_it_where_samples_do_not(self):
        got = read(encode("1.8", one(timestamps=[T0], id=bytes(range(16)))))
        self.assertEqual(got[0], "layout 1.8")
        self.assertEqual(got[1:], describe(one(timestamps=[T0], id=bytes(range(16)))))

    def test_a_profile_id_alone_leaves_1_9_as_the_newest(self):
        got = read(encode("1.9", one(timestamps=[T0], id=bytes(range(16)))))
        self.assertEqual(got, ["layout 1.10"] + describe(one(timestamps=[T0], id=bytes(range(16)))))

    def test_each_telling_sample_alone_decides(self):
        for version in VERSIONS:
            for members in ({"values": [5]}, {"values": [5], "attributes": [("thread.id", 1)]},
                            {"timestamps": [T0], "link": LINK}, {"timestamps": [T0], "attributes": [("thread.id", 1)]}):
                # A field 2 alone reads alike: values of 1.8 and 1.9, attributes from 1.10 on.
                if version in ("1.8", "1.9") and set(members) == {"values"}:
                    continue
                with self.subTest(version=version, **members):
                    model = one(**members)
                    self.assertEqual(read(encode(version, model))[1:], describe(model))

    def test_1_6_is_refused_with_a_clear_message(self):
        request = module("1.10").ExportRequest()
        request.resource_profiles.add().scope_profiles.add().profiles.add().period = 1
        self.assertEqual(read(request.SerializeToString()),
                         ["refused: profiles request without a dictionary: OTLP profiles 1.6 and older are not supported"])

    def test_an_empty_request_is_fine(self):
        self.assertEqual(intake(b"")[-1].strip(), "profiles 0 rejected 0 samples 0 modules 0")

    def test_every_version_cut_at_every_length_gives_a_status(self):
        for version in VERSIONS:
            with self.subTest(version):
                message = encode(version, MODEL)
                whole, refused = run("otlp_dump", "cuts", message=message)[0].split()[1::2]
                self.assertEqual(int(whole) + int(refused), len(message) + 1)
                # Whole: nothing at all, all of it, and the dictionary cut off where a table's element ends is no fault of the wire.
                self.assertGreater(int(refused), len(message) // 2)


class Intake(unittest.TestCase):
    def samples(self, model, version="1.10"):
        lines = intake(encode(version, model))
        self.assertIn("rejected 0", lines[-1])
        return [line for line in lines if not line.startswith("profile")]

    def rejected(self, request):
        lines = intake(request.SerializeToString())
        self.assertIn("rejected 1", lines[-1])
        return lines[-1].split("modules ")[1].split(" ", 1)[1]

    def test_a_native_frame_goes_with_its_ids_and_load_facts(self):
        line, = self.samples(one(timestamps=[T0]))
        self.assertEqual(line, "samples:count:::0 %d 1 cpu -1 link - labels  stack native 0x401234 app[%s %s %s "
                               "0x400000-0x500000@0x1000]" % (T0, HASH, GNU, GO))

    def test_labels_of_resource_profile_and_sample_and_the_cpu(self):
        line = self.samples(MODEL)[0]
        self.assertIn("cpu 3 link %s/%s labels service.name=shop,process.pid=4711,process.executable.name=app,beta=true,zone=a,"
                      "thread.name=worker,thread.id=99 stack" % (LINK[0].hex(), LINK[1].hex()), line)

    def test_kernel_interpreted_and_symbolized_frames(self):
        lines = self.samples(MODEL)
        self.assertIn("stack kernel 0x55 vmlinux[%s %s  0x0-0x0@0x0] {do_sys||:0:0 from 0}; native" % (KERNEL_HASH, KERNEL_GNU),
                      lines[0])
        self.assertIn("stack interpreted 0x0 - {handler||app.py:12:4 from 10}; native", lines[3])
        self.assertIn("{main.inner||m.go:2:0 from 1} {main.outer||m.go:7:0 from 5}", lines[4])

    def test_no_frame_type_and_unknown_ones(self):
        line, = self.samples(one([{"mapping": APP, "address": 0x401234}], timestamps=[T0]))
        self.assertIn("stack native 0x401234 app[", line)
        line, = self.samples(one([{"mapping": APP, "address": 0x401234, "attributes": [(TYPE, "cobol")]}], timestamps=[T0]))
        self.assertIn("stack native 0x401234 app[", line)
        line, = self.samples(one([{"lines": [("f", "", "", 0, 0, 0)], "attributes": [(TYPE, "cobol")]}], timestamps=[T0]))
        self.assertIn("stack interpreted 0x0 - {f||", line)

    def test_an_interpreted_frame_without_a_name_stays(self):
        line, = self.samples(one([{"address": 0x12, "attributes": [(TYPE, "abort-marker")]}], timestamps=[T0]))
        self.assertIn("interpreted 0x12 - {abort-marker+0x12||", line)

    def test_a_zero_mapping_and_a_frame_without_one(self):
        line, = self.samples(one([{"mapping": {"name": "x"}, "address": 5}, {"address": 6}], timestamps=[T0]))
        self.assertIn("native 0x5 x[%s   0x0-0x0@0x0]; native 0x6 -" % ("0" * 32), line)

    def test_the_older_name_of_the_file_id(self):
        frame = {"mapping": {"name": "x", "attributes": [("process.executable.build_id.profiling", HASH)]}, "address": 5}
        self.assertIn("x[" + HASH, self.samples(one([frame], timestamps=[T0]))[0])

    def test_timestamps_alone_count_one_each(self):
        self.assertEqual([l.split()[1:3] for l in self.samples(one(timestamps=[T0, T0 + 1]))],
                         [[str(T0), "1"], [str(T0 + 1), "1"]])

    def test_values_with_timestamps_are_pairs(self):
        self.assertEqual([l.split()[1:3] for l in self.samples(one(timestamps=[T0, T0 + 1], values=[7, 9]))],
                         [[str(T0), "7"], [str(T0 + 1), "9"]])

    def test_values_alone_are_summed_at_the_profiles_time(self):
        for version in VERSIONS:
            line, = self.samples(one(values=[7, 9], attributes=[("a", "b")]) if version != "1.7" else one(values=[16]), version)
            self.assertEqual(line.split()[1:4], [str(T0), "about", "16"], version)

    def test_without_any_time_it_is_now(self):
        model = one(values=[7], time=0, link=LINK)
        self.assertEqual(self.samples(model)[0].split()[1:4], ["1700000000000000000", "about", "7"])

    def test_one_value_of_many_timestamps(self):
        times = [T0, T0 + 1, T0 + 2]
        for value in (1, 3):
            self.assertEqual([l.split()[2] for l in self.samples(one(timestamps=times, values=[value]))], ["1"] * 3)
        line, = self.samples(one(timestamps=times, values=[600], sample_type=("off_cpu", "nanoseconds")))
        self.assertEqual(line.split()[1:4], [str(T0), "about", "600"])

    def test_several_sample_types_of_1_7(self):
        encoder = Encoder("1.7")
        request = encoder.encode(one(values=[5, 50]))
        encoder.value_type(request.resource_profiles[0].scope_profiles[0].profiles[0].sample_type.add(), ("alloc", "bytes"))
        lines = intake(request.SerializeToString())
        self.assertTrue(lines[1].startswith("samples:count:::0 %d about 5 " % T0), lines)
        self.assertTrue(lines[2].startswith("alloc:bytes:::0 %d about 50 " % T0), lines)

    def test_a_sample_that_says_nothing_is_no_fault(self):
        self.assertEqual(intake(encode("1.10", one()))[-1].strip(), "profiles 1 rejected 0 samples 0 modules 1")

    def test_values_that_fit_no_timestamps_are_a_fault(self):
        request = Encoder("1.10").encode(one(timestamps=[T0, T0 + 1, T0 + 2], values=[1, 2]))
        self.assertEqual(self.rejected(request), "profile 0: sample 0: 2 values and 3 timestamps")

    def test_negative_values_are_a_fault(self):
        request = Encoder("1.10").encode(one(values=[-1]))
        self.assertEqual(self.rejected(request), "profile 0: sample 0: value -1 is negative")

    def test_each_index_out_of_range_rejects_its_profile_and_no_other(self):
        def stack(r):
            r.resource_profiles[0].scope_profiles[0].profiles[1].samples[0].stack_index = 99

        def link(r):
            r.resource_profiles[0].scope_profiles[0].profiles[1].samples[0].link_index = 99

        def attribute(r):
            r.resource_profiles[0].scope_profiles[0].profiles[1].samples[0].attribute_indices.append(-1)

        def profile_attribute(r):
            r.resource_profiles[0].scope_profiles[0].profiles[1].attribute_indices.append(99)

        def sample_type(r):
            r.resource_profiles[0].scope_profiles[0].profiles[1].sample_type.type_strindex = 99

        def in_new_stack(change):
            def apply(r):
                d = r.dictionary
                location = d.location_table.add()
                location.CopyFrom(d.location_table[1])
                change(d, location)
                d.stack_table.add().location_indices.append(len(d.location_table) - 1)
                r.resource_profiles[0].scope_profiles[0].profiles[1].samples[0].stack_index = len(d.stack_table) - 1
            return apply

        def bad_mapping_name(d, location):
            d.mapping_table.add().filename_strindex = 99
            location.mapping_index = len(d.mapping_table) - 1

        def bad_function_name(d, location):
            d.function_table.add().name_strindex = 99
            location.lines.add().function_index = len(d.function_table) - 1

        cases = {
            "sample 0: stack 99 of": stack,
            "sample 0: link 99 of": link,
            "sample 0: attribute 18446744073709551615 of": attribute,
            "attribute 99 of": profile_attribute,
            "sample_type: string 99 of": sample_type,
            "mapping 77 of": in_new_stack(lambda d, l: setattr(l, "mapping_index", 77)),
            "function 78 of": in_new_stack(lambda d, l: setattr(l.lines.add(), "function_index", 78)),
            "attribute 79 of": in_new_stack(lambda d, l: l.attribute_indices.append(79)),
            "string 99 of": in_new_stack(bad_mapping_name),
            ": string 99": in_new_stack(bad_function_name),
            "location 80 of": lambda r: (r.dictionary.stack_table.add().location_indices.append(80), setattr(
                r.resource_profiles[0].scope_profiles[0].profiles[1].samples[0], "stack_index",
                len(r.dictionary.stack_table) - 1)),
        }
        for wanted, change in cases.items():
            with self.subTest(wanted):
                request = Encoder("1.10").encode(MODEL)
                change(request)
                lines = intake(request.SerializeToString())
                self.assertIn("profiles 2 rejected 1 samples 6", lines[-1])
                self.assertIn("profile 1: ", lines[-1])
                self.assertIn(wanted, lines[-1])

    def test_an_index_out_of_range_of_1_7(self):
        request = Encoder("1.7").encode(MODEL)
        request.resource_profiles[0].scope_profiles[0].profiles[1].samples[0].locations_length = 99
        self.assertIn("profile 1: sample 0: locations 0 to 99 of 2", intake(request.SerializeToString())[-1])

    def test_a_stack_deeper_than_the_limit_is_cut_at_the_root(self):
        frames = [{"address": i + 1} for i in range(5000)]
        line, = self.samples(one(frames, timestamps=[T0]))
        self.assertEqual(line.count("native"), 4096)
        self.assertIn("stack native 0x1 -", line)

    def test_labels_past_the_limit_are_dropped(self):
        line, = self.samples(one(timestamps=[T0], resource=[("r%d" % i, "x") for i in range(200)],
                                 attributes=[("s%d" % i, "x") for i in range(200)]))
        self.assertEqual(line.count("=x"), 96 + 32)


class Keys(unittest.TestCase):
    def keys(self, message):
        return [line for line in intake(message) if line.startswith("profile ")]

    def test_the_same_message_has_the_same_keys_and_profile_ids_are_keys(self):
        keys = self.keys(encode("1.10", MODEL))
        self.assertEqual(len(set(keys)), 3)
        self.assertEqual(keys[1], "profile " + bytes(range(1, 17)).hex())
        self.assertEqual(keys, self.keys(encode("1.10", MODEL)))

    def test_equal_profiles_without_any_time_are_told_apart_by_their_place_and_a_retry_is_the_same(self):
        model = one(values=[7], time=0) * 3 + one(values=[8], time=0)
        keys = self.keys(encode("1.10", model))
        self.assertEqual(len(set(keys)), 4)
        self.assertEqual(keys, self.keys(encode("1.10", model, shuffle=1)))
        # With a time they are the same profile.
        self.assertEqual(len(set(self.keys(encode("1.10", one(values=[7]) * 2)))), 1)

    def test_a_dictionary_in_another_order_gives_the_same_keys(self):
        wanted = self.keys(encode("1.10", MODEL))
        for seed in range(5):
            message = encode("1.10", MODEL, shuffle=seed)
            self.assertNotEqual(message, encode("1.10", MODEL))
            self.assertEqual(self.keys(message), wanted)

    def test_anything_else_changes_the_key(self):
        def key(**members):
            return self.keys(encode("1.10", one(**{"timestamps": [T0], **members})))[0]
        keys = [key(), key(timestamps=[T0 + 1]), key(values=[2]), key(values=[2], timestamps=[]),
                key(attributes=[("thread.id", 1)]), key(attributes=[("thread.id", 2)]), key(link=LINK), key(period=7),
                key(time=T0 + 1), key(resource=[("service.name", "x")]), key(resource=[("service.name", "y")]),
                key(sample_type=("events", "count")), key(frames=[CALLER]), key(frames=[NATIVE, CALLER]),
                key(attributes=[("cpu.logical_number", 1)]), key(attributes=[("cpu.logical_number", 2)])]
        self.assertEqual(len(set(keys)), len(keys))


if __name__ == "__main__":
    unittest.main()
