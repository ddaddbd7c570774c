# SPDX-License-Identifier: Apache-2.0
"""Programs that keep a machine busy while the agent is measured: what bench/agent_overhead and bench/agent_unwind run beside it."""

import os
import shutil
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAMS = os.path.join(ROOT, "tests/agent/programs")
CPP = "#include <map>\n#include <regex>\n#include <string>\nint main(int c, char **v) { std::map<std::string, std::regex> m; m[v[0]] = std::regex(v[c - 1]); return (int)m.size(); }\n"
C = "#include <stdio.h>\n#include <stdlib.h>\n" + "".join(f"int f{i}(int a) {{ return a * {i} + atoi(\"{i}\"); }}\n" for i in range(300)) + "int main(void) { volatile int s = 0; for (int i = 0; i < 3000000; i++) s = s + f7(i); return s == 1; }\n"
SORT = """#include <algorithm>
#include <map>
#include <string>
#include <vector>
int main() { for (;;) { std::map<std::string, int> words; std::vector<std::string> list; for (int i = 0; i < 20000; i++) list.push_back(std::to_string(i * 7919 % 20011));
std::sort(list.begin(), list.end(), [](const std::string &a, const std::string &b) { return a < b; }); for (auto &word : list) words[word]++; if (words.size() < 3) return 1; } }
"""
DATABASE = """import sqlite3
db = sqlite3.connect(':memory:')
db.execute('create table t(a integer primary key, b text, c real)')
while True:
    db.execute('delete from t')
    db.execute("with recursive n(i) as (select 1 union all select i+1 from n where i < 200000) insert into t select i, hex(i*7), i*0.5 from n")
    db.execute("select b, sum(c), count(*) from t group by substr(b, 1, 3) order by 2 desc").fetchall()
    db.execute("select count(*) from t x join t y on x.a = y.a*3 where x.b like '%7%'").fetchall()
"""


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def loads(folder, wanted):
    """[(what, command)] of the loads that this machine can run."""
    found = []
    if "compile" in wanted and shutil.which("gcc"):
        c, cpp = write(folder, "a.c", C), write(folder, "b.cc", CPP)
        # What is built runs for a moment, as a test would: a new executable each time.
        found.append(("compile C", ["sh", "-c", f"while :; do gcc -O2 -o {folder}/a.out {c}; {folder}/a.out; done"]))
        if shutil.which("g++"):
            found.append(("compile C++", ["sh", "-c", f"while :; do g++ -O2 -c -o {folder}/b.o {cpp}; done"]))
    if "database" in wanted:
        found.append(("database", [sys.executable, write(folder, "db.py", DATABASE)]))
    if "c" in wanted and shutil.which("g++"):
        program = os.path.join(folder, "sort")
        subprocess.run(["g++", "-O2", "-o", program, write(folder, "sort.cc", SORT)], check=True)
        found.append(("C++", [program]))
    if "go" in wanted and shutil.which("go"):
        program = os.path.join(folder, "recurse-go")
        subprocess.run(["go", "build", "-ldflags=-s -w", "-o", program, os.path.join(PROGRAMS, "recurse.go")], check=True,
                       env={**os.environ, "GO111MODULE": "off", "GOCACHE": os.path.join(folder, "gocache"), "GOFLAGS": ""})
        found += [(f"Go {mode}", [program, mode]) for mode in ("sort", "gc", "now")]
    if "rust" in wanted and shutil.which("rustc"):
        program = os.path.join(folder, "recurse-rust")
        subprocess.run(["rustc", "-C", "opt-level=2", "-o", program, os.path.join(PROGRAMS, "recurse.rs")], check=True)
        found.append(("Rust", [program, "spin"]))
    return found


class Running:
    """The loads [(what, command)] run while this is entered; each in a group of its own, which is ended as a whole."""

    def __init__(self, commands):
        self.commands, self.processes = commands, []

    def __enter__(self):
        for what, command in self.commands:
            self.processes.append((what, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)))
        return self

    def ended(self):
        return [what for what, process in self.processes if process.poll() is not None]

    def __exit__(self, *_):
        for _, process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
