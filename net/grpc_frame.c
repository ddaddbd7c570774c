// SPDX-License-Identifier: Apache-2.0
#include "net/grpc_frame.h"

#include <string.h>

enum {
	TIMEOUT_DIGITS_MAX = 8,
	KEPT_BYTES = 64 * 1024, /* of a buffer that the next message uses again: an idle stream holds no more */
};

void grpc_reader_deinit(struct grpc_reader *reader)
{
	buf_deinit(&reader->message);
}

/* The five bytes before a message: flag, length big-endian. */
static struct err *take_prefix(struct grpc_reader *reader)
{
	const uint8_t *p = reader->prefix;

	reader->left = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
	if (p[0] > 1)
		return err_new(ERR_FORMAT, "message flag %u", p[0]);
	if (p[0] == 1 && reader->codec == CODEC_NONE)
		return err_new(ERR_UNSUPPORTED, "a compressed message without grpc-encoding");
	if (reader->left > reader->limit)
		return err_new(ERR_LIMIT, "a message of %u bytes; at most %llu are taken", reader->left,
			(unsigned long long)reader->limit);
	reader->message.len = 0;
	return NULL;
}

static struct err *finish_message(struct grpc_reader *reader, bool *go_on_ret)
{
	bool compressed = reader->prefix[0] == 1;

	reader->prefix_len = 0;
	if (!compressed) {
		*go_on_ret = reader->on_message(reader->user, &reader->message);
		if (reader->message.cap > KEPT_BYTES)
			buf_deinit(&reader->message);
		return NULL;
	}
	CLEANUP(buf_deinit) struct buf plain = {0};
	TRY(codec_decompress(reader->codec, reader->message.data, reader->message.len, (size_t)reader->limit, &plain));
	buf_deinit(&reader->message);
	*go_on_ret = reader->on_message(reader->user, &plain);
	return NULL;
}

struct err *grpc_reader_feed(struct grpc_reader *reader, const uint8_t *bytes, size_t len)
{
	bool go_on = true;

	for (size_t pos = 0; go_on;) {
		while (reader->prefix_len < GRPC_PREFIX_BYTES && pos < len) {
			reader->prefix[reader->prefix_len++] = bytes[pos++];
			if (reader->prefix_len == GRPC_PREFIX_BYTES)
				TRY(take_prefix(reader));
		}
		if (reader->prefix_len < GRPC_PREFIX_BYTES)
			break;
		size_t take = len - pos < reader->left ? len - pos : reader->left;
		TRY(buf_append(&reader->message, bytes + pos, take));
		pos += take;
		reader->left -= (uint32_t)take;
		if (reader->left > 0)
			break;
		TRY(finish_message(reader, &go_on));
	}
	return NULL;
}

struct err *grpc_reader_finish(const struct grpc_reader *reader)
{
	return reader->prefix_len > 0 ? err_new(ERR_FORMAT, "the body ends within a message") : NULL;
}

bool grpc_timeout_parse(const char *text, uint64_t *ms_ret)
{
	uint64_t number = 0;
	size_t digits = 0;

	while (text[digits] >= '0' && text[digits] <= '9' && digits <= TIMEOUT_DIGITS_MAX)
		number = number * 10 + (uint64_t)(text[digits++] - '0');
	if (digits == 0 || digits > TIMEOUT_DIGITS_MAX || text[digits] == 0 || text[digits + 1] != 0)
		return false;
	switch (text[digits]) {
	case 'H':
		*ms_ret = number * 3600000;
		return true;
	case 'M':
		*ms_ret = number * 60000;
		return true;
	case 'S':
		*ms_ret = number * 1000;
		return true;
	case 'm':
		*ms_ret = number;
		return true;
	case 'u':
		*ms_ret = (number + 999) / 1000;
		return true;
	case 'n':
		*ms_ret = (number + 999999) / 1000000;
		return true;
	default:
		return false;
	}
}

struct err *grpc_message_encode(const char *text, struct buf *ret)
{
	for (const char *c = text; *c; c++) {
		unsigned char byte = (unsigned char)*c;
		if (byte >= 0x20 && byte <= 0x7e && byte != '%')
			TRY(buf_append(ret, c, 1));
		else
			TRY(buf_printf(ret, "%%%02X", byte));
	}
	return buf_append(ret, "", 1);
}
