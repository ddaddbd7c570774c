// SPDX-License-Identifier: Apache-2.0
/*
 * The protobuf answer, in one pass. Strings, functions and frames are top-level fields, appended the moment they are first
 * needed; their index is how many of their kind came before. A module's results are columns of indexes, kept until its end
 * because a packed field begins with its length. Nothing is written twice and nothing is moved.
 * What a frame is made of is numbered by the Cairn table already (function_id, file_id), so finding an equal one costs three hash
 * lookups and no comparison of texts. Texts of different tables are not compared.
 */
#include "api/answer_internal.h"
#include "base/random.h"
#include "proto/symbolize.h"
#include "proto/wire.h"

#include <string.h>

/* Submessages of a few varints of 32 bits: their length fits one byte. */
enum { SMALL_MESSAGE_BYTES = 64, FRAMES_MIN = 1024 };

void protobuf_state_deinit(struct protobuf_state *state)
{
	hmap_deinit(&state->functions);
	hmap_deinit(&state->files);
	free(state->frames);
	free(state->frame_slots);
	buf_deinit(&state->head);
	buf_deinit(&state->result_status);
	free(state->frame_counts);
	free(state->offsets);
	free(state->indexes);
}

/* The empty string is number 0 of every answer. */
struct err *protobuf_answer_begin(struct api_answer *answer)
{
	answer->protobuf.strings = 1;
	return wire_append_bytes(&answer->out, PROTO_RESPONSE_STRINGS, "", 0);
}

static struct err *append_text(struct buf *out, uint32_t field, const char *text)
{
	return wire_append_bytes(out, field, text, strlen(text));
}

static struct err *append_symbols(struct buf *out, const struct api_module_head *head)
{
	CLEANUP(buf_deinit) struct buf message = {0};

	TRY(append_text(&message, PROTO_SYMBOLS_SOURCE, head->source));
	TRY(append_text(&message, PROTO_SYMBOLS_KIND, head->kind));
	return wire_append_bytes(out, PROTO_MODULE_SYMBOLS, message.data, message.len);
}

struct err *protobuf_answer_module(struct api_answer *answer, const struct api_module_head *head)
{
	struct protobuf_state *state = &answer->protobuf;
	struct buf *out = &state->head;

	hmap_deinit(&state->functions);
	hmap_deinit(&state->files);
	state->result_status.len = state->result_count = state->index_count = 0;
	out->len = 0;
	if (head->has_file_id)
		TRY(wire_append_bytes(out, PROTO_MODULE_FILE_ID, head->file_id.bytes, FILEID_BYTES));
	if (head->build_id.len)
		TRY(wire_append_bytes(out, PROTO_MODULE_BUILD_ID, head->build_id.bytes, head->build_id.len));
	TRY(buf_reserve(out, SMALL_MESSAGE_BYTES));
	wire_put_field(out, PROTO_MODULE_STATUS, (uint64_t)head->status);
	wire_put_field(out, PROTO_MODULE_RETRY_AFTER_S, head->retry_after_s);
	if (head->reason[0])
		TRY(append_text(out, PROTO_MODULE_REASON, head->reason));
	return head->source ? append_symbols(out, head) : NULL;
}

static struct err *add_string(struct api_answer *answer, const char *bytes, size_t len, uint32_t *ret)
{
	TRY(wire_append_bytes(&answer->out, PROTO_RESPONSE_STRINGS, bytes, len));
	*ret = answer->protobuf.strings++;
	return NULL;
}

/* Appends the aliases as strings and their indexes, already packed, to @p packed. */
static struct err *add_aliases(struct api_answer *answer, uint32_t cursor, struct buf *packed)
{
	const char *alias;
	uint32_t index;

	while ((alias = table_next_alias(answer->table, &cursor)) != NULL) {
		TRY(add_string(answer, alias, strlen(alias), &index));
		TRY(buf_reserve(packed, WIRE_VARINT_MAX));
		wire_put_varint(packed, index);
	}
	return NULL;
}

