// SPDX-License-Identifier: Apache-2.0
/*
 * Samples in, profiles out: what OTLP's decoder and the agent's stream write, and what /v1/profiles reads. Kept in the `profiles`
 * environment of the store (store/profiles.h), in time partitions; docs/profiles.md says how.
 *
 * Writing: a decoder fills a batch (bring each type, label set, mapping, location and trace once, then samples that name
 * them by the batch's numbers) and commits it. The whole batch becomes durable in one transaction, and `done` is
 * told; several batches share a commit. A batch is one thread's; batches of different threads do not disturb each other.
 *
 *     TRY(samples_batch_create(samples, STORE_TENANT_DEFAULT, &batch));
 *     TRY(samples_batch_profile(batch, key));            // one a profile; a key seen within 15 minutes is not counted again
 *     TRY(samples_batch_type(batch, &type, &t)); .. labels, mapping, location, trace ..
 *     TRY(samples_batch_add(batch, &sample));
 *     struct err *e = samples_commit(&batch, done, arg); // ERR_BUSY: the batch is still the caller's, try again later
 *
 * Reading: samples_query gives a struct profile of one type, symbolized then and there by a resolver of the caller's, so that
 * symbols that came later show in old samples. Types are never added together.
 *
 * Numbers that these functions give are good for their batch only.
 */
#ifndef CAIRN_PROFILES_SAMPLES_H
#define CAIRN_PROFILES_SAMPLES_H

#include "fileid/build_id.h"
#include "fileid/fileid.h"
#include "profiles/profile.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	SAMPLES_TEXT_MAX = 16384,	     /* bytes of a name or value; the rest is cut */
	SAMPLES_LABELS_MAX = 128,	     /* of one set, those of its parents included */
	SAMPLES_LINES_MAX = 256,	     /* of one location */
	SAMPLES_CPU_MAX = 65534,
	SAMPLES_BATCH_BYTES_MAX = 256 << 20, /* memory of one batch: past it ERR_LIMIT */
	SAMPLES_BATCH_PARTITIONS_MAX = 64,   /* hours that one batch may touch; samples of more are rejected as old or future */
	SAMPLES_DEDUPE_MS = 15 * 60 * 1000,
	SAMPLES_INSTANCE_BYTES = 16,
	SAMPLES_NONE = UINT32_MAX,
};

struct samples;

/* Zero means the default. Strings are borrowed during samples_open only. */
struct samples_options {
	const char *data_dir;
	uint64_t map_max;     /* address space: as store_options */
	uint64_t keep_ms;     /* `profiles.keep`: 30 days. Partitions whose end is older are dropped */
	uint64_t max_bytes;   /* `profiles.max_bytes`: 64 GiB; past it the oldest partitions are dropped */
	uint64_t raw_for_ms;  /* `profiles.raw_for`: 1 h of exact timestamps */
	uint64_t queue_bytes; /* of batches that wait for the writer: 256 MiB; past it ERR_BUSY */
	uint64_t future_ms;   /* a sample later than now by more is rejected: 10 min */
	uint64_t seal_after_ms; /* a partition without a write for so long after its end is sealed: 10 min */
	uint32_t partition_s; /* 3600; at most 65536 */
	bool read_only;
	uint64_t (*now_ms)(void *context); /* NULL: the clock; for tests */
	void *now_context;
};

/** ERR_BUSY: another process has it; ERR_UNSUPPORTED: newer; ERR_CORRUPT; ERR_OS; ERR_NOMEM. */
struct err *samples_open(const struct samples_options *options, struct samples **ret) MUST_USE;
/** Commits what was handed in, then closes. NULL is fine. No query may be running. */
void samples_close(struct samples *samples);
void samples_closep(struct samples **samples);
/** NULL while commits work, else why they do not. The caller frees it. */
struct err *samples_health(struct samples *samples) MUST_USE;

/* -------------------------------------------------------------------------------------- a batch */

/* Not NUL-terminated; bytes may be NULL when len is 0. */
struct samples_text {
	const char *bytes;
	size_t len;
};

struct samples_batch;

struct err *samples_batch_create(struct samples *samples, uint32_t tenant, struct samples_batch **ret) MUST_USE;
void samples_batch_destroy(struct samples_batch *batch);
void samples_batch_destroyp(struct samples_batch **batch);
/** Memory that it takes now. */
size_t samples_batch_bytes(const struct samples_batch *batch);

/**
 * Begins a profile: the samples added from here on are its own.
 * @param key  128 bits that a retry brings again, or NULL. When a durable profile of this tenant had the same key within
 *             SAMPLES_DEDUPE_MS, all samples of this one are skipped and it counts as a duplicate; decided in the same transaction.
 */
