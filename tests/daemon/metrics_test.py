#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""GET /metrics in Prometheus' text format 0.0.4, judged as promtool's check does: families, types, names, labels, histograms; every counter of the
documentation is there, and those of each part move."""
import os
import re
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
SAMPLE = re.compile(r"(%s)(?:\{((?:%s,)*%s)\})? ([-+0-9.eE]+|\+Inf|-Inf|NaN)" % (NAME, LABEL, LABEL))
PARTS = ("process_", "cairn_http_", "cairn_pool_", "cairn_symbolize_", "cairn_upload", "cairn_otlp_", "cairn_store_", "cairn_jobs", "cairn_agent_",
         "cairn_agents_", "cairn_ingest_", "cairn_profiles_", "cairn_sources_", "cairn_fetch_", "cairn_net_")


def parse(text):
    """{family: (type, {series: value})}; fails where the format is broken."""
    families, series, current = {}, set(), None
    assert text.endswith("\n") and "\r" not in text
    for number, line in enumerate(text.splitlines(), 1):
        where = "line %d: %s" % (number, line)
        head = re.fullmatch(r"# (HELP|TYPE) (%s) (.+)" % NAME, line)
        if head and head.group(1) == "HELP":
            current = head.group(2)
            assert current not in families, where + ": a family twice"
            assert head.group(3)[0].isupper() and head.group(3).endswith("."), where
            families[current] = None
            continue
        if head:
            assert head.group(2) == current and families[current] is None, where
            assert head.group(3) in ("counter", "gauge", "histogram"), where
            families[current] = (head.group(3), {})
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, where + ": no sample"
        assert current and families[current], where + ": no TYPE before it"
        kind, values = families[current]
        suffix = sample.group(1)[len(current):]
        assert sample.group(1).startswith(current) and suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",)), where
        key = (sample.group(1), tuple(sorted(re.findall(LABEL, sample.group(2) or ""))))
        assert key not in series, where + ": a series twice"
        assert len({name for name, _ in key[1]}) == len(key[1]), where + ": a label twice"
        series.add(key)
        values[key] = float(sample.group(sample.lastindex))
    for name, family in families.items():
        assert family, name + " has no TYPE"
        kind, values = family
        assert (kind == "counter") == name.endswith("_total"), "%s is a %s" % (name, kind)
        assert all(v >= 0 for v in values.values()), name
        if kind == "histogram":
            check_histogram(name, values)
    return families


def check_histogram(name, values):
    groups = {}
    for (sample, labels), value in values.items():
        if sample == name + "_bucket":
            rest = tuple(l for l in labels if l[0] != "le")
            groups.setdefault(rest, []).append((float(dict(labels)["le"].replace("+Inf", "inf")), value))
    for rest, buckets in groups.items():
        buckets.sort()
        assert buckets[-1][0] == float("inf"), (name, rest)
        counts = [count for _, count in buckets]
        assert counts == sorted(counts), (name, rest, "is not cumulative")
        assert counts[-1] == values[(name + "_count", rest)], (name, rest)
        assert (name + "_sum", rest) in values, (name, rest)


class Metrics(unittest.TestCase):
    def get(self, daemon):
        answer = daemon.get("/metrics")
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "text/plain; version=0.0.4"))
        return parse(answer.body.decode())

    def test_the_page_is_well_formed_and_every_part_is_in_it(self):
        with tempfile.TemporaryDirectory() as folder, Cairnd("--sources.directories", folder, "--sources.debuginfod", "") as daemon:
            fresh = self.get(daemon)
            # Questions, errors, odd paths, an upload, profiles: more labels, and no new fault of form.
            daemon.symbolize({"modules": [{"file_id": "0" * 32, "addresses": [1]}]})
            daemon.post_json("/v1/symbolize", "{")
            daemon.get('/v1/files/%22%5c%0a')
            daemon.get("/nowhere")
            daemon.upload(b"no ELF file, but bytes all the same")
            daemon.request("POST", "/v1development/profiles", b"\xff", {"Content-Type": "application/x-protobuf"})
            used = self.get(daemon)
        for families in (fresh, used):
            for part in PARTS:
                self.assertTrue(any(name.startswith(part) for name in families), part)
        # Without a question about them files have no series yet, but nothing that was there goes.
        self.assertLessEqual(set(fresh), set(used))
        for name, before in fresh.items():
            if before[0] == "counter":
                for series, value in before[1].items():
                    self.assertGreaterEqual(used[name][1][series], value, series)
        self.assertEqual(used["cairn_otlp_rejected_requests_total"][1][("cairn_otlp_rejected_requests_total", ())], 1)
        requests = used["cairn_http_requests_total"][1]
        self.assertEqual(requests[("cairn_http_requests_total", (("path", "/v1/symbolize"), ("status", "400")))], 1)

    def test_what_the_documentation_names_is_there(self):
        with Cairnd() as daemon:
            families = set(self.get(daemon))
        named = set()
        for folder, _, names in os.walk(os.path.join(SOURCE_DIR, "docs")):
            for name in names:
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    named |= set(re.findall(r"\bcairn_[a-z_]+_total\b", file.read()))
        self.assertGreater(len(named), 1)
        self.assertLessEqual(named, families)

    def test_the_parser_refuses_what_is_wrong(self):
        good = "# HELP a_total Of a.\n# TYPE a_total counter\na_total{x=\"1\"} 1\n"
        self.assertEqual(parse(good)["a_total"][0], "counter")
        for bad in (good[:-1], good + good, good.replace("counter", "count"), good.replace("_total", ""), good.replace("x=\"1\"", "x=1"),
                    good + "a_total{x=\"1\"} 2\n", good.replace(" 1\n", " one\n"), good + "b_total 1\n", good.replace("\"1\"", "\"\n\"")):
            with self.assertRaises(AssertionError, msg=bad):
                parse(bad)


if __name__ == "__main__":
    unittest.main()