static struct err *add_function(struct api_answer *answer, const struct table_frame *frame, uint32_t *ret)
{
	CLEANUP(buf_deinit) struct buf message = {0}, aliases = {0};
	const struct api_text *text;
	uint32_t name, symbol;
	size_t symbol_len = strlen(frame->function);

	TRY(api_names_function(answer->names, frame, answer->demangle, &text));
	TRY(add_string(answer, text->bytes, text->len, &name));
	symbol = name;
	if (symbol_len != text->len || memcmp(frame->function, text->bytes, symbol_len) != 0)
		TRY(add_string(answer, frame->function, symbol_len, &symbol));
	if (!frame->inlined && frame->aliases)
		TRY(add_aliases(answer, frame->aliases, &aliases));
	TRY(buf_reserve(&message, SMALL_MESSAGE_BYTES));
	wire_put_field(&message, PROTO_FUNCTION_NAME, name);
	wire_put_field(&message, PROTO_FUNCTION_SYMBOL, symbol);
	wire_put_field(&message, PROTO_FUNCTION_START_LINE, frame->start_line);
	if (aliases.len)
		TRY(wire_append_bytes(&message, PROTO_FUNCTION_ALIASES, aliases.data, aliases.len));
	TRY(wire_append_bytes(&answer->out, PROTO_RESPONSE_FUNCTIONS, message.data, message.len));
	*ret = answer->protobuf.function_count++;
	return NULL;
}

static struct err *find_function(struct api_answer *answer, const struct table_frame *frame, uint32_t *ret)
{
	uint32_t aliases = frame->inlined ? 0 : frame->aliases;
	uint64_t key = (uint64_t)aliases << 32 | frame->function_id, index;

	if (!hmap_get(&answer->protobuf.functions, key, &index)) {
		uint32_t added;
		TRY(add_function(answer, frame, &added));
		index = added;
		TRY(hmap_set(&answer->protobuf.functions, key, index));
	}
	*ret = (uint32_t)index;
	return NULL;
}

static struct err *find_file(struct api_answer *answer, const struct table_frame *frame, uint32_t *ret)
{
	uint64_t index = 0;

	if (frame->base[0] && !hmap_get(&answer->protobuf.files, frame->file_id, &index)) {
		const char *parts[3] = {frame->dir, api_names_separator(frame), frame->base};
		TRY(wire_append_joined(&answer->out, PROTO_RESPONSE_STRINGS, parts));
		index = answer->protobuf.strings++;
		TRY(hmap_set(&answer->protobuf.files, frame->file_id, index));
	}
	*ret = (uint32_t)index;
	return NULL;
}

static size_t frame_home(const struct protobuf_state *state, const struct frame_key *key)
{
	return (size_t)digest_xxh3_64(key, sizeof(*key)) & state->slot_mask;
}

static struct err *grow_frames(struct protobuf_state *state)
{
	uint32_t cap = state->frame_cap ? state->frame_cap * 2 : FRAMES_MIN;
	struct frame_key *frames = realloc(state->frames, cap * sizeof(*frames));
	if (!frames)
		return err_nomem();
	state->frames = frames;
	uint32_t *slots = calloc((size_t)cap * 2, sizeof(*slots));
	if (!slots)
		return err_nomem();
	free(state->frame_slots);
	state->frame_slots = slots;
	state->frame_cap = cap;
	state->slot_mask = (size_t)cap * 2 - 1;
	for (uint32_t i = 0; i < state->frame_count; i++) {
		size_t slot = frame_home(state, &frames[i]);
		while (slots[slot])
			slot = (slot + 1) & state->slot_mask;
		slots[slot] = i + 1;
	}
	return NULL;
}

static struct err *append_frame(struct buf *out, const struct frame_key *key)
{
	size_t len = wire_field_size(key->function) + wire_field_size(key->file) + wire_field_size(key->line) +
		     wire_field_size(key->column) + wire_field_size(key->inlined);

	TRY(buf_reserve(out, SMALL_MESSAGE_BYTES));
	wire_put_tag(out, PROTO_RESPONSE_FRAMES, WIRE_LEN);
	wire_put_varint(out, len);
	wire_put_field(out, PROTO_FRAME_FUNCTION, key->function);
	wire_put_field(out, PROTO_FRAME_FILE, key->file);
	wire_put_field(out, PROTO_FRAME_LINE, key->line);
	wire_put_field(out, PROTO_FRAME_COLUMN, key->column);
	wire_put_field(out, PROTO_FRAME_INLINED, key->inlined);
	return NULL;
}