struct err *samples_batch_profile(struct samples_batch *batch, const uint8_t key[16]) MUST_USE;
/**
 * Begins a profile that is known by a number of its sender, which never uses one twice: counted once as long as keep_ms, however late it
 * comes again; also when others came in between, as long as it is not SEEN_WINDOW (4,096) behind the highest. Further behind it is judged as a key.
 * @param sequence  not 0
 */
struct err *samples_batch_sequence(struct samples_batch *batch, const uint8_t instance[SAMPLES_INSTANCE_BYTES], uint64_t sequence) MUST_USE;
/** Takes back the present profile with its samples and key: a fault was found in it. */
void samples_batch_drop_profile(struct samples_batch *batch);

struct samples_type {
	struct samples_text type, unit;		      /* "samples" "count" */
	struct samples_text period_type, period_unit; /* "cpu" "nanoseconds", or empty */
	int64_t period;
};
/** The number of a type. At most 255 different ones a partition; ERR_LIMIT past 255 in a batch. */
struct err *samples_batch_type(struct samples_batch *batch, const struct samples_type *type, uint32_t *ret) MUST_USE;

struct samples_label {
	struct samples_text key, value;
};

/* Usual keys; queries take the short forms of samples_label_key too. CPUs, trace and span IDs are no labels but members
 * of a sample; queries name them by these keys. */
#define SAMPLES_LABEL_SERVICE "service.name"
#define SAMPLES_LABEL_HOST "host.name"
#define SAMPLES_LABEL_CONTAINER "container.id"
#define SAMPLES_LABEL_PID "process.pid"
#define SAMPLES_LABEL_TID "thread.id"
#define SAMPLES_LABEL_COMM "thread.name"
#define SAMPLES_LABEL_EXECUTABLE "process.executable.name"
#define SAMPLES_LABEL_CPU "cpu.logical_number"
#define SAMPLES_LABEL_TRACE_ID "trace_id" /* 32 hex digits */
#define SAMPLES_LABEL_SPAN_ID "span_id"	  /* 16 hex digits */

/** "service" -> "service.name", "host", "container", "pid", "tid", "comm", "executable", "cpu"; anything else as it is. Borrowed. */
struct samples_text samples_label_key(struct samples_text key);

/**
 * The number of a label set: those of @p parent (a set of this batch, or SAMPLES_NONE) and @p count more. Put what all samples of a
 * process share (resource attributes) into the parent and what a thread has into the child. The order does not matter; of one key
 * twice, the later wins; a child's wins over its parent's.
 * @return NULL; ERR_LIMIT past SAMPLES_LABELS_MAX; ERR_INVALID: no such parent; ERR_NOMEM.
 */
struct err *samples_batch_labels(struct samples_batch *batch, uint32_t parent, const struct samples_label *labels, size_t count,
	uint32_t *ret) MUST_USE;

/** Room for about so many of each, for callers that know; a hint and no limit. ERR_NOMEM. */
struct err *samples_batch_expect(struct samples_batch *batch, uint32_t functions, uint32_t locations, uint32_t traces) MUST_USE;

struct samples_mapping {
	struct fileid file_id;	  /* zeroes: unknown */
	struct build_id build_id; /* GNU; len 0: none */
	struct samples_text go_build_id;
	struct samples_text name; /* base name, "vmlinux", a module's name */
	/* Load facts as OTLP gives them; all zero: addresses are as linked. Used to turn `address` into a file offset. */
	uint64_t memory_start, memory_limit, file_offset;
};
struct err *samples_batch_mapping(struct samples_batch *batch, const struct samples_mapping *mapping, uint32_t *ret) MUST_USE;

struct samples_line {
	struct samples_text function;	 /* as shown; "" with no other name: unknown */
	struct samples_text system_name; /* linkage name; "": the same */
	struct samples_text file;
	uint32_t line, column, start_line; /* 0: unknown */
	/* From samples_batch_function with the same names and start_line, plus 1: they are not looked up again. 0: they were not brought. */
	uint32_t known_function;
};
/** Brings what @p line says beside line and column, for callers that meet the same functions again and again. */
struct err *samples_batch_function(struct samples_batch *batch, const struct samples_line *line, uint32_t *ret) MUST_USE;

