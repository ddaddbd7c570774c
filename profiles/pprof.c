// SPDX-License-Identifier: Apache-2.0
/*
 * pprof's profile.proto (github.com/google/pprof, proto/profile.proto), gzip-compressed as its tools expect.
 *
 * IDs are our numbers plus 1, since 0 means "none" there. A mapping covers every address: pprof looks a location up by its
 * mapping_id, but rejects one whose address lies outside the mapping's limits. has_functions and its kin are set on every mapping, also where
 * names are missing: without them pprof would look for local binaries and symbolize again, with the wrong files.
 * Why they are missing stands in the comments (`go tool pprof -comments`), a line a file and reason.
 */
#include "base/codec.h"
#include "profiles/frame_notes.h"
#include "proto/wire.h"

/* Field numbers of Profile. */
enum {
	P_SAMPLE_TYPE = 1,
	P_SAMPLE = 2,
	P_MAPPING = 3,
	P_LOCATION = 4,
	P_FUNCTION = 5,
	P_STRING = 6,
	P_TIME = 9,
	P_DURATION = 10,
	P_PERIOD_TYPE = 11,
	P_PERIOD = 12,
	P_COMMENT = 13,
};

enum { VARINT_FIELDS_MAX = 12, GZIP_LEVEL = 6 };

/* Room for VARINT_FIELDS_MAX small fields put one after the other. */
static struct err *reserve_fields(struct buf *out)
{
	return buf_reserve(out, (size_t)VARINT_FIELDS_MAX * (WIRE_HEAD_MAX + WIRE_VARINT_MAX));
}

static struct err *write_value_type(struct buf *out, uint32_t field, struct profile_value_type type)
{
	CLEANUP(buf_deinit) struct buf body = {0};

	TRY(reserve_fields(&body));
	wire_put_field(&body, 1, type.type);
	wire_put_field(&body, 2, type.unit);
	return wire_append_bytes(out, field, body.data, body.len);
}

static struct err *write_samples(const struct profile *profile, struct buf *out)
{
	CLEANUP(buf_deinit) struct buf body = {0};
	CLEANUP(freep) uint64_t *stack = malloc(PROFILE_MAX_DEPTH * sizeof(*stack));

	if (!stack)
		return err_nomem();
	for (uint32_t i = 0; i < profile->node_count; i++) {
		uint64_t value = profile->nodes[i].self;
		size_t depth = 0;
		if (value == 0)
			continue;
		for (uint32_t n = i; n != PROFILE_NONE && depth < PROFILE_MAX_DEPTH; n = profile->nodes[n].parent)
			stack[depth++] = (uint64_t)profile->nodes[n].location + 1;
		body.len = 0;
		TRY(wire_append_packed_u64(&body, 1, stack, depth));
		TRY(wire_append_packed_u64(&body, 2, &value, 1));
		TRY(wire_append_bytes(out, P_SAMPLE, body.data, body.len));
	}
	return NULL;
}

static struct err *write_mappings(struct profile *profile, struct buf *out)
{
	CLEANUP(buf_deinit) struct buf body = {0};

	for (uint32_t i = 0; i < profile->mapping_count; i++) {
		const struct profile_mapping *mapping = &profile->mappings[i];
		char id[BUILD_ID_HEX_SIZE];
		uint32_t id_text;
		build_id_format(&mapping->build_id, id);
		if (mapping->build_id.len == 0)
			fileid_format_hex(&mapping->file_id, id);
		TRY(profile_text(profile, id, strlen(id), &id_text));
		body.len = 0;
		TRY(reserve_fields(&body));
		wire_put_field(&body, 1, (uint64_t)i + 1);
		wire_put_field(&body, 3, UINT64_MAX);
		wire_put_field(&body, 5, mapping->name);
		wire_put_field(&body, 6, id_text);
		for (uint32_t flag = 7; flag <= 10; flag++)
			wire_put_field(&body, flag, 1);
		TRY(wire_append_bytes(out, P_MAPPING, body.data, body.len));
	}
	return NULL;
}

