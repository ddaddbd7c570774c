// SPDX-License-Identifier: Apache-2.0
/*
 * Executables and processes that mean no good: each costs a bounded amount of work and a counter, and nothing else suffers. Files
 * are mapped by children of the test, as any user's process could; cairn-unwind is the real one.
 */
#include "agent/tables.h"
#include "agent/unwind/native.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

enum { DELTAS = 1 << 20, PAGES = 1 << 16, MAPPINGS = 1 << 16, PAGE = 4096 };

struct fake {
	struct tables_arrays arrays;
	struct tables *tables;
	struct sample_process shown;
	char folder[64];
};

static int show(void *context, uint32_t pid, const struct sample_process *process)
{
	struct fake *fake = context;
	(void)pid;
	fake->shown = *process;
	return 0;
}

static void fake_init(struct fake *fake)
{
	char program[4096];

	*fake = (struct fake){.arrays = {.mapping_count = MAPPINGS, .page_count = PAGES, .delta_count = DELTAS, .show = show, .context = fake},
		.folder = "/tmp/cairn-hostile-XXXXXX"};
	fake->arrays.mappings = calloc(MAPPINGS, sizeof(*fake->arrays.mappings));
	fake->arrays.pages = calloc(PAGES, sizeof(*fake->arrays.pages));
	fake->arrays.deltas = calloc(DELTAS, sizeof(*fake->arrays.deltas));
	fake->arrays.exes = calloc(UNWIND_EXES_MAX, sizeof(*fake->arrays.exes));
	fake->arrays.infos = calloc(UNWIND_INFOS_MAX, sizeof(*fake->arrays.infos));
	snprintf(program, sizeof(program), "%s/bin/cairn-unwind", getenv("CAIRN_BINARY_DIR"));
	cr_assert_null(tables_create(&fake->arrays, program, &fake->tables));
	cr_assert_not_null(mkdtemp(fake->folder));
}

static void fake_deinit(struct fake *fake)
{
	tables_destroy(fake->tables);
	free(fake->arrays.mappings);
	free(fake->arrays.pages);
	free(fake->arrays.deltas);
	free(fake->arrays.exes);
	free(fake->arrays.infos);
	(void)rmdir(fake->folder);
}

/* All tables of the process that was read, as samples in each mapping would want them. */
static struct tables_counters settle(const struct fake *fake, pid_t pid)
{
	const struct unwind_mapping *mappings = fake->arrays.mappings + fake->shown.first_mapping;
	struct tables_counters counters;

	for (uint32_t i = 0; i < fake->shown.mapping_count; i++)
		(void)tables_want(fake->tables, (uint32_t)pid, mappings[i].exe, mappings, fake->shown.mapping_count);
	while (tables_pending(fake->tables) > 0) {
		cr_assert_null(tables_work(fake->tables));
		(void)usleep(1000);
	}
	tables_counters(fake->tables, &counters);
	return counters;
}

/* A child that has done @p begin and waits to be killed. */
static pid_t child_of(void (*begin)(const char *path), const char *path)
{
	int ready[2];
	char byte = 0;

	cr_assert_eq(pipe(ready), 0);
	pid_t pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		begin(path);
		(void)!write(ready[1], "x", 1);
		for (;;)
			(void)pause();
	}
	cr_assert_eq(read(ready[0], &byte, 1), 1);
	(void)close(ready[0]);
	(void)close(ready[1]);
	return pid;
}

static void end_child(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

static void map_file(const char *path)
{
	int fd = open(path, O_RDONLY);
	if (fd < 0 || mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		_exit(1);
}

/* ELF64 for x86-64 with one executable PT_LOAD and a section .eh_frame of @p len bytes at 0x1000. */
static void write_elf(const char *path, const void *eh_frame, uint64_t len, uint64_t section_len)
{
	Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT}, .e_type = ET_EXEC, .e_machine = EM_X86_64,
		.e_version = 1, .e_phoff = sizeof(header), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1, .e_ehsize = sizeof(header),
		.e_shoff = 256, .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 3, .e_shstrndx = 2};
	Elf64_Phdr load = {.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = 0x400000, .p_filesz = PAGE, .p_memsz = PAGE};
	Elf64_Shdr sections[3] = {{0}, {.sh_name = 1, .sh_type = SHT_PROGBITS, .sh_addr = 0x401000, .sh_offset = PAGE, .sh_size = section_len},
		{.sh_type = SHT_STRTAB, .sh_offset = 512, .sh_size = 11}};
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0755);
	cr_assert_geq(fd, 0);
	cr_assert_eq(pwrite(fd, &header, sizeof(header), 0), (ssize_t)sizeof(header));
	cr_assert_eq(pwrite(fd, &load, sizeof(load), sizeof(header)), (ssize_t)sizeof(load));
	cr_assert_eq(pwrite(fd, sections, sizeof(sections), 256), (ssize_t)sizeof(sections));
	cr_assert_eq(pwrite(fd, "\0.eh_frame", 11, 512), 11);
	cr_assert_eq(ftruncate(fd, PAGE), 0);
	if (len > 0)
		cr_assert_eq(pwrite(fd, eh_frame, len, PAGE), (ssize_t)len);
	(void)close(fd);
}

