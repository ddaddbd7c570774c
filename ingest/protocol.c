// SPDX-License-Identifier: Apache-2.0
/*
 * Frames of cairn-worker, both directions: ingest/protocol.h has the layout of the stream; payloads are
 *
 *     hello     version u32
 *     progress  phase u8, done u64, total u64
 *     skipped   text
 *     result    flags u8 (1: debug only, 2: has debug), file ID 16 bytes, build ID (u8 length, bytes), Go build ID text,
 *               name text, size u64, machine u16, sources u32, builder version u32, table bytes u64,
 *               segments u16 x {file offset u64, vaddr u64, size u64, executable u8}, statistics text
 *     chunk     bytes
 *     needs     build ID, name text
 *     failed    code u8, text
 *     done      results u32
 *
 * A payload must be used up exactly: a byte too many is an error like a byte too few. The decoder keeps one frame (at most
 * PROTOCOL_FRAME_MAX) and one table. The table's buffer grows as chunks arrive, so a promise of 1 GiB costs nothing.
 */
#include "ingest/protocol.h"

#include "base/reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
	RESULT_DEBUG_ONLY = 1,
	RESULT_HAS_DEBUG = 2,
	RESULT_KERNEL = 4,
	RESULT_PACKED = 8,
	RESULT_TEXT = 16,
	RESULT_FLAGS = 31,
};

static unsigned flags_of(const struct protocol_result *result)
{
	return (result->debug_only ? RESULT_DEBUG_ONLY : 0u) | (result->has_debug ? RESULT_HAS_DEBUG : 0u) |
	       (result->kernel ? RESULT_KERNEL : 0u) | (result->packed ? RESULT_PACKED : 0u) | (result->has_text ? RESULT_TEXT : 0u);
}

const char *protocol_phase_name(enum protocol_phase phase)
{
	static const char *const names[PROTOCOL_PHASES] = {"starting", "unpacking", "reading", "writing"};

	return phase < PROTOCOL_PHASES ? names[phase] : "unknown";
}

/* ---------------------------------------------------------------------------------------- encoding */

static void put_uint(struct buf *out, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		buf_put_u8(out, (uint8_t)(value >> (8 * i)));
}

static void put_bytes(struct buf *out, const void *bytes, size_t len)
{
	if (len > 0)
		memcpy(out->data + out->len, bytes, len);
	out->len += len;
}

static void put_text(struct buf *out, const char *text, size_t max)
{
	size_t len = strnlen(text, max);

	put_uint(out, len, 2);
	put_bytes(out, text, len);
}

static void put_build_id(struct buf *out, const struct build_id *id)
{
	put_uint(out, id->len, 1);
	put_bytes(out, id->bytes, id->len);
}

/* Room for the largest payload of fixed parts, so that the put_ functions above cannot overrun. */
static struct err *frame_begin(struct buf *out, enum protocol_type type, size_t room, size_t *start_ret)
{
	TRY(buf_reserve(out, PROTOCOL_HEADER_BYTES + room));
	put_uint(out, type, 1);
	put_uint(out, 0, 4);
	*start_ret = out->len;
	return NULL;
}

static void frame_end(struct buf *out, size_t start)
{
	size_t len = out->len - start;

	for (unsigned i = 0; i < 4; i++)
		out->data[start - 4 + i] = (uint8_t)(len >> (8 * i));
}

struct err *protocol_put_hello(struct buf *out)
{
	size_t start;

	TRY(frame_begin(out, PROTOCOL_HELLO, 4, &start));
	put_uint(out, PROTOCOL_VERSION, 4);
	frame_end(out, start);
	return NULL;
}

struct err *protocol_put_progress(struct buf *out, const struct protocol_progress *progress)
{
	size_t start;

	TRY(frame_begin(out, PROTOCOL_PROGRESS, 17, &start));
	put_uint(out, progress->phase, 1);
	put_uint(out, progress->done, 8);
	put_uint(out, progress->total, 8);
	frame_end(out, start);
	return NULL;
}

