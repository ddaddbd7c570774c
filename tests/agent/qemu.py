#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn-agent on another kernel: qemu.py VERSION... (6.1, 5.10, 6.12: Debian's cloud kernels), under qemu without KVM.

Makes an initramfs of busybox, cairn-agent with its libraries, and programs of known stacks; boots; runs `cairn-agent --once` in each
way that this kernel has or can be made to take; brings profiles and words out over the serial line; compares with the programs.

Where the kernel comes from, the first that is there:
    CAIRN_QEMU_KERNELS   a folder with linux-image-VERSION*-cloud-amd64*.deb, or with vmlinuz-VERSION*
    /boot                an installed one
    apt-get download     what the machine's own sources have, kept in the build folder
Skipped (77) with the reason where there is no qemu, busybox or kernel.
"""

import base64
import glob
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import live  # noqa: E402

BOOT_SECONDS_MAX = 420
COMPLETE_PERMILLE_MIN = 980
MODULES = ("af_alg", "algif_hash", "rmd160")
DEPTH_LOOP, DEPTH_TAILS = 600, 300  # of 1,024 frames with bpf_loop; of 330 without
GUEST_PATH = "/bin:/sbin"
# As written, and one frame of main: `bottom` at the leaf, then what the case says.
CASES = {
    "leaf": lambda n: n[:3] == ["bottom", "leaf_case", "main"],
    "deep": lambda n: n[0] == "bottom" and n.count("deep") in (DEPTH_LOOP + 1, DEPTH_TAILS + 1) and "main" in n,
    "aligned": lambda n: n[:4] == ["bottom", "dynamic", "aligned", "main"],
    "plt": lambda n: n[:2] == ["bottom", "compare"] and "main" in n,
    "signal": lambda n: n[0] == "bottom" and "handler" in n and "in_signal" in n and "main" in n,
}

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH={path}
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mkdir -p /tmp
echo 2 > /proc/sys/kernel/printk
# Whether the agent samples: an event for ticks and one for processes on each of two CPUs.
samples() {{
	[ "$(ls -l /proc/$(pidof cairn-agent)/fd 2>/dev/null | grep -c perf_event)" -ge 4 ]
}}
# run NAME PROGRAMS THEN ARGUMENT...: the programs are there before, stopped, so that the agent reads them, and nobody keeps it from
# that; when it samples they go on, and THEN begins.
run() {{
	name=$1
	programs=$2
	then=$3
	shift 3
	stacks beat &
	$programs
	sleep 1
	killall -STOP stacks
	(until samples; do sleep 0.1; done; killall -CONT stacks; $then) &
	echo "@@begin $name"
	cairn-agent -o /tmp/out "$@" 2>/tmp/words
	echo "@@exit $?"
	cat /tmp/words
	for kind in "" .off_cpu .events; do
		echo "@@profile$kind"
		[ -f /tmp/out$kind ] && base64 /tmp/out$kind
	done
	rm -f /tmp/out*
	killall stacks
	echo "@@end"
}}
nothing() {{
	:
}}
shapes() {{
	for case in leaf deep aligned plt signal; do stacks $case spin $1 & done
	stacks kernel &
}}
module() {{
	stacks module &
}}
come_and_go() {{
	for i in 1 2; do taskset $i stacks leaf spin & done
	echo 0 > /sys/devices/system/cpu/cpu1/online
	sleep 2
	echo 1 > /sys/devices/system/cpu/cpu1/online
	taskset 2 stacks plt spin &
}}
echo "@@kernel $(uname -r) btf=$([ -f /sys/kernel/btf/vmlinux ] && echo 1 || echo 0)"
{script}
echo "@@done"
poweroff -f
"""

class Skip(Exception):
    pass


def cpio_entry(name, mode, data, inode):
    fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    head += b"\0" * (-len(head) % 4)
    return head + data + b"\0" * (-len(data) % 4)


def make_initramfs(path, files, init):
    """files: {path in the guest: path here}. Format: newc of cpio(5)."""
    folders = {"bin", "sbin", "dev", "proc", "sys", "tmp"}
    for name in files:
        parts = name.split("/")[:-1]
        folders.update("/".join(parts[:i + 1]) for i in range(len(parts)))
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in sorted(folders)]
    for name, source in files.items():
        with open(source, "rb") as file:
            entries.append((name, stat.S_IFREG | 0o755, file.read()))
    entries.append(("init", stat.S_IFREG | 0o755, init.encode()))
    with open(path, "wb") as out:
        for inode, (name, mode, data) in enumerate(entries, 1):
            out.write(cpio_entry(name, mode, data, inode))
        out.write(cpio_entry("TRAILER!!!", 0, b"", 0))


