// SPDX-License-Identifier: Apache-2.0
/*
 * What is bound to the numbers of one stream. Internal to profiles/stream*.c.
 */
#ifndef CAIRN_PROFILES_STREAM_INTERNAL_H
#define CAIRN_PROFILES_STREAM_INTERNAL_H

#include "profiles/stream.h"

/* The number that a thing has in the batch of that generation. */
struct stream_bound {
	uint32_t generation; /* 0: in none */
	uint32_t number;
};

struct stream_span {
	uint32_t offset, len;
};

/* All items begin with `known`: zeroed room is not bound. */
struct stream_string {
	bool known;
	struct stream_span text; /* of stream->text */
};
struct stream_executable {
	bool known, kernel;
	struct fileid file_id;
	struct build_id build_id;
	struct stream_span go_build_id, name; /* of stream->text */
	struct stream_bound bound;
};
struct stream_frame {
	bool known;
	uint8_t kind; /* enum profile_frame_kind */
	uint16_t line_count;
	uint32_t executable;
	uint64_t address;
	uint32_t first_line; /* of stream->lines */
};
struct stream_trace {
	bool known;
	uint32_t first, depth; /* of stream->trace_frames, leaf first */
	struct stream_bound bound;
};
struct stream_process {
	bool known;
	uint32_t pid, executable, executable_path, service, container;
	uint32_t first_label, label_count; /* of stream->labels: pairs */
	struct stream_bound bound;
};
struct stream_thread {
	bool known;
	uint32_t process, tid, name;
	struct stream_bound bound;
};
struct stream_type {
	bool known;
	struct stream_span type, unit, period_type, period_unit;
	int64_t period;
	struct stream_bound bound;
};
struct stream_link {
	bool known;
	uint8_t trace_id[16], span_id[8];
	struct stream_bound bound;
};

/* A function that the batch at hand has. */
struct stream_function {
	uint32_t names[4]; /* its three strings, start_line */
	uint32_t number; /* of the batch */
};

/* Items by number. */
struct stream_table {
	void *items;
	uint32_t cap;
};

/* A pool of u32, or of lines. */
struct stream_pool {
	void *items;
	uint32_t count, cap;
};

/* Numbers that a `need` will ask for. */
struct stream_need {
	uint32_t *numbers[NEED_KINDS + 1]; /* by kind, each of STREAM_NEED_MAX; allocated when first used */
	uint32_t counts[NEED_KINDS + 1];
	struct hmap seen; /* kind << 32 | number */
	bool any;
};

struct stream {
	struct stream_options options;
	bool has_hello;
	uint8_t instance[AGENT_INSTANCE_BYTES];
	struct buf hello_text; /* what hello_labels point to, by offset until hello_take is over */
	struct samples_label hello_labels[STREAM_LABELS_MAX + 1];
	uint32_t hello_label_count;

	struct stream_table tables[NEED_KINDS + 1]; /* by NEED_.. */
	struct stream_bound *frame_bounds; /* of each frame of its table; apart, since binding a trace needs nothing else of most frames */
	uint32_t frame_bounds_cap;
	struct buf text;
	struct stream_pool trace_frames, labels; /* u32 */
	struct stream_pool lines;		 /* struct agent_line */
	size_t memory;
	uint32_t forgets; /* since samples were last taken */
	bool forgot;	  /* within this envelope */
	struct stream_need need;

	uint32_t generation; /* of the batch at hand; counts up */
	struct samples_batch *batch;
	struct stream_ticket ticket;
	struct stream_bound agent_bound;
	struct hmap functions; /* of the batch at hand: hash of a function's strings -> number in bound_functions */
	struct buf bound_functions; /* struct stream_function */
	struct buf scratch;
};

/** The item of a number, NULL when it is not bound. O(1). */
static inline void *stream_find_sized(const struct stream_table *table, uint32_t number, size_t size)
{
	if (number >= table->cap)
		return NULL;
	uint8_t *item = (uint8_t *)table->items + number * size;
	return *(bool *)item ? item : NULL;
}
#define stream_find(stream, kind, type, number)                                                                              \
	((struct type *)stream_find_sized(&(stream)->tables[kind], number, sizeof(struct type)))

/** Element @p first of a pool; NULL when the pool is empty (what begins there is then empty too). */
static inline const void *stream_pool_at(const struct stream_pool *pool, uint32_t first, size_t size)
{
	return pool->items ? (const uint8_t *)pool->items + first * size : NULL;
}

/** Asks for a number at the end of this envelope. */
struct err *stream_want(struct stream *stream, uint32_t kind, uint32_t number) MUST_USE;

/** Takes in a Definitions body. @p place names the envelope in errors. */
struct err *stream_define(struct stream *stream, struct wire_span message, const char *place) MUST_USE;
/** Forgets every definition. */
void stream_forget(struct stream *stream);

/** Forgets what is bound in the batch beside the definitions: the batch was handed out, or strings have other numbers now. */
void stream_unbind_functions(struct stream *stream);
/** Accounts for @p bytes more of definitions: ERR_LIMIT past memory_max, and stream->forgot is asked for. */
struct err *stream_charge(struct stream *stream, size_t bytes) MUST_USE;

/** The batch's number of a trace, thread (labels), type, link that are bound in the stream; binds them in the batch when needed. */
struct err *stream_bind_trace(struct stream *stream, struct stream_trace *trace, uint32_t *ret) MUST_USE;
struct err *stream_bind_thread(struct stream *stream, uint32_t number, uint32_t *ret) MUST_USE;
struct err *stream_bind_type(struct stream *stream, struct stream_type *type, uint32_t *ret) MUST_USE;
struct err *stream_bind_link(struct stream *stream, struct stream_link *link, uint32_t *ret) MUST_USE;

#endif
