// SPDX-License-Identifier: Apache-2.0
/*
 * The messages of cairn.v1.Agent (proto/cairn/v1/agent.proto) read and written by hand on proto/wire.h: they are the hottest
 * that there are. Reading is in place: texts and columns are spans of the message. An unknown member or body is skipped.
 */
#ifndef CAIRN_PROTO_AGENT_H
#define CAIRN_PROTO_AGENT_H

#include "proto/wire_read.h"

#define AGENT_STREAM_PATH "/cairn.v1.Agent/Stream"

enum { AGENT_INSTANCE_BYTES = 16 };

/* Numbers of `oneof body`. */
enum agent_body {
	AGENT_BODY_NONE = 0, /* none, or one that is not known here */
	AGENT_HELLO = 2,
	AGENT_DEFINITIONS = 3,
	AGENT_SAMPLES = 4,
	AGENT_STATUS = 5,
	AGENT_DEBUG_REPLY = 6,
};

enum server_body {
	SERVER_BODY_NONE = 0,
	SERVER_WELCOME = 1,
	SERVER_ACKNOWLEDGEMENT = 2,
	SERVER_NEED = 3,
	SERVER_PACE = 4,
	SERVER_WANT_SYMBOLS = 5,
	SERVER_DEBUG_REQUEST = 6,
};

struct agent_envelope {
	uint64_t sequence;
	enum agent_body body;
	struct wire_span bytes; /* of the body */
};
/** ERR_FORMAT with the offset. */
struct err *agent_envelope_read(struct wire_span message, struct agent_envelope *ret) MUST_USE;

struct agent_hello {
	struct wire_span instance, version, host_name, host_id, kernel, machine;
	uint32_t cpus;
	struct wire_span labels; /* the message: its fields 8 are walked with agent_label_next */
};
struct err *agent_hello_read(struct wire_span message, struct agent_hello *ret) MUST_USE;

struct agent_label {
	struct wire_span key, value;
};
/** The next label of a Hello; @p r from wire_reader(hello.labels). False at the end, and when malformed (r->failed). */
bool agent_label_next(struct reader *r, struct agent_label *ret);

struct agent_status {
	uint64_t time_unix_nano, cpu_user_ns, cpu_system_ns, bpf_ns, memory_bytes, bpf_map_bytes, samples, queued_bytes, spooled_bytes;
	struct wire_span losses; /* the message: agent_loss_next, agent_cut_next */
};
struct err *agent_status_read(struct wire_span message, struct agent_status *ret) MUST_USE;

struct agent_loss {
	struct wire_span reason;
	uint64_t count;
	bool is_cut; /* the samples are there, but their stacks are not whole */
};
/** The next loss, or cut, of a Status; @p r from wire_reader(status.losses). False at the end, and when malformed (r->failed). */
bool agent_loss_next(struct reader *r, struct agent_loss *ret);
bool agent_cut_next(struct reader *r, struct agent_loss *ret);

struct agent_executable {
	uint32_t number;
	struct wire_span file_id, build_id, go_build_id, name;
	uint64_t size;
	uint32_t elf_machine;
	bool kernel;
	struct wire_span segments; /* the message: agent_segment_next */
};
struct err *agent_executable_read(struct wire_span message, struct agent_executable *ret) MUST_USE;

struct agent_segment {
	uint64_t offset, vaddr, size;
	bool executable;
};
bool agent_segment_next(struct reader *r, struct agent_segment *ret);

struct agent_line {
	uint32_t frame, function, system_name, file, line, column, start_line;
};
struct err *agent_line_read(struct wire_span message, struct agent_line *ret) MUST_USE;

struct agent_process {
	uint32_t number, pid, executable, executable_path, service, container;
	struct wire_span message; /* labels: wire_repeated of field 7 */
};
struct err *agent_process_read(struct wire_span message, struct agent_process *ret) MUST_USE;

struct agent_type {
	uint32_t number;
	struct wire_span type, unit, period_type, period_unit;
	int64_t period;
};
struct err *agent_type_read(struct wire_span message, struct agent_type *ret) MUST_USE;

struct agent_link {
	uint32_t number;
	struct wire_span trace_id, span_id;
};
struct err *agent_link_read(struct wire_span message, struct agent_link *ret) MUST_USE;

/* Field numbers of Definitions and Samples, whose columns the receiver walks with wire_repeated_next. */
enum {
	DEFINITIONS_FIRST_STRING = 1,
	DEFINITIONS_STRING = 2,
	DEFINITIONS_EXECUTABLE = 3,
	DEFINITIONS_FIRST_FRAME = 4,
	DEFINITIONS_FRAME_KIND = 5,
	DEFINITIONS_FRAME_EXECUTABLE = 6,
	DEFINITIONS_FRAME_ADDRESS = 7,
	DEFINITIONS_LINE = 8,
	DEFINITIONS_FIRST_TRACE = 9,
	DEFINITIONS_TRACE_DEPTH = 10,
	DEFINITIONS_TRACE_SHARED = 11,
	DEFINITIONS_TRACE_FRAME = 12,
	DEFINITIONS_PROCESS = 13,
	DEFINITIONS_FIRST_THREAD = 14,
	DEFINITIONS_THREAD_PROCESS = 15,
	DEFINITIONS_THREAD_ID = 16,
	DEFINITIONS_THREAD_NAME = 17,
	DEFINITIONS_TYPE = 18,
	DEFINITIONS_LINK = 19,

