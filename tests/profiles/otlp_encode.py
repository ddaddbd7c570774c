# SPDX-License-Identifier: Apache-2.0
"""Writes OTLP profiles of every proto version with python3-protobuf, from proto/otlp/*.proto: knows nothing of our reader.

A model is a list of resources: {"attributes": [(key, value)], "profiles": [profile]}; a profile has sample_type, period_type
(pairs), period, time, duration, id, attributes and samples; a sample has frames (leaf first), attributes, link (trace ID, span ID),
values, timestamps; a frame has mapping (a dict or None), address, lines [(function, system, file, start, line, column)], attributes.
"""
import importlib
import os
import random
import subprocess
import sys
import tempfile

SOURCE_DIR = os.environ.get("CAIRN_SOURCE_DIR", ".")
VERSIONS = ["1.7", "1.8", "1.9", "1.10", "1.11"]
_modules = {}


def module(version):
    """The generated module of a version; 1.11 has the messages of 1.10."""
    name = "v" + {"1.11": "1.10"}.get(version, version).replace(".", "_")
    if name not in _modules:
        if "folder" not in _modules:
            _modules["folder"] = tempfile.mkdtemp(prefix="cairn-otlp-")
            sys.path.insert(0, _modules["folder"])
        subprocess.run(["protoc", "-I", os.path.join(SOURCE_DIR, "proto/otlp"), "--python_out", _modules["folder"],
                        name + ".proto"], check=True)
        _modules[name] = importlib.import_module(name + "_pb2")
    return _modules[name]


class Encoder:
    def __init__(self, version, shuffle=None):
        self.version, self.pb = version, module(version)
        self.old = version == "1.7"
        self.request = self.pb.ExportRequest()
        self.dictionary = self.request.dictionary
        self.dictionary.SetInParent()
        self.tables = {}
        self.shuffle = random.Random(shuffle) if shuffle is not None else None
        d = self.dictionary
        for table in (d.mapping_table, d.location_table, d.function_table, d.link_table, d.attribute_table):
            table.add()  # element 0 is the zero value
        d.string_table.append("")
        if not self.old:
            d.stack_table.add()

    def put(self, table, key, make):
        """The index of an element, made once."""
        numbers = self.tables.setdefault(table, {})
        if key not in numbers:
            items = getattr(self.dictionary, table)
            if self.shuffle:  # elements that nobody uses move the others' indices
                for _ in range(self.shuffle.randrange(3)):
                    if table == "string_table":
                        items.append("unused %d" % self.shuffle.randrange(1 << 30))
                    else:
                        items.add()
            made = make()
            numbers[key] = len(items)
            items.append(made)
        return numbers[key]

    def string(self, text):
        return self.put("string_table", text, lambda: text) if text else 0

    def set_value(self, any_value, value):
        if isinstance(value, bool):
            any_value.bool_value = value
        elif isinstance(value, int):
            any_value.int_value = value
        elif isinstance(value, float):
            any_value.double_value = value
        elif isinstance(value, bytes):
            any_value.bytes_value = value
        elif isinstance(value, str):
            any_value.string_value = value

    def attribute(self, pair):
        def make():
            if self.old:
                made = self.pb.KeyValue(key=pair[0])
            else:
                made = self.pb.KeyValueAndUnit(key_strindex=self.string(pair[0]))
            self.set_value(made.value, pair[1])
            return made
        return self.put("attribute_table", (pair[0], type(pair[1]), pair[1]), make)

    def attributes(self, pairs):
        return [self.attribute(pair) for pair in pairs]

    def mapping(self, mapping):
        return self.put("mapping_table", repr(mapping), lambda: self.pb.Mapping(
            memory_start=mapping.get("start", 0), memory_limit=mapping.get("limit", 0), file_offset=mapping.get("offset", 0),
            filename_strindex=self.string(mapping.get("name", "")),
            attribute_indices=self.attributes(mapping.get("attributes", []))))

    def line(self, line):
        name, system, file, start, number, column = line
        function = self.put("function_table", (name, system, file, start), lambda: self.pb.Function(
            name_strindex=self.string(name), system_name_strindex=self.string(system), filename_strindex=self.string(file),
            start_line=start))
        return self.pb.Line(function_index=function, line=number, column=column)

    def location(self, frame):
        def make():
            made = self.pb.Location(address=frame.get("address", 0), lines=[self.line(l) for l in frame.get("lines", [])],
                                    attribute_indices=self.attributes(frame.get("attributes", [])))
            if frame.get("mapping") is not None:
                made.mapping_index = self.mapping(frame["mapping"])
            return made
        return self.put("location_table", repr(frame), make)

    def link(self, pair):
        return self.put("link_table", pair, lambda: self.pb.Link(trace_id=pair[0], span_id=pair[1]))

    def value_type(self, message, pair):
        message.type_strindex, message.unit_strindex = self.string(pair[0]), self.string(pair[1])

    def sample(self, profile, sample):
        locations = [self.location(frame) for frame in sample["frames"]]
        made = self.pb.Sample(values=sample.get("values", []), timestamps_unix_nano=sample.get("timestamps", []),
                              attribute_indices=self.attributes(sample.get("attributes", [])))
        if self.old:
            made.locations_start_index, made.locations_length = len(profile.location_indices), len(locations)
            profile.location_indices.extend(locations)
        else:
            made.stack_index = self.put("stack_table", tuple(locations),
                                        lambda: self.pb.Stack(location_indices=locations)) if locations else 0
        if sample.get("link"):
            made.link_index = self.link(sample["link"])
        profile.samples.append(made)

    def profile(self, profile, model):
        self.value_type(profile.sample_type.add() if self.old else profile.sample_type, model["sample_type"])
        if model.get("period_type"):
            self.value_type(profile.period_type, model["period_type"])
        profile.period = model.get("period", 0)
        if self.old:
            profile.time_nanos, profile.duration_nanos = model.get("time", 0), model.get("duration", 0)
        else:
            profile.time_unix_nano, profile.duration_nano = model.get("time", 0), model.get("duration", 0)
        profile.profile_id = model.get("id", b"")
        profile.attribute_indices.extend(self.attributes(model.get("attributes", [])))
        for sample in model["samples"]:
            self.sample(profile, sample)

    def encode(self, model):
        for resource in model:
            out = self.request.resource_profiles.add()
            for key, value in resource["attributes"]:
                attribute = out.resource.attributes.add()
                attribute.key = key
                self.set_value(attribute.value, value)
            scope = out.scope_profiles.add()
            scope.scope.name, scope.scope.version = resource.get("scope", ("test", ""))
            for profile in resource["profiles"]:
                self.profile(scope.profiles.add(), profile)
        return self.request


