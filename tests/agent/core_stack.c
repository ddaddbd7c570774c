// SPDX-License-Identifier: Apache-2.0
/*
 * core-stack CORE: unwinds every thread of a core dump with the unwinder that the kernel runs, and prints it as
 *     TID <tid>
 *     0x<address> <minus 1: r, as it is: i>      leaf first, addresses of the process
 *     END <reason>
 * Files are those that NT_FILE names; memory is the dump's.
 */
#include "agent/unwind/native.h"
#include "agent/unwind/table.h"
#include "base/reader.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <sys/user.h>

enum { MAX_MAPPINGS = 1024, MAX_EXES = 128, MAX_THREADS = 256, MAX_ITEMS = 4 << 20 };

struct exe {
	char name[512];
	struct unwind_elf elf;
	uint64_t bias;
	bool ok;
};

struct core {
	const uint8_t *bytes;
	size_t len;
	Elf64_Phdr loads[MAX_MAPPINGS];
	size_t load_count;
	struct unwind_mapping mappings[MAX_MAPPINGS];
	size_t mapping_count;
	struct exe exes[MAX_EXES];
	struct unwind_exe unwind_exes[MAX_EXES];
	size_t exe_count;
	struct unwind_page *pages;
	struct unwind_delta *deltas;
	size_t page_count, delta_count;
	struct prstatus { pid_t tid; struct user_regs_struct regs; } threads[MAX_THREADS];
	size_t thread_count;
	struct unwind_infos infos;
	uint64_t vdso;
};

static struct core core;

static bool read_memory(void *context, uint64_t address, uint64_t *ret)
{
	(void)context;
	for (size_t i = 0; i < core.load_count; i++) {
		const Elf64_Phdr *p = &core.loads[i];
		if (address >= p->p_vaddr && address - p->p_vaddr + 8 <= p->p_filesz) {
			memcpy(ret, core.bytes + p->p_offset + (address - p->p_vaddr), 8);
			return true;
		}
	}
	return false;
}

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "core-stack: %s: %s\n", what, why);
	exit(1);
}

static void check(struct err *e)
{
	if (e)
		fail("error", err_message(e));
}

/* The table of an executable goes behind those before. */
static void add_table(size_t number)
{
	struct unwind_table table;

	check(unwind_table_build(&core.exes[number].elf, NULL, &core.infos, &table));
	if (core.page_count + table.page_count > MAX_ITEMS || core.delta_count + table.delta_count > MAX_ITEMS)
		fail("tables", "too many");
	for (uint32_t i = 0; i < table.page_count; i++) {
		struct unwind_page page = table.pages[i];
		page.first += (uint32_t)core.delta_count;
		core.pages[core.page_count + i] = page;
	}
	if (table.delta_count > 0)
		memcpy(core.deltas + core.delta_count, table.deltas, table.delta_count * sizeof(*table.deltas));
	core.unwind_exes[number] = (struct unwind_exe){
		.page_base = table.page_base, .first_page = (uint32_t)core.page_count, .page_count = table.page_count};
	core.exes[number].ok = table.delta_count > 0;
	core.page_count += table.page_count;
	core.delta_count += table.delta_count;
	unwind_table_deinit(&table);
}

static size_t exe_of(const char *name, const struct unwind_source *source)
{
	for (size_t i = 1; i < core.exe_count; i++)
		if (strcmp(core.exes[i].name, name) == 0)
			return i;
	if (core.exe_count == MAX_EXES)
		fail(name, "too many executables");
	size_t number = core.exe_count++;
	snprintf(core.exes[number].name, sizeof(core.exes[number].name), "%s", name);
	check(unwind_elf_read(source, &core.exes[number].elf));
	add_table(number);
	return number;
}

static void add_mapping(uint64_t start, uint64_t end, uint64_t foff, size_t number)
{
	struct exe *exe = &core.exes[number];
	uint64_t vaddr = 0;

	if (core.mapping_count == MAX_MAPPINGS || !load_segments_vaddr(&exe->elf.segments, foff, &vaddr))
		fail(exe->name, "its mapping has no segment");
	exe->bias = start - vaddr;
	core.mappings[core.mapping_count++] = (struct unwind_mapping){.start = start, .end = end, .vaddr = vaddr, .exe = (uint32_t)number,
		.kind = exe->ok ? UNWIND_MAPPING_FILE : UNWIND_MAPPING_FRAME_POINTER};
}

static bool is_executable(uint64_t start)
{
	for (size_t i = 0; i < core.load_count; i++)
		if (core.loads[i].p_vaddr == start)
			return core.loads[i].p_flags & PF_X;
	return false;
}

/* NT_FILE: count, page size, {start, end, file offset in pages}[count], names. */
static void take_files(const uint8_t *note, size_t len)
{
	struct reader r = reader_init(note, len, false, "NT_FILE");
	uint64_t count = reader_u64(&r), page = reader_u64(&r);
	struct reader names = r;

	reader_skip(&names, count * 24);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t start = reader_u64(&r), end = reader_u64(&r), foff = reader_u64(&r) * page;
		const char *name = reader_text(&names, NULL);
		struct stat st;
		if (!name || !is_executable(start))
			continue;
		CLEANUP(closep) int fd = open(name, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) != 0)
			fail(name, strerror(errno));
		struct unwind_source source = {.fd = fd, .len = (uint64_t)st.st_size, .name = name};
		add_mapping(start, end, foff, exe_of(name, &source));
	}
}

