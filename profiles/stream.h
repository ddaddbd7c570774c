// SPDX-License-Identifier: Apache-2.0
/*
 * The server's side of one cairn.v1.Agent/Stream as a state machine without I/O (docs/agent-protocol.md): messages in, messages
 * out, and batches of samples to be committed, each with a ticket that says which sequence numbers it acknowledges.
 *
 *     e = stream_feed(stream, message, len);            // one AgentEnvelope. An error ends the stream
 *     if (stream_take(stream, &batch, &ticket)) ..      // commit it; when it is durable:
 *     stream_acknowledge(stream, ticket, &result);
 *
 * Definitions are bound to numbers for as long as the stream lives, or until they pass memory_max: then all are forgotten and
 * the sender is asked again. Samples of an unknown number are not taken and asked for: their sender has them still.
 *
 * One thread at a time. Everything fed is hostile.
 */
#ifndef CAIRN_PROFILES_STREAM_H
#define CAIRN_PROFILES_STREAM_H

#include "fileid/load_segment.h"
#include "profiles/samples.h"
#include "proto/agent.h"

#include <stdatomic.h>

/* Past a limit: ERR_LIMIT, unless it says otherwise. */
enum {
	STREAM_MESSAGE_BYTES_MAX = 4 << 20,
	STREAM_SAMPLES_MAX = 65536, /* of one envelope */
	STREAM_STRINGS_MAX = 1 << 20, /* the largest number of each kind */
	STREAM_EXECUTABLES_MAX = 1 << 17,
	STREAM_FRAMES_MAX = 1 << 22,
	STREAM_TRACES_MAX = 1 << 20,
	STREAM_PROCESSES_MAX = 1 << 17,
	STREAM_THREADS_MAX = 1 << 20,
	STREAM_TYPES_MAX = 64,
	STREAM_LINKS_MAX = 1 << 20,
	STREAM_LABELS_MAX = 32,		/* of a hello, and of a process */
	STREAM_TEXT_MAX = SAMPLES_TEXT_MAX, /* bytes of a string; the rest is cut */
	STREAM_DEPTH_MAX = PROFILE_MAX_DEPTH,
	STREAM_SEGMENTS_MAX = LOAD_SEGMENTS_MAX,
	STREAM_NEED_MAX = 1000, /* numbers of a kind in one `need`; more are asked for later */
	STREAM_GATHER_BYTES = 64 << 20, /* memory of a batch: past it stream_is_full */
	STREAM_GATHER_ENVELOPES = 4096, /* of a batch, likewise */
	STREAM_MEMORY_MAX_DEFAULT = 64 << 20,
};

/* Of all streams; relaxed. */
struct stream_counters {
	_Atomic uint64_t envelopes, definitions, samples, unknown_bodies;
	_Atomic uint64_t needs_samples;	    /* envelopes of samples that were not taken: unknown numbers */
	_Atomic uint64_t needs_definitions; /* definitions that were not taken, likewise */
	_Atomic uint64_t forgotten;	    /* times that all definitions were forgotten: memory_max */
	_Atomic uint64_t acknowledged;	    /* sequence numbers */
	_Atomic uint64_t duplicates;	    /* envelopes that were durable before */
	_Atomic uint64_t rejected_future, rejected_old; /* samples */
	_Atomic uint64_t malformed, past_limit; /* streams ended for it */
	_Atomic uint64_t texts_cut;
	_Atomic uint64_t memory_bytes; /* gauge: definitions of all streams */
};

/* What the owner does. The calls come from within the functions below; any may be NULL but send. */
struct stream_ops {
	/** One ServerEnvelope; taken. */
	void (*send)(void *context, struct buf *take_message);
	void (*hello)(void *context, const struct agent_hello *hello);
	void (*status)(void *context, const struct agent_status *status);
	/** A definition that is well-formed: file ID of 0 or 16 bytes, at most STREAM_SEGMENTS_MAX segments. */
	void (*executable)(void *context, const struct agent_executable *executable);
};

struct stream_options {
	struct samples *samples; /* borrowed */
	uint32_t tenant;
	uint64_t memory_max; /* 0: STREAM_MEMORY_MAX_DEFAULT */
	uint32_t envelopes_per_second; /* told in the welcome; the owner counts */
	const struct stream_ops *ops;
	void *context;
	struct stream_counters *counters;
};

struct stream;

struct err *stream_create(const struct stream_options *options, struct stream **ret) MUST_USE;
void stream_destroy(struct stream *stream);
void stream_destroyp(struct stream **stream);

/**
 * Takes one message. After an error the stream can only be destroyed (what was taken before may still be committed).
 * @return NULL; ERR_FORMAT, ERR_INVALID: malformed, with the place ("envelope 7: samples: trace column ..."); ERR_LIMIT: a limit
 *         above; ERR_NOMEM; errors of samples_batch_*. O(bytes).
 */
struct err *stream_feed(struct stream *stream, const void *message, size_t len) MUST_USE;
/** The instance of the hello, or NULL before it. */
const uint8_t *stream_instance(const struct stream *stream);
/** Bytes that the definitions take. */
size_t stream_memory(const struct stream *stream);

/** Enough has been gathered: feed no more until stream_take. */
bool stream_is_full(const struct stream *stream);
/** Envelopes of samples that were gathered since stream_take. */
uint32_t stream_gathered(const struct stream *stream);

/* What a batch acknowledges. */
struct stream_ticket {
	uint64_t *sequences; /* malloc'd */
	uint32_t count, cap;
	uint64_t samples;
};
/** Hands out the samples gathered so far, with what they acknowledge; false when there are none. */
bool stream_take(struct stream *stream, struct samples_batch **batch_ret, struct stream_ticket *ret);
/** The batch of @p take_ticket is durable: tells the sender. */
struct err *stream_acknowledge(struct stream *stream, struct stream_ticket *take_ticket, const struct samples_result *result) MUST_USE;
void stream_ticket_deinit(struct stream_ticket *ticket);

#endif