static bool read_nothing(void *context, uint64_t address, uint64_t *ret)
{
	(void)context;
	(void)address;
	(void)ret;
	return false;
}

struct hostile {
	struct fake fake;
	char path[128];
	pid_t pid;
	struct tables_counters counters;
};

/** A child maps the file at h->path; its process is read and its tables are made. */
static void read_mapped(struct hostile *h)
{
	h->pid = child_of(map_file, h->path);
	cr_assert_null(tables_sync(h->fake.tables, (uint32_t)h->pid));
	h->counters = settle(&h->fake, h->pid);
}

static void hostile_init(struct hostile *h)
{
	fake_init(&h->fake);
	snprintf(h->path, sizeof(h->path), "%s/file", h->fake.folder);
}

static void hostile_deinit(struct hostile *h)
{
	if (h->pid)
		end_child(h->pid);
	(void)unlink(h->path);
	fake_deinit(&h->fake);
}

/* What the file is to the kernel half. */
static const struct unwind_exe *exe_called(const struct hostile *h, const char *name)
{
	for (uint32_t i = 0; i < h->fake.shown.mapping_count; i++) {
		uint32_t number = h->fake.arrays.mappings[h->fake.shown.first_mapping + i].exe;
		const struct tables_exe *exe = tables_exe(h->fake.tables, number);
		if (exe && strcmp(exe->name, name) == 0)
			return &h->fake.arrays.exes[number];
	}
	return NULL;
}

Test(hostile_file, an_eh_frame_whose_entries_pass_its_end_is_refused_and_the_rest_stands)
{
	struct hostile h = {0};
	static const uint8_t bytes[] = {0xf0, 0xff, 0xff, 0x7f, 0, 0, 0, 0};
	hostile_init(&h);
	write_elf(h.path, bytes, sizeof(bytes), sizeof(bytes));
	read_mapped(&h);
	cr_assert_eq(h.counters.exes.refused, 1u);
	cr_assert_eq(h.counters.exes.crashed, 0u);
	cr_assert_gt(h.counters.exes.deltas, 0u, "libc's, the test's and the vDSO's");
	const struct unwind_exe *exe = exe_called(&h, "file");
	cr_assert_not_null(exe);
	cr_assert_eq(exe->otherwise, UNWIND_FRAME_POINTER);
	cr_assert_eq(exe->page_count, 0u);
	hostile_deinit(&h);
}

/* A CIE, then FDEs whose programs make a row of each three bytes, each unlike the one before: together more than the limit. */
Test(hostile_file, an_eh_frame_that_blows_up_its_table_ends_at_a_limit)
{
	enum { FDES = 900, PROGRAM = 60000, HEAD = 8 + 17 };
	static const uint8_t cie[] = {0x14, 0, 0, 0, 0, 0, 0, 0, 1, 'z', 'R', 0, 1, 0x78, 16, 1, 0, 0x0c, 7, 8, 0x90, 1, 0, 0};
	struct hostile h = {0};
	uint64_t len = sizeof(cie);
	hostile_init(&h);
	uint8_t *bytes = malloc(sizeof(cie) + (size_t)FDES * (HEAD + PROGRAM));
	cr_assert_not_null(bytes);
	memcpy(bytes, cie, sizeof(cie));
	for (uint64_t i = 0; i < FDES; i++) {
		uint32_t size = HEAD - 4 + PROGRAM, back = (uint32_t)len + 4;
		uint64_t low = 0x400000 + i * PROGRAM, span = PROGRAM;
		memcpy(bytes + len, &size, 4);
		memcpy(bytes + len + 4, &back, 4);
		memcpy(bytes + len + 8, &low, 8);
		memcpy(bytes + len + 16, &span, 8);
		bytes[len + 24] = 0;
		for (uint32_t at = 0; at < PROGRAM; at += 3) /* advance by one; the CFA is another */
			memcpy(bytes + len + HEAD + at, (uint8_t[]){0x41, 0x0e, at & 1 ? 16 : 24}, 3);
		len += HEAD + PROGRAM;
	}
	write_elf(h.path, bytes, len, len);
	free(bytes);
	read_mapped(&h);
	cr_assert_eq(h.counters.exes.refused + h.counters.exes.late, 1u);
	cr_assert_eq(h.counters.exes.crashed, 0u);
	cr_assert_eq(exe_called(&h, "file")->otherwise, UNWIND_FRAME_POINTER);
	hostile_deinit(&h);
}