static struct err *write_line(const struct profile_frame *frame, struct buf *location)
{
	CLEANUP(buf_deinit) struct buf body = {0};

	TRY(reserve_fields(&body));
	wire_put_field(&body, 1, (uint64_t)frame->function + 1);
	wire_put_field(&body, 2, frame->line);
	wire_put_field(&body, 3, frame->column);
	return wire_append_bytes(location, 4, body.data, body.len);
}

static struct err *write_locations(const struct profile *profile, struct buf *out)
{
	CLEANUP(buf_deinit) struct buf body = {0};

	for (uint32_t i = 0; i < profile->location_count; i++) {
		const struct profile_location *location = &profile->locations[i];
		body.len = 0;
		TRY(reserve_fields(&body));
		wire_put_field(&body, 1, (uint64_t)i + 1);
		wire_put_field(&body, 2, location->mapping == PROFILE_NONE ? 0 : (uint64_t)location->mapping + 1);
		wire_put_field(&body, 3, location->vaddr);
		for (uint32_t f = 0; f < location->frame_count; f++)
			TRY(write_line(&profile->frames[location->first_frame + f], &body));
		TRY(wire_append_bytes(out, P_LOCATION, body.data, body.len));
	}
	return NULL;
}

static struct err *write_functions(const struct profile *profile, struct buf *out)
{
	CLEANUP(buf_deinit) struct buf body = {0};

	for (uint32_t i = 0; i < profile->function_count; i++) {
		const struct profile_function *function = &profile->functions[i];
		body.len = 0;
		TRY(reserve_fields(&body));
		wire_put_field(&body, 1, (uint64_t)i + 1);
		wire_put_field(&body, 2, function->name);
		wire_put_field(&body, 3, function->symbol);
		wire_put_field(&body, 4, function->file);
		wire_put_field(&body, 5, function->start_line);
		TRY(wire_append_bytes(out, P_FUNCTION, body.data, body.len));
	}
	return NULL;
}

static struct err *write_comments(struct profile *profile, struct buf *out)
{
	CLEANUP(frame_notes_deinit) struct frame_notes notes = {0};
	CLEANUP(buf_deinit) struct buf line = {0};
	uint32_t text;

	TRY(frame_notes_make(profile, &notes));
	for (uint32_t i = 0; i < notes.row_count; i++) {
		const struct frame_unresolved *row = &notes.rows[i];
		const char *file = row->mapping == PROFILE_NONE ? "" : intern_text(&profile->text, profile->mappings[row->mapping].name);
		line.len = 0;
		TRY(buf_printf(&line, "%s%s%u frames without symbols: %s", file, file[0] ? ": " : "", row->frames,
			intern_text(&profile->text, row->reason)));
		TRY(profile_text(profile, (const char *)line.data, line.len, &text));
		TRY(reserve_fields(out));
		wire_put_field(out, P_COMMENT, text);
	}
	return NULL;
}

static struct err *write_tail(const struct profile *profile, struct buf *out)
{
	for (uint32_t i = 0; i < profile->text.count; i++) {
		const char *text = intern_text(&profile->text, i);
		TRY(wire_append_bytes(out, P_STRING, text, strlen(text)));
	}
	TRY(reserve_fields(out));
	wire_put_field(out, P_TIME, profile->from_unix_nano);
	wire_put_field(out, P_DURATION, profile->to_unix_nano - profile->from_unix_nano);
	wire_put_field(out, P_PERIOD, (uint64_t)profile->period);
	return write_value_type(out, P_PERIOD_TYPE, profile->period_type);
}

struct err *profile_write_pprof(struct profile *profile, struct buf *ret)
{
	CLEANUP(buf_deinit) struct buf out = {0};

	TRY(write_value_type(&out, P_SAMPLE_TYPE, profile->sample_type));
	TRY(write_samples(profile, &out));
	TRY(write_mappings(profile, &out));
	TRY(write_locations(profile, &out));
	TRY(write_functions(profile, &out));
	TRY(write_comments(profile, &out));
	TRY(write_tail(profile, &out));
	return codec_compress_gzip(out.data, out.len, GZIP_LEVEL, ret);
}