	SAMPLES_TYPE = 1,
	SAMPLES_BASE_TIME = 2,
	SAMPLES_PERIOD = 3,
	SAMPLES_CPU_RUN = 4,
	SAMPLES_THREAD = 5,
	SAMPLES_TRACE = 6,
	SAMPLES_TIME_STEP = 7,
	SAMPLES_TIME_REST = 8,
	SAMPLES_VALUE = 9,
	SAMPLES_LINK = 10,
	SAMPLES_SUMMED = 11,

	PROCESS_LABELS = 7,

	NEED_STRINGS = 1,
	NEED_EXECUTABLES,
	NEED_FRAMES,
	NEED_TRACES,
	NEED_PROCESSES,
	NEED_THREADS,
	NEED_TYPES,
	NEED_LINKS,
	NEED_ALL,
	NEED_SEQUENCE,
	NEED_KINDS = NEED_LINKS, /* how many kinds of numbers there are */
};

/** Zigzag, as sint64: small numbers of either sign become short. */
static inline uint64_t agent_zigzag(int64_t value)
{
	return (uint64_t)value << 1 ^ (uint64_t)(value >> 63);
}
static inline int64_t agent_unzigzag(uint64_t value)
{
	return (int64_t)(value >> 1 ^ (0 - (value & 1)));
}

/* ---- writing: each appends one message's body to @p out; ERR_NOMEM, ERR_LIMIT ---- */

/** An AgentEnvelope around @p body. */
struct err *agent_envelope_write(struct buf *out, uint64_t sequence, enum agent_body body, const struct buf *bytes) MUST_USE;
struct err *agent_hello_write(struct buf *out, const struct agent_hello *hello, const struct agent_label *labels, size_t count) MUST_USE;
struct err *agent_status_write(struct buf *out, const struct agent_status *status, const struct agent_loss *losses, size_t count) MUST_USE;

/* These append fields of Definitions. */
struct err *agent_executable_write(struct buf *out, const struct agent_executable *executable, const struct agent_segment *segments,
	size_t count) MUST_USE;
struct err *agent_line_write(struct buf *out, const struct agent_line *line) MUST_USE;
struct err *agent_process_write(struct buf *out, const struct agent_process *process, const uint32_t *labels, size_t count) MUST_USE;
struct err *agent_type_write(struct buf *out, const struct agent_type *type) MUST_USE;
struct err *agent_link_write(struct buf *out, const struct agent_link *link) MUST_USE;

/* A ServerEnvelope, told apart by the receiver. */
struct server_envelope {
	enum server_body body;
	struct wire_span bytes;
};
struct err *server_envelope_read(struct wire_span message, struct server_envelope *ret) MUST_USE;
/** Appends a ServerEnvelope around @p bytes. */
struct err *server_envelope_write(struct buf *out, enum server_body body, const struct buf *bytes) MUST_USE;

struct server_welcome {
	struct wire_span version;
	uint32_t samples_max;
	uint64_t message_bytes_max;
	uint32_t envelopes_per_second, status_interval_seconds;
};
struct err *server_welcome_write(struct buf *out, const struct server_welcome *welcome) MUST_USE;
struct err *server_welcome_read(struct wire_span message, struct server_welcome *ret) MUST_USE;

struct server_acknowledgement {
	uint64_t rejected_future, rejected_old, duplicates;
	struct wire_span sequences; /* the message: wire_repeated of field 1 */
};
struct err *server_acknowledgement_write(struct buf *out, const struct server_acknowledgement *acknowledgement, const uint64_t *sequences,
	size_t count) MUST_USE;
struct err *server_acknowledgement_read(struct wire_span message, struct server_acknowledgement *ret) MUST_USE;

struct server_pace {
	uint32_t envelopes_per_second;
	struct wire_span reason;
};
struct err *server_pace_write(struct buf *out, const struct server_pace *pace) MUST_USE;
struct err *server_pace_read(struct wire_span message, struct server_pace *ret) MUST_USE;

struct server_want {
	struct wire_span file_id, build_id, name;
};
/** Appends one File to a WantSymbols. */
struct err *server_want_write(struct buf *out, const struct server_want *want) MUST_USE;
/** The next File; false at the end, and when malformed (r->failed). */
bool server_want_next(struct reader *r, struct server_want *ret);

struct server_debug_request {
	uint64_t id;
	struct wire_span kind, argument;
};
struct err *server_debug_request_read(struct wire_span message, struct server_debug_request *ret) MUST_USE;
/** DebugReply: the only answer so far. */
struct err *agent_debug_unsupported_write(struct buf *out, uint64_t id) MUST_USE;

#endif
