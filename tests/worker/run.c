// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/run.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char folder[64];

static void remove_folder(void)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf %s", folder);
	if (folder[0])
		(void)!system(command);
}

void run_shell(const char *command)
{
	int status = system(command);

	cr_assert_eq(status, 0, "%s: status %d", command, status);
}

void run_folder(void)
{
	strcpy(folder, "/tmp/cairn-worker-test-XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	cr_assert_eq(chdir(folder), 0);
	(void)atexit(remove_folder);
	run_shell("cp " SAMPLE " sample && objcopy --only-keep-debug sample debug && strip -o stripped sample");
}

struct spawn_limits run_limits(void)
{
	return (struct spawn_limits){
		.memory_bytes = 512 << 20,
		.max_table_bytes = RUN_TABLE_MAX,
		.max_unpacked_bytes = UINT64_C(1) << 30,
		.deadline_ms = 60000,
		.threads = 2,
	};
}

static void on_progress(void *context, const struct protocol_progress *progress)
{
	((struct run_seen *)context)->phases |= 1u << progress->phase;
}

static void on_skipped(void *context, const char *text)
{
	struct run_seen *seen = context;
	size_t at = strlen(seen->skipped_text);

	seen->skipped++;
	(void)snprintf(seen->skipped_text + at, sizeof(seen->skipped_text) - at, "%s\n", text);
}

static struct err *on_result(void *context, const struct protocol_result *result, struct buf *table)
{
	struct run_seen *seen = context;

	cr_assert_lt(seen->count, RUN_RESULTS_MAX);
	struct run_result *to = &seen->results[seen->count++];
	to->facts = *result;
	to->table_len = table->len;
	if (table->len > 0)
		memcpy(to->table, table->data, table->len);
	return NULL;
}

static struct spawn_report run_alone(const struct spawn_input *inputs, size_t count, int scratch_fd, bool alone, const struct spawn_limits *limits,
	struct run_seen *seen)
{
	struct protocol_handler handler = {seen, on_progress, on_skipped, on_result};
	struct spawn_request request = {
		.program = WORKER,
		.inputs = inputs,
		.input_count = count,
		.scratch_fd = scratch_fd,
		.limits = *limits,
		.alone = alone,
		.stop_fd = -1,
		.handler = &handler,
	};
	struct spawn_report report;

	memset(seen, 0, sizeof(*seen));
	struct err *e = spawn_run(&request, &report);
	cr_assert_null(e, "%s", err_message(e));
	return report;
}

static struct spawn_report run(const struct spawn_input *inputs, size_t count, int scratch_fd, const struct spawn_limits *limits,
	struct run_seen *seen)
{
	return run_alone(inputs, count, scratch_fd, false, limits, seen);
}

static int open_input(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	cr_assert_geq(fd, 0, "%s", path);
	return fd;
}

static struct spawn_report run_two(const char *binary, const char *other, enum spawn_input_kind kind, const struct spawn_limits *limits,
	struct run_seen *seen)
{
	struct spawn_input inputs[2] = {0};
	size_t count = 0;

	if (binary)
		inputs[count++] = (struct spawn_input){SPAWN_BINARY, open_input(binary)};
	if (other)
		inputs[count++] = (struct spawn_input){kind, open_input(other)};
	struct spawn_report report = run(inputs, count, -1, limits, seen);
	for (size_t i = 0; i < count; i++)
		(void)close(inputs[i].fd);
	return report;
}

struct spawn_report run_elf(const char *binary, const char *debug, const struct spawn_limits *limits, struct run_seen *seen)
{
	return run_two(binary, debug, SPAWN_DEBUG, limits, seen);
}

struct spawn_report run_supplement(const char *binary, const char *supplement, const struct spawn_limits *limits, struct run_seen *seen)
{
	return run_two(binary, supplement, SPAWN_SUPPLEMENT, limits, seen);
}

struct spawn_report run_package_with(const struct run_package *with, const struct spawn_limits *limits, struct run_seen *seen)
{
	const char *const paths[] = {with->package, with->sibling, with->supplement, with->wanted};
	static const enum spawn_input_kind kinds[] = {SPAWN_PACKAGE, SPAWN_SIBLING, SPAWN_SUPPLEMENT, SPAWN_WANTED};
	int scratch = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	struct spawn_input inputs[4] = {0};
	size_t count = 0;

	cr_assert_geq(scratch, 0);
	for (size_t i = 0; i < 4; i++)
		if (paths[i])
			inputs[count++] = (struct spawn_input){kinds[i], open_input(paths[i])};
	struct spawn_report report = run_alone(inputs, count, scratch, with->alone, limits, seen);
	for (size_t i = 0; i < count; i++)
		(void)close(inputs[i].fd);
	(void)close(scratch);
	return report;
}

struct spawn_report run_package(const char *package, const struct spawn_limits *limits, struct run_seen *seen)
{
	return run_package_with(&(struct run_package){.package = package}, limits, seen);
}