struct samples_location {
	enum profile_frame_kind kind;
	uint32_t mapping; /* SAMPLES_NONE: none */
	/*
	 * What the sender gave, already less 1 for return addresses. NATIVE: by the mapping's load facts a file offset, or as
	 * linked where there are none or where it lies outside of them. KERNEL: from _stext/_text for vmlinux, from .text for a module. INTERPRETED: not used.
	 */
	uint64_t address;
	const struct samples_line *lines; /* innermost first; for what the sender has symbolized */
	uint32_t line_count;
};
/** ERR_LIMIT past SAMPLES_LINES_MAX; ERR_INVALID: no such mapping. */
struct err *samples_batch_location(struct samples_batch *batch, const struct samples_location *location, uint32_t *ret) MUST_USE;

/**
 * The number of a stack. @p locations leaf first, @p depth of them (0 is fine: a sample without a stack).
 * @return NULL; ERR_LIMIT past PROFILE_MAX_DEPTH; ERR_INVALID: no such location; ERR_NOMEM. O(depth).
 */
struct err *samples_batch_trace(struct samples_batch *batch, const uint32_t *locations, uint32_t depth, uint32_t *ret) MUST_USE;

/** XXH3-128 over what the frames of a trace are (modules by their IDs, addresses, names): the same on every node. O(depth). */
void samples_trace_hash(const struct samples_batch *batch, uint32_t trace, uint8_t ret[16]);

/** The number of a link (never 0). O(1). */
struct err *samples_batch_link(struct samples_batch *batch, const uint8_t trace_id[16], const uint8_t span_id[8], uint32_t *ret) MUST_USE;

struct samples_sample {
	uint32_t trace, labels, type;
	uint32_t link; /* 0: none */
	int32_t cpu;   /* -1: unknown */
	bool exact;    /* the time is a sample's own: kept for raw_for. false: `value` is a sum about that time */
	uint64_t time_unix_nano;
	uint64_t value; /* events, nanoseconds, bytes: what the type says. 0 is not stored */
};

/**
 * Adds a sample. One whose clock is off (later than now + future_ms, older than keep_ms) is counted in the result as rejected
 * and not stored, which is no error.
 * @return NULL; ERR_INVALID: a number that this batch did not give, cpu over SAMPLES_CPU_MAX, no profile begun; ERR_LIMIT: the
 *         batch is at SAMPLES_BATCH_BYTES_MAX; ERR_NOMEM. O(1).
 */
struct err *samples_batch_add(struct samples_batch *batch, const struct samples_sample *sample) MUST_USE;

/* What became of a batch. */
struct samples_result {
	uint64_t profiles;		/* accepted, duplicates not counted */
	uint64_t duplicate_profiles;	/* skipped: their keys were seen */
	uint64_t samples;		/* accepted calls of samples_batch_add, those of duplicates not counted */
	uint64_t rejected_future;	/* samples */
	uint64_t rejected_old;
};

/** Runs on the writer thread, once, after the commit: keep it short. @p e is the callee's (NULL: durable); @p result is borrowed. */
typedef void samples_done_fn(void *arg, struct err *e, const struct samples_result *result);

/**
 * Hands in a batch. On NULL it was taken (*batch is NULL now) and @p done will run. Otherwise nothing happened and the batch is
 * still the caller's: ERR_BUSY: queue_bytes are waiting, try again; ERR_INVALID: opened for reading.
 * Errors that @p done gets: ERR_OS, ERR_BUSY: not durable, nothing of the batch was stored; ERR_CORRUPT; ERR_NOMEM.
 */
struct err *samples_commit(struct samples_batch **batch, samples_done_fn *done, void *arg) MUST_USE;
/** As samples_commit, and waits; takes the batch in any case. Not for event loops. @p result may be NULL. */
struct err *samples_commit_wait(struct samples_batch **batch, struct samples_result *result) MUST_USE;

/* -------------------------------------------------------------------------------------- symbols for reading */

enum samples_address_kind {
	SAMPLES_ADDRESS_VADDR,	     /* as linked */
	SAMPLES_ADDRESS_FILE_OFFSET, /* of the runtime file: through its PT_LOADs */
	SAMPLES_ADDRESS_TEXT,	     /* kernel: from _stext/_text of vmlinux, from .text of a module */
};

struct samples_address {
	uint64_t value;
	enum samples_address_kind kind;
	/* FILE_OFFSET: where the sender's mapping puts it when that looks like addresses as linked; for files whose PT_LOADs are unknown. */
	bool has_hint;
	uint64_t vaddr_hint;
};

struct samples_module {
	struct fileid file_id;	  /* zeroes: unknown */
	struct build_id build_id; /* len 0: none */
	const char *go_build_id, *name; /* "" : unknown */
	bool kernel;
};