struct err *protocol_put_skipped(struct buf *out, const char *text)
{
	size_t start;

	TRY(frame_begin(out, PROTOCOL_SKIPPED, 2 + PROTOCOL_TEXT_MAX, &start));
	put_text(out, text, PROTOCOL_TEXT_MAX);
	frame_end(out, start);
	return NULL;
}

static void put_segments(struct buf *out, const struct load_segments *segments)
{
	put_uint(out, segments->count, 2);
	for (size_t i = 0; i < segments->count; i++) {
		const struct load_segment *segment = &segments->items[i];
		put_uint(out, segment->foff, 8);
		put_uint(out, segment->vaddr, 8);
		put_uint(out, segment->size, 8);
		put_uint(out, segment->executable, 1);
	}
}

struct err *protocol_put_result(struct buf *out, const struct protocol_result *result)
{
	size_t room = 72 + FILEID_BYTES + BUILD_ID_MAX + GO_BUILD_ID_MAX + PROTOCOL_NAME_MAX + PROTOCOL_TEXT_MAX +
		      25 * LOAD_SEGMENTS_MAX;
	size_t start;

	if (result->segments.count > LOAD_SEGMENTS_MAX || result->build_id.len > BUILD_ID_MAX)
		return err_new(ERR_INVALID, "result: %zu segments, build ID of %u bytes", result->segments.count,
			result->build_id.len);
	TRY(frame_begin(out, PROTOCOL_RESULT, room, &start));
	put_uint(out, flags_of(result), 1);
	put_bytes(out, result->fileid.bytes, FILEID_BYTES);
	put_build_id(out, &result->build_id);
	put_text(out, result->go_build_id, GO_BUILD_ID_MAX);
	put_text(out, result->name, PROTOCOL_NAME_MAX);
	put_uint(out, result->size_bytes, 8);
	put_uint(out, result->elf_machine, 2);
	put_uint(out, result->sources, 4);
	put_uint(out, result->builder_version, 4);
	put_uint(out, result->table_bytes, 8);
	put_uint(out, result->has_text ? result->text_vaddr : 0, 8);
	put_segments(out, &result->segments);
	put_text(out, result->stats, PROTOCOL_TEXT_MAX);
	frame_end(out, start);
	return NULL;
}

struct err *protocol_put_chunk(struct buf *out, const void *bytes, size_t len)
{
	size_t start;

	if (len == 0 || len > PROTOCOL_CHUNK_BYTES)
		return err_new(ERR_INVALID, "chunk of %zu bytes", len);
	TRY(frame_begin(out, PROTOCOL_CHUNK, len, &start));
	put_bytes(out, bytes, len);
	frame_end(out, start);
	return NULL;
}

struct err *protocol_put_needs(struct buf *out, const struct protocol_needs *needs)
{
	size_t start;

	if (needs->build_id.len > BUILD_ID_MAX)
		return err_new(ERR_INVALID, "needs: build ID of %u bytes", needs->build_id.len);
	TRY(frame_begin(out, PROTOCOL_NEEDS, 3 + BUILD_ID_MAX + PROTOCOL_NAME_MAX, &start));
	put_build_id(out, &needs->build_id);
	put_text(out, needs->name, PROTOCOL_NAME_MAX);
	frame_end(out, start);
	return NULL;
}

struct err *protocol_put_failed(struct buf *out, enum err_code code, const char *message)
{
	size_t start;

	TRY(frame_begin(out, PROTOCOL_FAILED, 3 + PROTOCOL_TEXT_MAX, &start));
	put_uint(out, (uint64_t)code, 1);
	put_text(out, message, PROTOCOL_TEXT_MAX);
	frame_end(out, start);
	return NULL;
}

struct err *protocol_put_done(struct buf *out, uint32_t results)
{
	size_t start;

	TRY(frame_begin(out, PROTOCOL_DONE, 4, &start));
	put_uint(out, results, 4);
	frame_end(out, start);
	return NULL;
}