def libraries(program):
    """{path in the guest: path here} of what the dynamic linker will look for."""
    text = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return {path.lstrip("/"): path for path in re.findall(r"(/\S+) \(0x", text)}


def unpack(deb, folder):
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    found = glob.glob(os.path.join(folder, "boot/vmlinuz-*"))
    return found[0] if found else None


def find_kernel(version, folder):
    given = os.environ.get("CAIRN_QEMU_KERNELS", "")
    cache = os.path.join(os.environ["CAIRN_BINARY_DIR"], "qemu-kernels")
    for place in filter(None, (given, "/boot", cache)):
        for found in sorted(glob.glob(os.path.join(place, f"vmlinuz-{version}[.-]*"))):
            if place != "/boot" or "cloud" in found:
                return found
        for found in sorted(glob.glob(os.path.join(place, f"linux-image-{version}[.-]*cloud-amd64*.deb"))):
            kernel = unpack(found, folder)
            if kernel:
                return kernel
    names = subprocess.run(["apt-cache", "pkgnames", f"linux-image-{version}"], capture_output=True, text=True, check=False).stdout.split()
    names = [name for name in names if re.fullmatch(rf"linux-image-{re.escape(version)}[.-][0-9][^ ]*cloud-amd64", name)]
    os.makedirs(cache, exist_ok=True)
    # The newest is what the archive surely still has.
    for name in sorted(names, key=lambda text: [int(part) for part in re.findall(r"\d+", text)], reverse=True)[:2]:
        run = subprocess.run(["apt-get", "download", "-q", name], cwd=cache, capture_output=True, text=True, check=False, timeout=120)
        found = glob.glob(os.path.join(cache, f"{name}_*.deb"))
        if run.returncode == 0 and found:
            return unpack(found[0], folder)
    raise Skip(f"no cloud kernel {version}: not in CAIRN_QEMU_KERNELS, /boot, or apt's sources")


def boot(kernel, initramfs, log):
    command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "640", "-nographic", "-no-reboot", "-nodefaults",
               "-serial", "stdio", "-monitor", "none", "-net", "none", "-cpu", "max", "-kernel", kernel, "-initrd", initramfs,
               "-append", "console=ttyS0 quiet panic=-1 mitigations=off"]
    try:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, timeout=BOOT_SECONDS_MAX)
        text = run.stdout
    except subprocess.TimeoutExpired as error:
        text = (error.stdout or b"").decode(errors="replace")
    with open(log, "w", encoding="utf-8") as file:
        file.write(text)
    return text.replace("\r", "")


def parse(text, folder):
    """({run name: (exit code, words, counters, samples, mappings)}, kernel line); profiles of other kinds as runs NAME.off_cpu and NAME.events"""
    runs = {}
    for match in re.finditer(r"@@begin (\S+)\n(.*?)@@exit (\d+)\n(.*?)(@@profile.*?)@@end", text, re.S):
        name, _, code, words, profiles = match.groups()
        counters = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)\b", words)}
        for kind, profile in re.findall(r"@@profile(\S*)\n([^@]*)", profiles):
            samples, mappings = [], {}
            if profile.strip():
                path = os.path.join(folder, name + kind + ".pb.gz")
                with open(path, "wb") as file:
                    file.write(base64.b64decode(re.sub(r"[^A-Za-z0-9+/=]", "", profile)))
                samples, mappings = live.read_pprof(path)
            runs[name + kind] = (int(code), words, counters, samples, mappings)
    kernel = re.search(r"@@kernel (.*)", text)
    return runs, kernel.group(1) if kernel else ""


def stacks_of(samples, executable):
    table = live.symbols(executable)
    named = []
    for stack, value in samples:
        names = [name for name in (live.function_of(table, frame, executable) for frame in stack) if name]
        if names:
            named.append((names, value))
    return named


def check_programs(name, run, executable):
    code, words, counters, samples, mappings = run
    if not live.check(code == 0, f"{name}: exit {code}: {words.strip()[-300:] if code else 'fine'}"):
        return False
    stacks = stacks_of(samples, executable)
    ok = live.check(mappings.get(os.path.basename(executable)) == live.build_id(executable), f"{name}: build ID")
    for case, wanted in CASES.items():
        function = {"leaf": "leaf_case", "deep": "deep", "aligned": "aligned", "plt": "compare", "signal": "in_signal"}[case]
        ours = [(names, value) for names, value in stacks if function in names and (case == "signal" or "handler" not in names)]
        total = sum(value for _, value in ours)
        good = sum(value for names, value in ours if wanted(names))
        ok &= live.check(total > 0 and good >= 0.95 * total - 1, f"{name}: {case}: {good} of {total} as written")
    table = live.symbols(executable)
    stacks = [([live.function_of(table, frame, executable) or frame for frame in stack], value) for stack, value in samples]
    total = sum(value for stack, value in stacks if "in_kernel" in stack)
    kernel = sum(value for stack, value in stacks if "in_kernel" in stack and "main" in stack and any("getrandom" in frame for frame in stack))
    ok &= live.check(total > 0 and kernel >= 0.8 * total, f"{name}: kernel: {kernel} of {total} samples through a named getrandom to main")
    ok &= live.check(counters["complete_permille"] >= COMPLETE_PERMILLE_MIN, f"{name}: {counters['complete_permille']} permille complete of {counters['user_stacks']}")
    return ok


