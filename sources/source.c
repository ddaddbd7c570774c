// SPDX-License-Identifier: Apache-2.0
/* What all sources share: how they say their answers, and the check of what they got. */
#include "sources/source.h"

#include "fileid/build_id.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

void source_say(struct source_said *said, enum store_ask_answer answer, const char *format, ...)
{
	va_list arguments;

	said->answer = answer;
	va_start(arguments, format);
	(void)vsnprintf(said->text, sizeof(said->text), format, arguments);
	va_end(arguments);
}

void source_say_cancelled(struct source_said *said)
{
	source_say(said, STORE_ASK_CANCELLED, "not asked to the end: another source was first");
}

void source_say_fetch(struct source_said *said, const struct fetch_result *result)
{
	enum store_ask_answer answer = result->answer == FETCH_NOT_FOUND ? STORE_ASK_NOT_FOUND :
				       result->answer == FETCH_REFUSED	 ? STORE_ASK_REFUSED :
				       result->answer == FETCH_CANCELLED ? STORE_ASK_CANCELLED :
									   STORE_ASK_FAILED;

	if (answer == STORE_ASK_CANCELLED) {
		source_say_cancelled(said);
		return;
	}
	source_say(said, answer, "%.300s", result->reason);
	said->retry_after_ms = result->retry_after_ms;
}

struct err *source_check_build_id(int fd, const struct build_id *wanted)
{
	char want[BUILD_ID_HEX_SIZE], got[BUILD_ID_HEX_SIZE];
	struct stat status;
	struct elf_ids ids;
	struct build_id own;

	if (fstat(fd, &status))
		return err_os(errno, "stat");
	if (status.st_size == 0)
		return err_new(ERR_FORMAT, "an empty file");
	void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED)
		return err_os(errno, "map");
	struct err *e = build_id_from_elf(bytes, (size_t)status.st_size, "file", &ids);
	(void)munmap(bytes, (size_t)status.st_size);
	TRY(e);
	TRY(build_id_from_ids(&ids, &own));
	if (wanted->len == 0 || build_id_equal(&own, wanted))
		return NULL;
	build_id_format(wanted, want);
	build_id_format(&own, got);
	return err_new(ERR_MISMATCH, "a file of another build: build ID %s, and not %s", own.len ? got : "(none)", want);
}