/* ---------------------------------------------------------------------------------------- decoding */

/* Into text[max + 1]; control characters become '?', so that names and reasons are one line wherever they are shown. */
static void get_text(struct reader *r, char *text, size_t max)
{
	size_t len = reader_u16(r);
	const uint8_t *bytes = len <= max ? reader_bytes(r, len) : NULL;

	if (!bytes) {
		reader_fail(r);
		len = 0;
	}
	for (size_t i = 0; i < len; i++)
		text[i] = (char)(bytes[i] < 0x20 || bytes[i] == 0x7f ? '?' : bytes[i]);
	text[len] = 0;
}

static void get_build_id(struct reader *r, struct build_id *ret)
{
	size_t len = reader_u8(r);
	const uint8_t *bytes = len <= BUILD_ID_MAX ? reader_bytes(r, len) : NULL;

	*ret = (struct build_id){0};
	if (!bytes) {
		reader_fail(r);
		return;
	}
	ret->len = (uint8_t)len;
	memcpy(ret->bytes, bytes, len);
}

static void get_segments(struct reader *r, struct load_segments *ret)
{
	size_t count = reader_u16(r);

	*ret = (struct load_segments){0};
	if (count > LOAD_SEGMENTS_MAX) {
		reader_fail(r);
		return;
	}
	ret->count = count;
	for (size_t i = 0; i < count; i++) {
		ret->items[i].foff = reader_u64(r);
		ret->items[i].vaddr = reader_u64(r);
		ret->items[i].size = reader_u64(r);
		ret->items[i].executable = reader_u8(r) != 0;
	}
}

static struct err *peer_error(const char *what)
{
	return err_new(ERR_PEER, "worker broke the protocol: %s", what);
}

/* Each on_ function reads one payload; what it left over is found by the caller. */

static struct err *on_hello(struct protocol_decoder *decoder, struct reader *r)
{
	uint32_t version = reader_u32(r);

	if (decoder->greeted)
		return peer_error("a second greeting");
	if (!r->failed && version != PROTOCOL_VERSION)
		return err_new(ERR_PEER, "worker speaks protocol version %u, not %d: another build of cairn-worker", version,
			PROTOCOL_VERSION);
	decoder->greeted = true;
	return NULL;
}

static struct err *on_progress(struct protocol_decoder *decoder, struct reader *r)
{
	struct protocol_progress progress = {0};
	unsigned phase = reader_u8(r);

	progress.done = reader_u64(r);
	progress.total = reader_u64(r);
	if (phase >= PROTOCOL_PHASES)
		return peer_error("unknown phase");
	if (++decoder->progressed > PROTOCOL_PROGRESS_MAX)
		return err_new(ERR_LIMIT, "worker sent more than %d progress frames", PROTOCOL_PROGRESS_MAX);
	progress.phase = (enum protocol_phase)phase;
	decoder->now = progress;
	if (!r->failed && decoder->handler->progress)
		decoder->handler->progress(decoder->handler->context, &progress);
	return NULL;
}

static struct err *on_skipped(struct protocol_decoder *decoder, struct reader *r)
{
	char text[PROTOCOL_TEXT_MAX + 1];

	get_text(r, text, PROTOCOL_TEXT_MAX);
	if (++decoder->skipped > PROTOCOL_SKIPPED_MAX)
		return err_new(ERR_LIMIT, "worker skipped more than %d members", PROTOCOL_SKIPPED_MAX);
	if (!r->failed && decoder->handler->skipped)
		decoder->handler->skipped(decoder->handler->context, text);
	return NULL;
}

static struct err *deliver(struct protocol_decoder *decoder)
{
	struct err *e = NULL;

	decoder->in_table = false;
	decoder->results++;
	if (decoder->handler->result)
		e = decoder->handler->result(decoder->handler->context, &decoder->result, &decoder->table);
	decoder->table.len = 0;
	return e;
}