Test(hostile_file, a_section_past_the_end_of_a_truncated_file_is_refused)
{
	struct hostile h = {0};
	hostile_init(&h);
	write_elf(h.path, NULL, 0, 1 << 20);
	read_mapped(&h);
	cr_assert_eq(h.counters.exes.refused, 1u);
	hostile_deinit(&h);
}

Test(hostile_file, of_two_gigabytes_of_which_most_is_a_hole_only_the_headers_are_read)
{
	struct hostile h = {0};
	hostile_init(&h);
	write_elf(h.path, "\0\0\0\0", 4, 4);
	cr_assert_eq(truncate(h.path, 2LL << 30), 0);
	read_mapped(&h);
	cr_assert_eq(h.counters.exes.refused + h.counters.exes.crashed + h.counters.exes.late, 0u);
	cr_assert_lt(h.counters.exes.build_peak_bytes, 128u << 20);
	hostile_deinit(&h);
}

Test(hostile_file, a_section_of_two_gigabytes_is_past_the_limit)
{
	struct hostile h = {0};
	hostile_init(&h);
	write_elf(h.path, NULL, 0, 2LL << 30);
	cr_assert_eq(truncate(h.path, (2LL << 30) + PAGE), 0);
	read_mapped(&h);
	cr_assert_eq(h.counters.exes.refused, 1u);
	hostile_deinit(&h);
}

Test(hostile_file, what_is_written_into_a_mapped_file_makes_another_file_of_it)
{
	struct hostile h = {0};
	hostile_init(&h);
	write_elf(h.path, "\0\0\0\0", 4, 4);
	read_mapped(&h);
	uint64_t added = h.counters.exes.added;
	write_elf(h.path, "\0\0\0\0\0\0\0\0", 8, 8);
	cr_assert_null(tables_sync(h.fake.tables, (uint32_t)h.pid));
	h.counters = settle(&h.fake, h.pid);
	cr_assert_eq(h.counters.exes.added, added + 1);
	hostile_deinit(&h);
}

Test(hostile_file, x32_and_32_bit_code_is_refused)
{
	struct hostile h = {0};
	hostile_init(&h);
	write_elf(h.path, NULL, 0, 0);
	int fd = open(h.path, O_WRONLY);
	cr_assert_eq(pwrite(fd, (uint8_t[]){ELFCLASS32}, 1, EI_CLASS), 1);
	(void)close(fd);
	read_mapped(&h);
	cr_assert_eq(h.counters.exes.refused, 1u);
	hostile_deinit(&h);
}

Test(hostile_file, x32_and_32_bit_code_is_refused_by_name)
{
	static const struct {
		uint8_t class;
		uint16_t machine;
		const char *words;
	} cases[] = {{ELFCLASS32, EM_X86_64, "x32 code is not unwound"}, {ELFCLASS32, EM_386, "32-bit code is not unwound"},
		{ELFCLASS64, EM_AARCH64, "machine 183 is not unwound"}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', cases[i].class, ELFDATA2LSB, EV_CURRENT}, .e_machine = cases[i].machine};
		struct unwind_source source = {.fd = -1, .bytes = (const uint8_t *)&header, .len = sizeof(header), .name = "file"};
		struct unwind_elf elf;
		struct err *e = unwind_elf_read_head(&source, &elf);
		cr_assert_not_null(e);
		cr_assert_eq(err_code(e), ERR_UNSUPPORTED);
		cr_assert_not_null(strstr(err_message(e), cases[i].words), "%s", err_message(e));
		err_free(e);
	}
}

/* The executable PT_LOAD of the file at @p path becomes this. */
static void set_load(const char *path, uint64_t foff, uint64_t vaddr, uint64_t size)
{
	Elf64_Phdr load = {.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_offset = foff, .p_vaddr = vaddr, .p_filesz = size, .p_memsz = size};
	int fd = open(path, O_WRONLY);

	cr_assert_eq(pwrite(fd, &load, sizeof(load), sizeof(Elf64_Ehdr)), (ssize_t)sizeof(load));
	(void)close(fd);
}

/* How the kernel half sees the mapping of a file that says where it is loaded; it is unwound at its first and last byte. */
static struct unwind_mapping mapping_of_load(uint64_t foff, uint64_t vaddr, uint64_t size)
{
	struct hostile h = {0};
	struct unwind_mapping found = {0};
	struct unwind_stack stack;