static void take_vdso(void)
{
	for (size_t i = 0; i < core.load_count; i++) {
		const Elf64_Phdr *p = &core.loads[i];
		if (p->p_vaddr != core.vdso || core.vdso == 0)
			continue;
		struct unwind_source source = {.fd = -1, .bytes = core.bytes + p->p_offset, .len = p->p_filesz, .name = "[vdso]"};
		add_mapping(p->p_vaddr, p->p_vaddr + p->p_memsz, 0, exe_of("[vdso]", &source));
	}
}

static void take_note(uint32_t type, const uint8_t *note, size_t len, bool files)
{
	if (files && type == NT_FILE)
		take_files(note, len);
	if (files)
		return;
	if (type == NT_PRSTATUS && len >= sizeof(prstatus_t) && core.thread_count < MAX_THREADS) {
		prstatus_t status;
		memcpy(&status, note, sizeof(status));
		struct prstatus *thread = &core.threads[core.thread_count++];
		thread->tid = status.pr_pid;
		memcpy(&thread->regs, &status.pr_reg, sizeof(thread->regs));
	}
	for (size_t i = 0; type == NT_AUXV && i + 16 <= len; i += 16) {
		uint64_t entry[2];
		memcpy(entry, note + i, sizeof(entry));
		if (entry[0] == AT_SYSINFO_EHDR)
			core.vdso = entry[1];
	}
}

static void take_notes(const Elf64_Phdr *p, bool files)
{
	struct reader r = reader_init(core.bytes + p->p_offset, p->p_filesz, false, "notes");

	while (reader_left(&r) >= 12) {
		uint32_t name_len = reader_u32(&r), len = reader_u32(&r), type = reader_u32(&r);
		reader_skip(&r, (name_len + 3) & ~3U);
		const uint8_t *note = reader_bytes(&r, len);
		reader_skip(&r, (0 - len) & 3);
		if (note)
			take_note(type, note, len, files);
	}
}

static int compare_mappings(const void *a, const void *b)
{
	const struct unwind_mapping *x = a, *y = b;
	return x->start < y->start ? -1 : x->start > y->start;
}

static void load(const char *path)
{
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	Elf64_Ehdr header;

	if (fd < 0 || fstat(fd, &st) != 0)
		fail(path, strerror(errno));
	core.len = (size_t)st.st_size;
	core.bytes = mmap(NULL, core.len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (core.bytes == MAP_FAILED || core.len < sizeof(header))
		fail(path, "cannot be mapped");
	memcpy(&header, core.bytes, sizeof(header));
	Elf64_Phdr notes = {0};
	for (unsigned i = 0; i < header.e_phnum; i++) {
		Elf64_Phdr p;
		memcpy(&p, core.bytes + header.e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_offset + p.p_filesz > core.len)
			fail(path, "is cut");
		if (p.p_type == PT_NOTE)
			notes = p;
		if (p.p_type == PT_LOAD && core.load_count < MAX_MAPPINGS)
			core.loads[core.load_count++] = p;
	}
	take_notes(&notes, false);
	take_notes(&notes, true);
	take_vdso();
	qsort(core.mappings, core.mapping_count, sizeof(core.mappings[0]), compare_mappings);
}

static void print_thread(const struct prstatus *thread, const struct unwind_world *world)
{
	static const char *const ends[UNWIND_ENDS] = {"complete", "no_process", "no_mapping", "no_table", "no_info", "no_register", "no_stack", "read", "progress",
		"frames", "frame_pointer"};
	const struct user_regs_struct *u = &thread->regs;
	uint64_t regs[UNWIND_REGS] = {u->rax, u->rdx, u->rcx, u->rbx, u->rsi, u->rdi, u->rbp, u->rsp, u->r8, u->r9, u->r10, u->r11, u->r12,
		u->r13, u->r14, u->r15};
	struct unwind_stack stack;

	unwind_native(world, regs, u->rip, &stack);
	printf("TID %d\n", thread->tid);
	for (uint32_t i = 0; i < stack.count; i++) {
		uint64_t exe = stack.frames[i] >> UNWIND_FRAME_EXE_SHIFT;
		printf("0x%llx\n", (stack.frames[i] & UNWIND_FRAME_ADDRESS_MASK) + (exe ? core.exes[exe].bias : 0));
	}
	printf("END %s\n", ends[stack.end]);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		fail("usage", "core-stack CORE");
	core.exe_count = 1;
	core.pages = calloc(MAX_ITEMS, sizeof(*core.pages));
	core.deltas = calloc(MAX_ITEMS, sizeof(*core.deltas));
	if (!core.pages || !core.deltas)
		fail("tables", "out of memory");
	check(unwind_infos_init(&core.infos));
	load(argv[1]);
	struct unwind_world world = {.mappings = core.mappings, .mapping_count = core.mapping_count, .exes = core.unwind_exes,
		.exe_count = core.exe_count, .pages = core.pages, .page_count = core.page_count, .deltas = core.deltas,
		.delta_count = core.delta_count, .infos = core.infos.items, .info_count = core.infos.count, .read = read_memory};
	for (size_t i = 0; i < core.thread_count; i++)
		print_thread(&core.threads[i], &world);
	for (size_t i = 1; i < core.exe_count; i++)
		unwind_elf_deinit(&core.exes[i].elf);
	unwind_infos_deinit(&core.infos);
	free(core.pages);
	free(core.deltas);
	munmap((void *)(uintptr_t)core.bytes, core.len);
	return 0;
}