static struct err *on_result(struct protocol_decoder *decoder, struct reader *r)
{
	struct protocol_result *result = &decoder->result;
	unsigned flags = reader_u8(r);
	const uint8_t *id = reader_bytes(r, FILEID_BYTES);

	*result = (struct protocol_result){0};
	result->debug_only = (flags & RESULT_DEBUG_ONLY) != 0;
	result->has_debug = (flags & RESULT_HAS_DEBUG) != 0;
	result->kernel = (flags & RESULT_KERNEL) != 0;
	result->packed = (flags & RESULT_PACKED) != 0;
	result->has_text = (flags & RESULT_TEXT) != 0;
	if (id)
		memcpy(result->fileid.bytes, id, FILEID_BYTES);
	get_build_id(r, &result->build_id);
	get_text(r, result->go_build_id, GO_BUILD_ID_MAX);
	get_text(r, result->name, PROTOCOL_NAME_MAX);
	result->size_bytes = reader_u64(r);
	result->elf_machine = reader_u16(r);
	result->sources = reader_u32(r);
	result->builder_version = reader_u32(r);
	result->table_bytes = reader_u64(r);
	result->text_vaddr = reader_u64(r);
	get_segments(r, &result->segments);
	get_text(r, result->stats, PROTOCOL_TEXT_MAX);
	if (r->failed || reader_left(r) != 0)
		return NULL; /* the caller says so */
	if (flags > RESULT_FLAGS)
		return peer_error("unknown flags of a result");
	if (decoder->results == PROTOCOL_RESULTS_MAX)
		return err_new(ERR_LIMIT, "worker gave more than %d files", PROTOCOL_RESULTS_MAX);
	if (result->table_bytes > decoder->max_table_bytes)
		return err_new(ERR_LIMIT, "table of %" PRIu64 " bytes is over max_table_bytes %" PRIu64, result->table_bytes,
			decoder->max_table_bytes);
	decoder->in_table = true;
	return result->table_bytes == 0 ? deliver(decoder) : NULL;
}

static struct err *on_chunk(struct protocol_decoder *decoder, struct reader *r)
{
	size_t len = reader_left(r);

	if (!decoder->in_table)
		return peer_error("a chunk outside a table");
	if (len == 0 || len > decoder->result.table_bytes - decoder->table.len)
		return peer_error("a chunk that does not fit its table");
	TRY(buf_append(&decoder->table, reader_bytes(r, len), len));
	return decoder->table.len == decoder->result.table_bytes ? deliver(decoder) : NULL;
}

static struct err *on_needs(struct protocol_decoder *decoder, struct reader *r)
{
	get_build_id(r, &decoder->needs.build_id);
	get_text(r, decoder->needs.name, PROTOCOL_NAME_MAX);
	if (!r->failed && decoder->needs.build_id.len == 0 && decoder->needs.name[0] == 0)
		return peer_error("it needs a file without a name");
	decoder->end = PROTOCOL_END_NEEDS;
	return NULL;
}

static struct err *on_failed(struct protocol_decoder *decoder, struct reader *r)
{
	unsigned code = reader_u8(r);

	get_text(r, decoder->failure.message, PROTOCOL_TEXT_MAX);
	if (!r->failed && (code > ERR_INTERNAL || decoder->failure.message[0] == 0))
		return peer_error("a failure without a reason");
	decoder->failure.code = (enum err_code)code;
	decoder->end = PROTOCOL_END_FAILED;
	return NULL;
}

static struct err *on_done(struct protocol_decoder *decoder, struct reader *r)
{
	uint32_t results = reader_u32(r);

	if (!r->failed && results != decoder->results)
		return peer_error("it counted other results than it sent");
	decoder->end = PROTOCOL_END_DONE;
	return NULL;
}