	hostile_init(&h);
	write_elf(h.path, "\0\0\0\0", 4, 4);
	set_load(h.path, foff, vaddr, size);
	read_mapped(&h);
	cr_assert_eq(h.counters.exes.crashed + h.counters.exes.late, 0u);
	struct unwind_world world = {.mappings = h.fake.arrays.mappings + h.fake.shown.first_mapping, .mapping_count = h.fake.shown.mapping_count,
		.exes = h.fake.arrays.exes, .exe_count = UNWIND_EXES_MAX, .pages = h.fake.arrays.pages, .page_count = PAGES,
		.deltas = h.fake.arrays.deltas, .delta_count = DELTAS, .infos = h.fake.arrays.infos, .info_count = UNWIND_INFOS_MAX, .read = read_nothing};
	for (uint32_t i = 0; i < h.fake.shown.mapping_count; i++) {
		const struct unwind_mapping *m = &world.mappings[i];
		const struct tables_exe *exe = tables_exe(h.fake.tables, m->exe);
		uint64_t regs[UNWIND_REGS] = {[UNWIND_REG_RSP] = 0x7000};
		unwind_native(&world, regs, m->start, &stack);
		cr_assert_eq(stack.count, 1u);
		unwind_native(&world, regs, m->end - 1, &stack);
		cr_assert_eq(stack.count, 1u);
		if ((exe && strcmp(exe->name, "file") == 0) || (m->end - m->start == PAGE && m->kind == UNWIND_MAPPING_FRAME_POINTER))
			found = *m;
	}
	hostile_deinit(&h);
	return found;
}

Test(hostile_mapping, of_a_part_of_the_file_that_no_program_header_loads_has_no_executable)
{
	struct unwind_mapping m = mapping_of_load(64 * PAGE, 0x400000, PAGE);
	cr_assert_eq(m.kind, UNWIND_MAPPING_FRAME_POINTER);
	cr_assert_eq(m.exe, 0u);
}

Test(hostile_mapping, that_is_loaded_around_the_end_of_addresses_is_bounded)
{
	struct unwind_mapping m = mapping_of_load(0, UINT64_MAX - 16, UINT64_MAX);
	cr_assert(m.kind == UNWIND_MAPPING_FILE || m.kind == UNWIND_MAPPING_FRAME_POINTER);
	cr_assert_eq(m.end - m.start, (uint64_t)PAGE);
}

Test(hostile_mapping, that_is_longer_than_what_is_loaded_counts_from_where_it_is)
{
	struct unwind_mapping m = mapping_of_load(0, 0x400000, 16);
	cr_assert_eq(m.kind, UNWIND_MAPPING_FILE);
	cr_assert_eq(m.vaddr, 0x400000u);
}

static void map_thousands(const char *path)
{
	int fd = open(path, O_RDONLY);
	for (int i = 0; i < 20000; i++) /* neighbours of other protection do not join */
		if (mmap(NULL, PAGE, i % 2 ? PROT_READ | PROT_EXEC : PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
			_exit(1);
}

Test(hostile_process, of_20000_mappings_is_read_in_bounded_time)
{
	struct fake fake;
	struct rusage before, after;
	fake_init(&fake);
	char path[128];
	snprintf(path, sizeof(path), "%s/file", fake.folder);
	write_elf(path, "\0\0\0\0", 4, 4);
	pid_t pid = child_of(map_thousands, path);
	cr_assert_eq(getrusage(RUSAGE_SELF, &before), 0);
	cr_assert_null(tables_sync(fake.tables, (uint32_t)pid));
	cr_assert_eq(getrusage(RUSAGE_SELF, &after), 0);
	cr_assert_geq(fake.shown.mapping_count, 10000u);
	cr_assert_lt(after.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_utime.tv_sec - before.ru_stime.tv_sec, 4);
	struct tables_counters counters = settle(&fake, pid);
	cr_assert_eq(counters.mappings_cut, 0u);
	end_child(pid);
	(void)unlink(path);
	fake_deinit(&fake);
}

static void become_private(const char *path)
{
	(void)path;
	if (prctl(PR_SET_DUMPABLE, 0))
		_exit(1);
}

/* Root reads it all the same; anybody else counts it. */
Test(hostile_process, that_is_not_dumpable_is_read_or_counted)
{
	struct fake fake;
	struct tables_counters counters;
	fake_init(&fake);
	pid_t pid = child_of(become_private, "");
	cr_assert_null(tables_sync(fake.tables, (uint32_t)pid));
	tables_counters(fake.tables, &counters);
	cr_assert_eq(counters.processes + counters.processes_failed, 1u);
	end_child(pid);
	cr_assert_null(tables_sync(fake.tables, (uint32_t)pid));
	cr_assert_not(tables_knows(fake.tables, (uint32_t)pid));
	fake_deinit(&fake);
}
