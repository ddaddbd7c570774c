// SPDX-License-Identifier: Apache-2.0
/*
 * cairn-unwind [debug]: one executable's unwind table, made in a sandbox since the bytes are strangers'. Started by cairn-agent
 * with descriptors (agent/unwind/result.h), and of no use by hand. What it answers by: the result; a sandbox that kills it; or
 * an exit status of 1 with a line on standard error.
 */
#include "agent/unwind/result.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum {
	MEMORY_BYTES = 384 << 20,
	CPU_SECONDS = 10,
	NICE = 2, /* a few milliseconds an executable, but samples wait for it */
};

static struct err *source_of(int fd, const char *name, struct unwind_source *ret)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return err_os(errno, "%s", name);
	*ret = (struct unwind_source){.fd = fd, .len = (uint64_t)st.st_size, .name = name};
	return NULL;
}

struct files {
	struct unwind_elf binary, debug;
	bool has_debug;
};

static void files_deinit(struct files *files)
{
	unwind_elf_deinit(&files->binary);
	unwind_elf_deinit(&files->debug);
}

static struct err *read_files(bool has_debug, struct files *files)
{
	struct unwind_source source;

	TRY(source_of(UNWIND_FD_BINARY, "executable", &source));
	TRY(unwind_elf_read(&source, &files->binary));
	if (!has_debug)
		return NULL;
	TRY(source_of(UNWIND_FD_DEBUG, "debug file", &source));
	TRY(unwind_elf_read(&source, &files->debug));
	const struct build_id *mine = &files->binary.build_id, *theirs = &files->debug.build_id;
	/* Another build's table would be worse than none. */
	files->has_debug = mine->len == theirs->len && memcmp(mine->bytes, theirs->bytes, mine->len) == 0;
	return NULL;
}

static struct err *build(bool has_debug)
{
	CLEANUP(files_deinit) struct files files = {0};
	struct unwind_result head = {.outcome = UNWIND_BUILT};
	struct unwind_infos infos;
	struct unwind_table table = {0};

	TRY(read_files(has_debug, &files));
	TRY(unwind_infos_init(&infos));
	struct err *e = unwind_table_build(&files.binary, files.has_debug ? &files.debug : NULL, &infos, &table);
	if (!e) {
		if (!has_debug && table.counts.fdes < UNWIND_DEBUG_FRAME_FDES)
			head.outcome = UNWIND_NEEDS_DEBUG;
		memcpy(head.debuglink, files.binary.debuglink, sizeof(head.debuglink));
		e = unwind_result_write(UNWIND_FD_RESULT, &head, &table, &infos);
	}
	unwind_table_deinit(&table);
	unwind_infos_deinit(&infos);
	return e;
}

int main(int argc, char **argv)
{
	bool has_debug = argc == 2 && strcmp(argv[1], "debug") == 0;
	struct sandbox_limits limits = {.memory_bytes = MEMORY_BYTES, .cpu_seconds = CPU_SECONDS, .file_bytes = UNWIND_RESULT_BYTES_MAX,
		.last_fd = has_debug ? UNWIND_FD_DEBUG : UNWIND_FD_BINARY, .has_one_thread = true};
	struct stat st;

	if ((argc != 1 && !has_debug) || fstat(limits.last_fd, &st) != 0) {
		fprintf(stderr, "cairn-unwind: it is started by cairn-agent, with descriptors\n");
		return 2;
	}
	(void)setpriority(PRIO_PROCESS, 0, NICE);
	CLEANUP(err_freep) struct err *e = sandbox_enter(&limits);
	if (!e)
		e = build(has_debug);
	if (!e)
		return 0;
	struct unwind_result head = {.outcome = UNWIND_REFUSED};
	snprintf(head.reason, sizeof(head.reason), "%s", err_message(e));
	CLEANUP(err_freep) struct err *unsaid = unwind_result_write(UNWIND_FD_RESULT, &head, NULL, NULL);
	return unsaid != NULL;
}
