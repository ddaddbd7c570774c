// SPDX-License-Identifier: Apache-2.0
/*
 * Reading and writing by one table a message: field number, kind, offset of the member. The columns of Definitions and Samples,
 * where nearly all bytes are, are not read here but walked in place by who takes them in (profiles/stream*.c); what is here
 * runs once an envelope or once a definition.
 */
#include "proto/agent.h"

#include <stddef.h>

enum kind { U32, U64, FIXED64, BOOL, SPAN };

struct member {
	uint32_t field;
	enum kind kind;
	size_t offset;
};

#define MEMBER(field, kind, type, name) {field, kind, offsetof(struct type, name)}

static void store(const struct member *member, const struct wire_field *field, void *ret)
{
	uint8_t *at = (uint8_t *)ret + member->offset;

	switch (member->kind) {
	case U32:
		*(uint32_t *)at = field->value > UINT32_MAX ? UINT32_MAX : (uint32_t)field->value;
		break;
	case U64:
	case FIXED64:
		*(uint64_t *)at = field->value;
		break;
	case BOOL:
		*(bool *)at = field->value != 0;
		break;
	case SPAN:
		*(struct wire_span *)at = field->bytes;
		break;
	}
}

static bool is_wire_type(enum kind kind, uint32_t type)
{
	return type == (kind == SPAN ? WIRE_LEN : kind == FIXED64 ? WIRE_FIXED64 : WIRE_VARINT);
}

/* Fills the members that the message has; a field of another wire type is skipped like an unknown one. */
static bool read_members(struct reader *r, const struct member *members, size_t count, void *ret)
{
	struct wire_field field;

	while (wire_next(r, &field))
		for (size_t i = 0; i < count; i++)
			if (members[i].field == field.number && is_wire_type(members[i].kind, field.type))
				store(&members[i], &field, ret);
	return !r->failed;
}

static struct err *read_message(struct wire_span message, const char *place, const struct member *members, size_t count, void *ret)
{
	struct reader r = wire_reader(message, place);

	return read_members(&r, members, count, ret) ? NULL : reader_error(&r, "malformed message");
}

static struct err *write_members(struct buf *out, const struct member *members, size_t count, const void *from)
{
	for (size_t i = 0; i < count; i++) {
		const uint8_t *at = (const uint8_t *)from + members[i].offset;
		const struct wire_span *span = (const struct wire_span *)at;

		TRY(buf_reserve(out, WIRE_HEAD_MAX + WIRE_VARINT_MAX));
		switch (members[i].kind) {
		case U32:
			wire_put_field(out, members[i].field, *(const uint32_t *)at);
			break;
		case U64:
			wire_put_field(out, members[i].field, *(const uint64_t *)at);
			break;
		case FIXED64:
			wire_put_tag(out, members[i].field, WIRE_FIXED64);
			memcpy(out->data + out->len, at, 8);
			out->len += 8;
			break;
		case BOOL:
			wire_put_field(out, members[i].field, *(const bool *)at);
			break;
		case SPAN:
			if (span->len > 0)
				TRY(wire_append_bytes(out, members[i].field, span->bytes, span->len));
			break;
		}
	}
	return NULL;
}

/* The next field @p number of a message whose other fields are skipped. */
static bool next_span(struct reader *r, uint32_t number, struct wire_span *ret)
{
	struct wire_field field;

	while (wire_next(r, &field)) {
		if (field.number == number && field.type == WIRE_LEN) {
			*ret = field.bytes;
			return true;
		}
	}
	return false;
}

/* A submessage of a repeated field; a malformed one fails @p r. */
static bool next_message(struct reader *r, uint32_t number, const struct member *members, size_t count, void *ret)
{
	struct wire_span span;

	if (!next_span(r, number, &span))
		return false;
	struct reader sub = wire_reader(span, r->place);
	if (!read_members(&sub, members, count, ret))
		reader_fail(r);
	return !r->failed;
}

/* Wraps @p out's bytes from @p start on, whose length was not known before, as field @p field. */
static struct err *wrap_field(struct buf *out, size_t start, uint32_t field)
{
	size_t len = out->len - start;
	size_t head = wire_varint_size((uint64_t)field << 3 | WIRE_LEN) + wire_varint_size(len);

	TRY(buf_reserve(out, head));
	memmove(out->data + start + head, out->data + start, len);
	out->len = start;
	wire_put_tag(out, field, WIRE_LEN);
	wire_put_varint(out, len);
	out->len += len;
	return NULL;
}

static struct err *write_field(struct buf *out, uint32_t field, const struct member *members, size_t count, const void *from)
{
	size_t start = out->len;