static struct err *find_frame(struct api_answer *answer, const struct table_frame *frame, uint32_t *ret)
{
	struct protobuf_state *state = &answer->protobuf;
	struct frame_key key = {.line = frame->line, .column = frame->column, .inlined = frame->inlined,
		.seed = (uint32_t)random_process_seed()};

	TRY(find_function(answer, frame, &key.function));
	TRY(find_file(answer, frame, &key.file));
	if (state->frame_count == state->frame_cap)
		TRY(grow_frames(state));
	size_t slot = frame_home(state, &key);
	for (; state->frame_slots[slot]; slot = (slot + 1) & state->slot_mask) {
		uint32_t index = state->frame_slots[slot] - 1;
		if (memcmp(&state->frames[index], &key, sizeof(key)) == 0) {
			*ret = index;
			return NULL;
		}
	}
	TRY(append_frame(&answer->out, &key));
	state->frames[state->frame_count] = key;
	*ret = state->frame_count++;
	state->frame_slots[slot] = *ret + 1;
	return NULL;
}

static struct err *grow_columns(struct protobuf_state *state, size_t frames)
{
	if (state->result_count == state->result_cap) {
		size_t cap = state->result_cap ? state->result_cap * 2 : FRAMES_MIN;
		uint32_t *counts = realloc(state->frame_counts, cap * sizeof(*counts));
		if (!counts)
			return err_nomem();
		state->frame_counts = counts;
		uint64_t *offsets = realloc(state->offsets, cap * sizeof(*offsets));
		if (!offsets)
			return err_nomem();
		state->offsets = offsets;
		state->result_cap = cap;
	}
	if (state->index_cap - state->index_count >= frames)
		return NULL;
	size_t cap = state->index_cap * 2 + frames + FRAMES_MIN;
	uint32_t *indexes = realloc(state->indexes, cap * sizeof(*indexes));
	if (!indexes)
		return err_nomem();
	state->indexes = indexes;
	state->index_cap = cap;
	return NULL;
}

struct err *protobuf_answer_result(struct api_answer *answer, enum api_result_status status,
	const struct table_frame *frames, size_t count)
{
	struct protobuf_state *state = &answer->protobuf;

	TRY(grow_columns(state, count));
	TRY(buf_reserve(&state->result_status, 1));
	for (size_t i = 0; i < count; i++)
		TRY(find_frame(answer, &frames[i], &state->indexes[state->index_count + i]));
	buf_put_u8(&state->result_status, (uint8_t)status);
	state->index_count += count;
	state->frame_counts[state->result_count] = (uint32_t)count;
	state->offsets[state->result_count++] = count ? frames[count - 1].offset : 0;
	return NULL;
}

static size_t packed_max(size_t count, size_t each)
{
	return count ? WIRE_HEAD_MAX + count * each : 0;
}

/* The columns are put behind the head, and both into the answer as one field. */
struct err *protobuf_answer_module_end(struct api_answer *answer)
{
	struct protobuf_state *state = &answer->protobuf;
	struct buf *message = &state->head;

	TRY(buf_reserve(message, packed_max(state->result_count, 1 + 5 + 10) + packed_max(state->index_count, 5)));
	if (state->result_count)
		TRY(wire_append_bytes(message, PROTO_MODULE_RESULT_STATUS, state->result_status.data, state->result_count));
	TRY(wire_append_packed_u32(message, PROTO_MODULE_FRAME_COUNT, state->frame_counts, state->result_count));
	TRY(wire_append_packed_u64(message, PROTO_MODULE_FUNCTION_OFFSET, state->offsets, state->result_count));
	TRY(wire_append_packed_u32(message, PROTO_MODULE_FRAMES, state->indexes, state->index_count));
	return wire_append_bytes(&answer->out, PROTO_RESPONSE_MODULES, message->data, message->len);
}
