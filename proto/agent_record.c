// SPDX-License-Identifier: Apache-2.0
#include "proto/agent_record.h"

#include <errno.h>

struct err *agent_record_open(struct agent_record *record, const char *path)
{
	FILE *file = fopen(path, "we");

	if (!file || fwrite(AGENT_RECORD_MAGIC, AGENT_RECORD_MAGIC_BYTES, 1, file) != 1) {
		int error = errno;
		if (file)
			(void)fclose(file);
		return err_os(error, "%s", path);
	}
	*record = (struct agent_record){.file = file, .path = path};
	return NULL;
}

struct err *agent_record_write(struct agent_record *record, enum agent_body body, const struct buf *envelope)
{
	uint8_t len[4];

	if (body == AGENT_HELLO && record->has_hello)
		return NULL;
	record->has_hello |= body == AGENT_HELLO;
	for (int i = 0; i < 4; i++)
		len[i] = (uint8_t)(envelope->len >> 8 * i);
	if (fwrite(len, sizeof(len), 1, record->file) != 1 || fwrite(envelope->data, 1, envelope->len, record->file) != envelope->len)
		return err_os(errno, "%s", record->path);
	return NULL;
}

struct err *agent_record_close(struct agent_record *record)
{
	FILE *file = record->file;

	record->file = NULL;
	return file && fclose(file) != 0 ? err_os(errno, "%s", record->path) : NULL;
}