def script(version, has_modules):
    common = "--samples-per-second 100"
    # The guest's shell and tools are busybox, which has no call frame information: what is counted is the program's.
    shapes = f"{common} --comm stacks --once 4s"
    depth = DEPTH_LOOP if tuple(int(part) for part in version.split(".")[:2]) >= (5, 17) else DEPTH_TAILS
    module = "".join(f"insmod /lib/{name}.ko\n" for name in MODULES) + 'echo "@@text $(cat /sys/module/rmd160/sections/.text)"\n'
    return f"""run plain "shapes {depth}" nothing {shapes}
run tails "shapes {DEPTH_TAILS}" nothing {shapes} --no-bpf-loop
run top "shapes {depth}" nothing {shapes} --no-task-regs
run others nothing nothing --once 3s --off-cpu-threshold 1 --uprobe /bin/stacks:beat
run hotplug nothing come_and_go --once 5s {common}
{module + "run module module nothing " + shapes if has_modules else ""}
mount -t tmpfs none /sys/kernel/btf
echo "@@btf $(ls /sys/kernel/btf | wc -l)"
run hidden "shapes {DEPTH_TAILS}" nothing {shapes}
"""


def find_modules(kernel, folder):
    """{path in the guest: path here} of MODULES of that kernel; {} where they are not beside it."""
    release = os.path.basename(kernel).removeprefix("vmlinuz-")
    found = {}
    for name in MODULES:
        paths = glob.glob(os.path.join(os.path.dirname(os.path.dirname(kernel)), "lib/modules", release, "kernel/crypto", name + ".ko*"))
        if not paths:
            print(f"        no module {name} beside {kernel}")
            return {}
        plain = os.path.join(folder, name + ".ko")
        with (lzma.open if paths[0].endswith(".xz") else open)(paths[0], "rb") as source, open(plain, "wb") as target:
            target.write(source.read())
        found[f"lib/{name}.ko"] = plain
    return found


def check_module(version, run, text, modules, path):
    """Frames in a module that was loaded: by its name and build ID, and each at an address that its symbols give the same name."""
    code, words, _, samples, mappings = run
    start = re.search(r"@@text (0x[0-9a-f]+)", text)
    if not live.check(code == 0 and start, f"{version} module: loaded, exit {code}: {words[-300:] if code else 'fine'}"):
        return False
    ko = modules["lib/rmd160.ko"]
    rows = [line.split() for line in subprocess.run(["nm", "-S", "--defined-only", ko], capture_output=True, text=True, check=True).stdout.splitlines()]
    sizes = {row[3]: (int(row[0], 16), int(row[1], 16)) for row in rows if len(row) == 4}
    places = [(address - int(start.group(1), 16), name) for mapping, address, name in live.read_locations(path) if mapping == "rmd160"]
    good = [name for at, name in places if name in sizes and sizes[name][0] <= at < sizes[name][0] + sizes[name][1]]
    ok = live.check(len(good) > 0 and len(good) == len(places), f"{version} module: {len(good)} of {len(places)} addresses in rmd160 where its symbols have them: {sorted(set(good))}")
    ok &= live.check(mappings.get("rmd160") == live.build_id(ko), f"{version} module: build ID")
    inside = sum(value for stack, value in samples if any(frame in sizes for frame in stack))
    whole = sum(value for stack, value in samples if any(frame in sizes for frame in stack) and any(frame.startswith("stacks+") for frame in stack))
    return ok & live.check(inside > 0 and whole >= 0.9 * inside, f"{version} module: {whole} of {inside} samples in it go on to the program")