	TRY(write_members(out, members, count, from));
	return wrap_field(out, start, field);
}

/* -------------------------------------------------------------------------------------- envelopes */

struct err *agent_envelope_read(struct wire_span message, struct agent_envelope *ret)
{
	struct reader r = wire_reader(message, "envelope");
	struct agent_envelope envelope = {0};
	struct wire_field field;

	while (wire_next(&r, &field)) {
		if (field.number == 1 && field.type == WIRE_VARINT)
			envelope.sequence = field.value;
		if (field.number >= AGENT_HELLO && field.number <= AGENT_DEBUG_REPLY && field.type == WIRE_LEN) {
			envelope.body = (enum agent_body)field.number;
			envelope.bytes = field.bytes;
		}
	}
	if (r.failed)
		return reader_error(&r, "malformed message");
	*ret = envelope;
	return NULL;
}

struct err *server_envelope_read(struct wire_span message, struct server_envelope *ret)
{
	struct reader r = wire_reader(message, "envelope");
	struct server_envelope envelope = {0};
	struct wire_field field;

	while (wire_next(&r, &field)) {
		if (field.number >= SERVER_WELCOME && field.number <= SERVER_DEBUG_REQUEST && field.type == WIRE_LEN) {
			envelope.body = (enum server_body)field.number;
			envelope.bytes = field.bytes;
		}
	}
	if (r.failed)
		return reader_error(&r, "malformed message");
	*ret = envelope;
	return NULL;
}

struct err *agent_envelope_write(struct buf *out, uint64_t sequence, enum agent_body body, const struct buf *bytes)
{
	TRY(buf_reserve(out, WIRE_HEAD_MAX));
	wire_put_field(out, 1, sequence);
	return wire_append_bytes(out, body, bytes->data, bytes->len);
}

struct err *server_envelope_write(struct buf *out, enum server_body body, const struct buf *bytes)
{
	return wire_append_bytes(out, body, bytes->data, bytes->len);
}

/* -------------------------------------------------------------------------------------- the agent's */

static const struct member hello_members[] = {
	MEMBER(1, SPAN, agent_hello, instance),
	MEMBER(2, SPAN, agent_hello, version),
	MEMBER(3, SPAN, agent_hello, host_name),
	MEMBER(4, SPAN, agent_hello, host_id),
	MEMBER(5, SPAN, agent_hello, kernel),
	MEMBER(6, SPAN, agent_hello, machine),
	MEMBER(7, U32, agent_hello, cpus),
};
static const struct member label_members[] = {
	MEMBER(1, SPAN, agent_label, key),
	MEMBER(2, SPAN, agent_label, value),
};

struct err *agent_hello_read(struct wire_span message, struct agent_hello *ret)
{
	*ret = (struct agent_hello){.labels = message};
	return read_message(message, "hello", hello_members, ARRAY_SIZE(hello_members), ret);
}

bool agent_label_next(struct reader *r, struct agent_label *ret)
{
	*ret = (struct agent_label){0};
	return next_message(r, 8, label_members, ARRAY_SIZE(label_members), ret);
}

struct err *agent_hello_write(struct buf *out, const struct agent_hello *hello, const struct agent_label *labels, size_t count)
{
	TRY(write_members(out, hello_members, ARRAY_SIZE(hello_members), hello));
	for (size_t i = 0; i < count; i++)
		TRY(write_field(out, 8, label_members, ARRAY_SIZE(label_members), &labels[i]));
	return NULL;
}

static const struct member status_members[] = {
	MEMBER(1, FIXED64, agent_status, time_unix_nano),
	MEMBER(2, U64, agent_status, cpu_user_ns),
	MEMBER(3, U64, agent_status, cpu_system_ns),
	MEMBER(4, U64, agent_status, bpf_ns),
	MEMBER(5, U64, agent_status, memory_bytes),
	MEMBER(6, U64, agent_status, bpf_map_bytes),
	MEMBER(7, U64, agent_status, samples),
	MEMBER(8, U64, agent_status, queued_bytes),
	MEMBER(9, U64, agent_status, spooled_bytes),
};
enum { STATUS_LOSS = 10, STATUS_CUT = 11 };
static const struct member loss_members[] = {
	MEMBER(1, SPAN, agent_loss, reason),
	MEMBER(2, U64, agent_loss, count),
};

struct err *agent_status_read(struct wire_span message, struct agent_status *ret)
{
	*ret = (struct agent_status){.losses = message};
	return read_message(message, "status", status_members, ARRAY_SIZE(status_members), ret);
}

bool agent_loss_next(struct reader *r, struct agent_loss *ret)
{
	*ret = (struct agent_loss){0};
	return next_message(r, STATUS_LOSS, loss_members, ARRAY_SIZE(loss_members), ret);
}