struct samples_symbol {
	const char *function; /* as shown (demangled) */
	const char *symbol;   /* linkage name */
	const char *file;     /* "": unknown */
	uint32_t line, column, start_line; /* 0: unknown */
};

struct samples_answers;
/** For address @p i: its frames, innermost first (strings are copied), and the address as linked. ERR_INVALID: count 0; ERR_NOMEM. */
struct err *samples_answer(struct samples_answers *answers, size_t i, uint64_t vaddr, const struct samples_symbol *frames, size_t count) MUST_USE;
/** For address @p i: no symbol, and why. @p vaddr as linked when it is known, else the address's value. */
struct err *samples_answer_none(struct samples_answers *answers, size_t i, uint64_t vaddr, const char *reason) MUST_USE;

/* The caller's way to symbols: called once a module with all its addresses, sorted, each once. */
struct samples_resolver {
	struct err *(*resolve)(void *context, uint32_t tenant, const struct samples_module *module, const struct samples_address *addresses,
		size_t count, struct samples_answers *answers);
	void *context;
};

/* -------------------------------------------------------------------------------------- reading */

struct samples_query {
	uint32_t tenant;
	uint64_t from_unix_nano, to_unix_nano; /* [from, to), rounded down to seconds; to 0: no end */
	/* "samples", "samples:count", "samples:count:cpu:nanoseconds:50000000", or a period type ("cpu"); empty: the only one there is */
	struct samples_text type;
	const struct samples_label *filters; /* all must hold. Short keys are fine */
	size_t filter_count;
	const struct samples_text *group_by; /* each value becomes a frame `key=value` at the root, in this order */
	size_t group_count;
};

struct samples_query_stat {
	uint64_t samples;	 /* total value */
	uint64_t partitions, blocks, rows; /* rows: groups of equal (type, labels, trace) where the block lies in the range */
	uint64_t traces, locations, modules; /* distinct, in the answer */
	uint64_t unresolved;	 /* locations without a symbol */
	uint64_t read_ns, resolve_ns, expand_ns;
};

/**
 * Everything that matches, as one profile. A range without samples is an empty profile, no error.
 * @param resolver  NULL: names are left as file+0xaddress
 * @param stat      may be NULL
 * @return NULL; ERR_INVALID: a filter or type is malformed, or several types match (the message lists them: types are never added
 *         together); ERR_NOT_FOUND: samples, but none of that type; ERR_LIMIT; ERR_CORRUPT names the damaged key; errors of the resolver.
 *         Thread: any, for itself. Each partition is read in a snapshot of its own.
 */
struct err *samples_query(struct samples *samples, const struct samples_query *query, const struct samples_resolver *resolver,
	struct profile *ret, struct samples_query_stat *stat) MUST_USE;

/* Called for each item; an error ends the walk and is returned. */
struct samples_visitor {
	struct err *(*item)(void *context, const char *text, uint64_t value);
	void *context;
};
/** Types in [from, to) as "samples:count:cpu:nanoseconds:50000000", with their total values. Sorted. */
struct err *samples_types(struct samples *samples, const struct samples_query *query, const struct samples_visitor *visitor) MUST_USE;
/** Label keys in use in [from, to); value: how many different values. Sorted. */
struct err *samples_label_keys(struct samples *samples, const struct samples_query *query, const struct samples_visitor *visitor) MUST_USE;
/** Values of one label, with the total value of the query's type and filters. Sorted. */
struct err *samples_label_values(struct samples *samples, const struct samples_query *query, struct samples_text key,
	const struct samples_visitor *visitor) MUST_USE;

/* One sample with its own time. */
struct samples_event {
	uint64_t time_unix_nano, value;
	int32_t cpu; /* -1: unknown */
	bool has_link;
	uint8_t trace_id[16], span_id[8];
	const char *type; /* as samples_types; borrowed */
};
/** What is kept of exact timestamps (raw_for), in no order; the query's range is exact to the nanosecond here. */
struct err *samples_events(struct samples *samples, const struct samples_query *query,
	struct err *(*event)(void *context, const struct samples_event *event), void *context) MUST_USE;

/* Counters since it was opened, and gauges. Any thread. */
struct samples_counters {
	uint64_t commits, batches, samples, profiles, duplicate_profiles, rejected_future, rejected_old, busy;
	uint64_t merges, sealed, dropped_by_age, dropped_by_size; /* merges of blocks; partitions */
	uint64_t queue_bytes, queue_batches;	   /* now */
	uint64_t partitions, stored_bytes;	   /* now: of all tenants, as blocks */
};
void samples_counters(struct samples *samples, struct samples_counters *ret);

#endif