def test_kernel(version, folder, files, executable):
    kernel = find_kernel(version, folder)
    initramfs = os.path.join(folder, "initramfs")
    modules = find_modules(kernel, folder)
    make_initramfs(initramfs, {**files, **modules}, INIT.format(path=GUEST_PATH, script=script(version, bool(modules))))
    text = boot(kernel, initramfs, os.path.join(os.environ["CAIRN_BINARY_DIR"], f"qemu-{version}.log"))
    runs, line = parse(text, folder)
    if not live.check("@@done" in text, f"{version}: booted and ran to the end: {line}"):
        print(text[-3000:])
        return False
    ok = True
    for name in ("plain", "tails", "top", "hidden"):
        ok &= check_programs(f"{version} {name}", runs[name], executable)
    counted = {name: run[2] for name, run in runs.items()}
    has_helper = "regs_way=helper" in runs["plain"][1]
    way = "user_regs_btf" if has_helper else "user_regs_task"
    ok &= live.check(counted["plain"].get(way, 0) > 0, f"{version} plain: {way}={counted['plain'].get(way, 0)}, bpf_loop={counted['plain'].get('bpf_loop')}")
    ok &= live.check(counted["tails"].get("bpf_loop") == 0, f"{version} tails: without bpf_loop")
    ok &= live.check(counted["top"].get("user_regs_stack", 0) > 0, f"{version} top: user_regs_stack={counted['top'].get('user_regs_stack', 0)}")
    ok &= live.check("@@btf 0\n" in text and "regs_way=stack_top" in runs["hidden"][1] and counted["hidden"].get("user_regs_stack", 0) > 0,
                     f"{version} without BTF: user_regs_stack={counted['hidden'].get('user_regs_stack', 0)}")
    if modules:
        ok &= check_module(version, runs["module"], text, modules, os.path.join(folder, "module.pb.gz"))
    ok &= check_others(version, runs, executable)
    return ok


def check_others(version, runs, executable):
    code, words, counters, samples, _ = runs["others.off_cpu"]
    slept = [value for names, value in stacks_of(samples, executable) if names[:3] == ["beat", "beats", "main"]]
    # A beat sleeps for at least 2 ms each time.
    ok = live.check(code == 0 and counters.get("off_cpu_samples", 0) > 20 and sum(slept) > 20 * 2e6,
                    f"{version} off-CPU: {counters.get('off_cpu_samples', 0)} samples, {sum(slept) / 1e6:.0f} ms of sleep through beat to main; {words[-300:] if code else ''}")
    hits = [value for names, value in stacks_of(runs["others.events"][3], executable) if names == ["beat", "beats", "main", "_start"]]
    ok &= live.check(counters.get("probe_hits", 0) > 20 and sum(hits) >= 0.95 * counters["probe_hits"],
                     f"{version} probe: {sum(hits)} of {counters.get('probe_hits', 0)} hits through beat to main")
    code, words, counters, samples, _ = runs["hotplug"]
    plt = sum(value for names, value in stacks_of(samples, executable) if "compare" in names)
    ok &= live.check(code == 0 and counters.get("cpus_gone") == 1 and counters.get("cpus_come") == 1 and plt > 0,
                     f"{version} hotplug: gone {counters.get('cpus_gone')}, come {counters.get('cpus_come')}; {plt} samples of what ran there afterwards; "
                     f"{words[-300:] if code else ''}")
    return ok


def main():
    for tool in ("qemu-system-x86_64", "busybox"):
        if not shutil.which(tool):
            print(f"skipped: {tool} is not installed")
            return 77
    if "not a dynamic" not in subprocess.run(["ldd", shutil.which("busybox")], capture_output=True, text=True, check=False).stderr:
        print("skipped: busybox is not static (busybox-static)")
        return 77
    agent, unwind = (os.path.join(os.environ["CAIRN_BINARY_DIR"], "bin", name) for name in ("cairn-agent", "cairn-unwind"))
    with tempfile.TemporaryDirectory() as folder:
        executable = live.build(folder, "stacks", "gcc", "-O2", "-fomit-frame-pointer", "-fno-inline", "-fno-optimize-sibling-calls", "-fno-ipa-sra",
                                "-Wl,--build-id")
        files = {"bin/busybox": shutil.which("busybox"), "bin/cairn-agent": agent, "bin/cairn-unwind": unwind, "bin/stacks": executable}
        files.update(libraries(agent))
        files.update(libraries(unwind))
        files.update(libraries(executable))
        ok, skipped = True, []
        for version in sys.argv[1:]:
            try:
                place = os.path.join(folder, version)
                os.makedirs(place)
                ok &= test_kernel(version, place, files, executable)
            except Skip as reason:
                skipped.append(str(reason))
        for reason in skipped:
            print(f"skipped: {reason}")
        return 1 if not ok else 77 if len(skipped) == len(sys.argv) - 1 else 0


if __name__ == "__main__":
    sys.exit(main())