bool agent_cut_next(struct reader *r, struct agent_loss *ret)
{
	*ret = (struct agent_loss){.is_cut = true};
	return next_message(r, STATUS_CUT, loss_members, ARRAY_SIZE(loss_members), ret);
}

struct err *agent_status_write(struct buf *out, const struct agent_status *status, const struct agent_loss *losses, size_t count)
{
	TRY(write_members(out, status_members, ARRAY_SIZE(status_members), status));
	for (size_t i = 0; i < count; i++)
		TRY(write_field(out, losses[i].is_cut ? STATUS_CUT : STATUS_LOSS, loss_members, ARRAY_SIZE(loss_members), &losses[i]));
	return NULL;
}

struct err *agent_debug_unsupported_write(struct buf *out, uint64_t id)
{
	TRY(buf_reserve(out, WIRE_HEAD_MAX));
	wire_put_field(out, 1, id);
	wire_put_field(out, 2, 1);
	return NULL;
}

/* -------------------------------------------------------------------------------------- definitions */

static const struct member executable_members[] = {
	MEMBER(1, U32, agent_executable, number),
	MEMBER(2, SPAN, agent_executable, file_id),
	MEMBER(3, SPAN, agent_executable, build_id),
	MEMBER(4, SPAN, agent_executable, go_build_id),
	MEMBER(5, SPAN, agent_executable, name),
	MEMBER(6, U64, agent_executable, size),
	MEMBER(7, U32, agent_executable, elf_machine),
	MEMBER(9, BOOL, agent_executable, kernel),
};
static const struct member segment_members[] = {
	MEMBER(1, U64, agent_segment, offset),
	MEMBER(2, U64, agent_segment, vaddr),
	MEMBER(3, U64, agent_segment, size),
	MEMBER(4, BOOL, agent_segment, executable),
};

struct err *agent_executable_read(struct wire_span message, struct agent_executable *ret)
{
	*ret = (struct agent_executable){.segments = message};
	return read_message(message, "executable", executable_members, ARRAY_SIZE(executable_members), ret);
}

bool agent_segment_next(struct reader *r, struct agent_segment *ret)
{
	*ret = (struct agent_segment){0};
	return next_message(r, 8, segment_members, ARRAY_SIZE(segment_members), ret);
}

struct err *agent_executable_write(struct buf *out, const struct agent_executable *executable, const struct agent_segment *segments,
	size_t count)
{
	size_t start = out->len;

	TRY(write_members(out, executable_members, ARRAY_SIZE(executable_members), executable));
	for (size_t i = 0; i < count; i++)
		TRY(write_field(out, 8, segment_members, ARRAY_SIZE(segment_members), &segments[i]));
	return wrap_field(out, start, DEFINITIONS_EXECUTABLE);
}

static const struct member line_members[] = {
	MEMBER(1, U32, agent_line, frame),
	MEMBER(2, U32, agent_line, function),
	MEMBER(3, U32, agent_line, system_name),
	MEMBER(4, U32, agent_line, file),
	MEMBER(5, U32, agent_line, line),
	MEMBER(6, U32, agent_line, column),
	MEMBER(7, U32, agent_line, start_line),
};

struct err *agent_line_read(struct wire_span message, struct agent_line *ret)
{
	*ret = (struct agent_line){0};
	return read_message(message, "line", line_members, ARRAY_SIZE(line_members), ret);
}

struct err *agent_line_write(struct buf *out, const struct agent_line *line)
{
	return write_field(out, DEFINITIONS_LINE, line_members, ARRAY_SIZE(line_members), line);
}

static const struct member process_members[] = {
	MEMBER(1, U32, agent_process, number),
	MEMBER(2, U32, agent_process, pid),
	MEMBER(3, U32, agent_process, executable),
	MEMBER(4, U32, agent_process, executable_path),
	MEMBER(5, U32, agent_process, service),
	MEMBER(6, U32, agent_process, container),
};

struct err *agent_process_read(struct wire_span message, struct agent_process *ret)
{
	*ret = (struct agent_process){.message = message};
	return read_message(message, "process", process_members, ARRAY_SIZE(process_members), ret);
}

struct err *agent_process_write(struct buf *out, const struct agent_process *process, const uint32_t *labels, size_t count)
{
	size_t start = out->len;

	TRY(write_members(out, process_members, ARRAY_SIZE(process_members), process));
	TRY(wire_append_packed_u32(out, PROCESS_LABELS, labels, count));
	return wrap_field(out, start, DEFINITIONS_PROCESS);
}