def encode(version, model, shuffle=None):
    return Encoder(version, shuffle).encode(model).SerializeToString()


def text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex()
    return "%g" % value if isinstance(value, float) else str(value)


def describe(model):
    """What a reader must see, in the words of otlp_dump."""
    out = []
    for resource in model:
        for profile in resource["profiles"]:
            period_type = profile.get("period_type", ("", ""))
            out.append("profile %s %s %s %s %d %d %d %s" % (
                *profile["sample_type"], *period_type, profile.get("period", 0), profile.get("time", 0),
                profile.get("duration", 0), profile.get("id", b"").hex()))
            out += ["resource %s=%s" % (k, text(v)) for k, v in resource["attributes"]]
            out += ["profile attribute %s=%s" % (k, text(v)) for k, v in profile.get("attributes", [])]
            for sample in profile["samples"]:
                out.append("sample")
                for frame in sample["frames"]:
                    out.append("location 0x%x" % frame.get("address", 0))
                    out += ["location attribute %s=%s" % (k, text(v)) for k, v in frame.get("attributes", [])]
                    mapping = frame.get("mapping")
                    if mapping is not None:
                        out.append("mapping 0x%x 0x%x 0x%x %s" % (mapping.get("start", 0), mapping.get("limit", 0),
                                                                  mapping.get("offset", 0), mapping.get("name", "")))
                        out += ["mapping attribute %s=%s" % (k, text(v)) for k, v in mapping.get("attributes", [])]
                    for name, system, file, start, line, column in frame.get("lines", []):
                        out.append("line %d:%d %s %s %s %d" % (line, column, name, system, file, start))
                out += ["sample attribute %s=%s" % (k, text(v)) for k, v in sample.get("attributes", [])]
                if sample.get("link"):
                    out.append("link %s %s" % (sample["link"][0].hex(), sample["link"][1].hex()))
                out.append("values" + "".join(" %d" % v for v in sample.get("values", [])))
                out.append("timestamps" + "".join(" %d" % t for t in sample.get("timestamps", [])))
    return out