static struct err *dispatch(struct protocol_decoder *decoder, unsigned type, struct reader *r)
{
	switch (type) {
	case PROTOCOL_HELLO:
		return on_hello(decoder, r);
	case PROTOCOL_PROGRESS:
		return on_progress(decoder, r);
	case PROTOCOL_SKIPPED:
		return on_skipped(decoder, r);
	case PROTOCOL_RESULT:
		return on_result(decoder, r);
	case PROTOCOL_CHUNK:
		return on_chunk(decoder, r);
	case PROTOCOL_NEEDS:
		return on_needs(decoder, r);
	case PROTOCOL_FAILED:
		return on_failed(decoder, r);
	case PROTOCOL_DONE:
		return on_done(decoder, r);
	default:
		return peer_error("unknown type of frame");
	}
}

static struct err *on_frame(struct protocol_decoder *decoder, unsigned type, const uint8_t *payload, size_t len)
{
	if (!decoder->greeted && type != PROTOCOL_HELLO)
		return peer_error("no greeting");
	if (decoder->in_table && type != PROTOCOL_CHUNK && type != PROTOCOL_PROGRESS && type != PROTOCOL_FAILED)
		return peer_error("a frame in the middle of a table");
	struct reader r = reader_init(payload, len, false, "worker");

	TRY(dispatch(decoder, type, &r));
	if (r.failed || reader_left(&r) != 0)
		return err_new(ERR_PEER, "worker broke the protocol: frame of type %u has a wrong length %zu", type, len);
	return NULL;
}

void protocol_decoder_init(struct protocol_decoder *decoder, const struct protocol_handler *handler, uint64_t max_table_bytes)
{
	*decoder = (struct protocol_decoder){
		.handler = handler, .max_table_bytes = max_table_bytes < BUF_MAX ? max_table_bytes : BUF_MAX};
}

/* Moves up to @p want bytes in all into the frame; true when they are there. */
static struct err *frame_fill(struct protocol_decoder *decoder, size_t want, struct reader *in, bool *full_ret)
{
	size_t missing = want - decoder->frame.len;
	size_t take = missing < reader_left(in) ? missing : reader_left(in);

	TRY(buf_append(&decoder->frame, reader_bytes(in, take), take));
	*full_ret = take == missing;
	return NULL;
}

struct err *protocol_decode(struct protocol_decoder *decoder, const void *bytes, size_t len)
{
	struct reader in = reader_init(bytes, len, false, "worker");

	while (reader_left(&in) > 0) {
		bool full;

		if (decoder->end != PROTOCOL_END_NONE)
			return peer_error("bytes after the last frame");
		if (decoder->frame.len < PROTOCOL_HEADER_BYTES) {
			TRY(frame_fill(decoder, PROTOCOL_HEADER_BYTES, &in, &full));
			if (!full)
				return NULL;
		}
		struct reader head = reader_init(decoder->frame.data, PROTOCOL_HEADER_BYTES, false, "worker");
		unsigned type = reader_u8(&head);
		size_t payload = reader_u32(&head);
		if (payload > PROTOCOL_FRAME_MAX)
			return err_new(ERR_PEER, "worker broke the protocol: frame of %zu bytes", payload);
		TRY(frame_fill(decoder, PROTOCOL_HEADER_BYTES + payload, &in, &full));
		if (!full)
			return NULL;
		decoder->frame.len = 0;
		TRY(on_frame(decoder, type, decoder->frame.data + PROTOCOL_HEADER_BYTES, payload));
	}
	return NULL;
}

struct err *protocol_decode_finish(const struct protocol_decoder *decoder)
{
	if (decoder->frame.len > 0)
		return err_new(ERR_PEER, "worker's output ends in the middle of a frame");
	if (decoder->in_table && decoder->end == PROTOCOL_END_NONE)
		return err_new(ERR_PEER, "worker's output ends after %zu of %" PRIu64 " bytes of a table", decoder->table.len,
			decoder->result.table_bytes);
	if (decoder->end == PROTOCOL_END_NONE)
		return err_new(ERR_PEER, "worker's output ends without a last word");
	return NULL;
}

void protocol_decoder_deinit(struct protocol_decoder *decoder)
{
	buf_deinit(&decoder->frame);
	buf_deinit(&decoder->table);
}