static const struct member type_members[] = {
	MEMBER(1, U32, agent_type, number),
	MEMBER(2, SPAN, agent_type, type),
	MEMBER(3, SPAN, agent_type, unit),
	MEMBER(4, SPAN, agent_type, period_type),
	MEMBER(5, SPAN, agent_type, period_unit),
	MEMBER(6, U64, agent_type, period),
};

struct err *agent_type_read(struct wire_span message, struct agent_type *ret)
{
	*ret = (struct agent_type){0};
	return read_message(message, "type", type_members, ARRAY_SIZE(type_members), ret);
}

struct err *agent_type_write(struct buf *out, const struct agent_type *type)
{
	return write_field(out, DEFINITIONS_TYPE, type_members, ARRAY_SIZE(type_members), type);
}

static const struct member link_members[] = {
	MEMBER(1, U32, agent_link, number),
	MEMBER(2, SPAN, agent_link, trace_id),
	MEMBER(3, SPAN, agent_link, span_id),
};

struct err *agent_link_read(struct wire_span message, struct agent_link *ret)
{
	*ret = (struct agent_link){0};
	return read_message(message, "link", link_members, ARRAY_SIZE(link_members), ret);
}

struct err *agent_link_write(struct buf *out, const struct agent_link *link)
{
	return write_field(out, DEFINITIONS_LINK, link_members, ARRAY_SIZE(link_members), link);
}

/* -------------------------------------------------------------------------------------- the server's */

static const struct member welcome_members[] = {
	MEMBER(1, SPAN, server_welcome, version),
	MEMBER(2, U32, server_welcome, samples_max),
	MEMBER(3, U64, server_welcome, message_bytes_max),
	MEMBER(4, U32, server_welcome, envelopes_per_second),
	MEMBER(5, U32, server_welcome, status_interval_seconds),
};

struct err *server_welcome_write(struct buf *out, const struct server_welcome *welcome)
{
	return write_members(out, welcome_members, ARRAY_SIZE(welcome_members), welcome);
}

struct err *server_welcome_read(struct wire_span message, struct server_welcome *ret)
{
	*ret = (struct server_welcome){0};
	return read_message(message, "welcome", welcome_members, ARRAY_SIZE(welcome_members), ret);
}

static const struct member acknowledgement_members[] = {
	MEMBER(2, U64, server_acknowledgement, rejected_future),
	MEMBER(3, U64, server_acknowledgement, rejected_old),
	MEMBER(4, U64, server_acknowledgement, duplicates),
};

struct err *server_acknowledgement_write(struct buf *out, const struct server_acknowledgement *acknowledgement, const uint64_t *sequences,
	size_t count)
{
	TRY(wire_append_packed_u64(out, 1, sequences, count));
	return write_members(out, acknowledgement_members, ARRAY_SIZE(acknowledgement_members), acknowledgement);
}

struct err *server_acknowledgement_read(struct wire_span message, struct server_acknowledgement *ret)
{
	*ret = (struct server_acknowledgement){.sequences = message};
	return read_message(message, "acknowledgement", acknowledgement_members, ARRAY_SIZE(acknowledgement_members), ret);
}

static const struct member pace_members[] = {
	MEMBER(1, U32, server_pace, envelopes_per_second),
	MEMBER(2, SPAN, server_pace, reason),
};

struct err *server_pace_write(struct buf *out, const struct server_pace *pace)
{
	return write_members(out, pace_members, ARRAY_SIZE(pace_members), pace);
}

struct err *server_pace_read(struct wire_span message, struct server_pace *ret)
{
	*ret = (struct server_pace){0};
	return read_message(message, "pace", pace_members, ARRAY_SIZE(pace_members), ret);
}

static const struct member want_members[] = {
	MEMBER(1, SPAN, server_want, file_id),
	MEMBER(2, SPAN, server_want, build_id),
	MEMBER(3, SPAN, server_want, name),
};

struct err *server_want_write(struct buf *out, const struct server_want *want)
{
	return write_field(out, 1, want_members, ARRAY_SIZE(want_members), want);
}

bool server_want_next(struct reader *r, struct server_want *ret)
{
	*ret = (struct server_want){0};
	return next_message(r, 1, want_members, ARRAY_SIZE(want_members), ret);
}

static const struct member debug_request_members[] = {
	MEMBER(1, U64, server_debug_request, id),
	MEMBER(2, SPAN, server_debug_request, kind),
	MEMBER(3, SPAN, server_debug_request, argument),
};

struct err *server_debug_request_read(struct wire_span message, struct server_debug_request *ret)
{
	*ret = (struct server_debug_request){0};
	return read_message(message, "debug request", debug_request_members, ARRAY_SIZE(debug_request_members), ret);
}
