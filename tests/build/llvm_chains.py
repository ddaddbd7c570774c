# SPDX-License-Identifier: Apache-2.0
"""What llvm-symbolizer 19 says, and whether a chain of ours agrees: for tests/build/accuracy.py and bench/compare.

(file, line, column) of every frame must be equal, and the number of frames. Names must be llvm's; for the outermost frame, where
LLVM prefers .symtab's name and of several picks one, also any other symbol's of the address, or DWARF's own, which is what
LLVM says when the symbol table is taken away.

llvm-symbolizer knows no stubs of the PLT: objdump's and llvm-objdump's labels judge them (`puts@plt`), and for ARM and RISC-V, where
neither has any, the order of the relocations in lld's files.

Known of llvm-symbolizer 19, told apart, all of them only where DWARF has no word:
    file    it gives the STT_FILE symbol's name, without line, as the file of a symbol
    beyond  it takes a sizeless symbol on past its section's end (_init over .plt), or past a sized function around it
"""
import bisect
import itertools
import os
import re
import subprocess

LLVM = os.environ.get("LLVM_SYMBOLIZER", "llvm-symbolizer-19")
OBJDUMP = os.environ.get("LLVM_OBJDUMP", "llvm-objdump-19")
STUB_SECTIONS = ".plt", ".plt.sec", ".plt.got"
OBJCOPY = os.environ.get("LLVM_OBJCOPY", "llvm-objcopy-19")


def chains(text):
    """[[(function, place)...]...], one list an address."""
    result = []
    for block in text.split("\n\n"):
        lines = block.split("\n")
        if len(lines) >= 2:
            result.append(list(zip(lines[0::2], lines[1::2])))
    return result


class Symbols:
    """The code symbols, file symbols and code sections of some files, by readelf."""

    def __init__(self, paths):
        self.files, self.sections, found = set(), [], set()
        for path in paths:
            for line in readelf("-SW", path):
                field = line.replace("[ ", "[").split()
                if len(field) > 8 and field[0][0] == "[" and "X" in field[7]:
                    low = int(field[3], 16)
                    self.sections.append((low, low + int(field[5], 16)))
            for line in readelf("-sW", path):
                field = line.split()
                if len(field) < 8 or not field[0].endswith(":"):
                    continue
                if field[3] == "FILE":
                    self.files.add(field[7])
                if field[3] in ("FUNC", "NOTYPE", "IFUNC") and field[6].isdigit():
                    low, size = int(field[1], 16), int(field[2], 0)
                    found.add((low, low + size if size else 0, field[7].split("@")[0]))
        self.stubs = {}
        self.stub_sections = []
        for path in paths:
            self._read_stubs(path)
        self.stub_lows = sorted(self.stubs)
        self.code = sorted(found)
        self.names = {name for _, _, name in self.code}
        self.lows = [low for low, _, _ in self.code]
        self.reach = list(itertools.accumulate((max(low, high) for low, high, _ in self.code), max))

    def _read_stubs(self, path):
        header = " ".join(readelf("-hW", path))
        found = False
        for line in readelf("-SW", path):
            field = line.replace("[ ", "[").split()
            if len(field) > 8 and field[1] in STUB_SECTIONS and field[2] == "PROGBITS":
                self.stub_sections.append((int(field[3], 16), int(field[3], 16) + int(field[5], 16)))
                found = True
        if not found:
            return
        if "RISC-V" in header or "ARM" in header.split("Machine:")[1].split():
            names = [line.split()[4] for line in readelf("-rW", path) if "JUMP_SLOT" in line or "JUMP_SLO" in line]
            first = self.stub_sections[-1][0] + 32
            self.stubs.update({first + 16 * i: f"{name}@plt" for i, name in enumerate(names)})
            if "RISC-V" not in header:  # three instructions and a word that traps
                self.stubs.update({first + 16 * i + 12: None for i in range(len(names))})
            return
        sections = [word for name in STUB_SECTIONS for word in ("-j", name)]
        for tool in [OBJDUMP] + (["objdump"] if "X86-64" in header or "80386" in header else []):
            text = subprocess.run([tool, "-d", *sections, path], capture_output=True, text=True).stdout
            self.stubs.update({int(low, 16): name for low, name in re.findall(r"^([0-9a-f]+) <([^>@]+@plt)>:$", text, re.M)})

    def stub_at(self, address):
        """The label that stands at or below the address in its section; None without one."""
        low = next((low for low, high in self.stub_sections if low <= address < high), None)
        at = bisect.bisect_right(self.stub_lows, address) - 1
        return self.stubs[self.stub_lows[at]] if low is not None and at >= 0 and self.stub_lows[at] >= low else None

    def _end(self, low):
        return next((high for start, high in self.sections if start <= low < high), 0)

    def _below(self, address):
        """Symbols that begin at or below the address, nearest first, until none further down can hold it."""
        at = bisect.bisect_right(self.lows, address) - 1
        nearest = self.lows[at] if at >= 0 else None
        while at >= 0 and (self.reach[at] > address or self.lows[at] == nearest):
            yield self.code[at] + (nearest,)
            at -= 1

    def names_at(self, address):
        """Of sized symbols that hold the address, and of the nearest sizeless ones below it up to their section's end."""
        return {name for low, high, name, nearest in self._below(address)
                if address < high or (high == 0 and low == nearest and address < self._end(low))}

    def is_sized_at(self, address):
        return any(address < high for _, high, _, _ in self._below(address))


def readelf(option, path):
    return subprocess.run(["readelf", option, path], capture_output=True, text=True, check=True).stdout.splitlines()


def symbolize(oracle, addresses):
    with open(addresses) as stdin:
        return chains(subprocess.run([LLVM, "--obj=" + oracle, "--functions=linkage", "--inlines", "--no-demangle"],
                                     stdin=stdin, capture_output=True, text=True, check=True).stdout)


def judge(symbols, address, mine, llvm, llvm_dwarf):
    """None, or what differs: "file" and "beyond" are llvm's (see above), "wrong" is ours."""
    (function, place), (llvm_function, llvm_place) = mine[-1], llvm[-1]
    if function.endswith("@plt") or (function == "??" and symbols.stub_at(address)):
        # llvm-objdump's label stands behind the landing pad (4 bytes) that a stub may begin with.
        return None if function in (symbols.stub_at(address), symbols.stub_at(address + 4)) and place == "??:0:0" else "wrong"
    kind = None
    if llvm_place != place and place == "??:0:0" and llvm_place.endswith(":0:0") and llvm_place[:-4] in symbols.files:
        llvm_place, kind = place, "file"
    if [p for _, p in mine] != [p for _, p in llvm[:-1]] + [llvm_place] or [f for f, _ in mine[:-1]] != [f for f, _ in llvm[:-1]]:
        return "wrong"
    names = symbols.names_at(address)
    if function == "??":
        if llvm_function == "??":
            return kind
        return "beyond" if not symbols.is_sized_at(address) else "wrong"
    return kind if function in names | {llvm_function, llvm_dwarf[-1][0]} else "wrong"


def without_symbols(path, to):
    """A copy without symbol table, for the names that DWARF alone has; its .dwp goes with it."""
    if os.path.exists(path + ".dwp"):
        os.symlink(os.path.abspath(path + ".dwp"), to + ".dwp")
    tables = ["--remove-section=.symtab", "--remove-section=.strtab"]
    if subprocess.run([OBJCOPY, *tables, path, to], capture_output=True).returncode != 0:
        # Relocations that the linker kept (a kernel's) name the table.
        subprocess.run([OBJCOPY, "--wildcard", "--remove-section=.rela*", *tables, path, to], check=True)
