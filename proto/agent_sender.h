// SPDX-License-Identifier: Apache-2.0
/*
 * The agent's side of one cairn.v1.Agent/Stream as a state machine without I/O (docs/agent-protocol.md), the mirror of
 * profiles/stream.h: reports of samples in, envelopes out; the server's envelopes in, what they ask for out.
 *
 * The owner has *things* (strings, executables, frames, traces, processes, threads, types), each kind counted from 0, and tells
 * what a thing is when asked. A thing gets a number at its first use on a connection, so that what is frequent has a short
 * one and what is defined together follows each other; what the server does not know (any more) is defined again.
 *
 *     TRY(agent_sender_hello(sender, &hello, labels, count));          // begins a connection: no number is known
 *     TRY(agent_sender_report(sender, &report));                       // definitions as needed, then the samples
 *     TRY(agent_sender_take(sender, message));                         // one ServerEnvelope, from a server that is not believed
 *
 * One thread at a time.
 */
#ifndef CAIRN_PROTO_AGENT_SENDER_H
#define CAIRN_PROTO_AGENT_SENDER_H

#include "proto/agent_write.h"

enum {
	AGENT_SENDER_NONE = UINT32_MAX, /* no thing */
	AGENT_SENDER_LABELS_MAX = 32, /* of a process */
	AGENT_SENDER_SAMPLES_MAX = 65536, /* of a report: what a server takes */
};

struct agent_sender_frame {
	uint32_t kind;	     /* FrameKind of the .proto */
	uint32_t executable; /* thing, or NONE */
	uint64_t address;
	uint32_t function; /* string thing when the sender has symbolized it; NONE: no line */
	uint32_t file, line; /* of function; file: string thing or NONE */
};

struct agent_sender_process {
	uint32_t pid;
	uint32_t executable, executable_path, service, container; /* string things or NONE */
	uint32_t labels[2 * AGENT_SENDER_LABELS_MAX]; /* string things: key, value, .. */
	uint32_t label_count;			      /* pairs */
};

struct agent_sender_thread {
	uint32_t process; /* thing */
	uint32_t tid, name; /* name: string thing or NONE */
};

/* What things are. Pointers given out stay valid until the next call of any of these. */
struct agent_sender_source {
	void (*string)(void *things, uint32_t thing, const char **text_ret, size_t *len_ret);
	/* Everything but the number; at most 64 segments. */
	void (*executable)(void *things, uint32_t thing, struct agent_executable *ret, const struct agent_segment **segments_ret,
		size_t *count_ret);
	void (*frame)(void *things, uint32_t thing, struct agent_sender_frame *ret);
	/* Frame things, leaf first, at most AGENT_WRITE_DEPTH_MAX. */
	void (*trace)(void *things, uint32_t thing, const uint32_t **frames_ret, uint32_t *depth_ret);
	void (*process)(void *things, uint32_t thing, struct agent_sender_process *ret);
	void (*thread)(void *things, uint32_t thing, struct agent_sender_thread *ret);
	void (*type)(void *things, uint32_t thing, struct agent_type *ret);
};

/* What the owner does. Any may be NULL but send. */
struct agent_sender_ops {
	/** One AgentEnvelope, borrowed. Its errors come back from the function that caused it. */
	struct err *(*send)(void *context, enum agent_body body, const struct buf *envelope);
	/** The samples of this number are durable. */
	struct err *(*acknowledged)(void *context, uint64_t sequence);
	/** The samples of this number were not taken: send them again (what they lack will be defined). */
	struct err *(*refused)(void *context, uint64_t sequence);
	void (*welcome)(void *context, const struct server_welcome *welcome);
	/** At most so many envelopes a second from now on; 0: no bound. */
	void (*pace)(void *context, const struct server_pace *pace);
	void (*want_symbols)(void *context, const struct server_want *want);
};

struct agent_sender_counters {
	uint64_t needs;					      /* times that the server asked for numbers */
	uint64_t rejected_future, rejected_old, duplicates; /* as the server says */
	uint64_t unknown; /* envelopes of a kind that is not known here */
};

struct agent_sender;
/** @p source, @p ops and @p context are borrowed until agent_sender_destroy. ERR_NOMEM. */
struct err *agent_sender_create(const struct agent_sender_source *source, const struct agent_sender_ops *ops, void *context,
	struct agent_sender **ret) MUST_USE;
/** NULL is fine. */
void agent_sender_destroy(struct agent_sender *sender);

/** Begins a connection: numbers are given anew, and hello is the first envelope. ERR_NOMEM; errors of send. */
struct err *agent_sender_hello(struct agent_sender *sender, const struct agent_hello *hello, const struct agent_label *labels,
	size_t count) MUST_USE;
struct err *agent_sender_status(struct agent_sender *sender, const struct agent_status *status, const struct agent_loss *losses,
	size_t count) MUST_USE;

struct agent_sender_report {
	void *things; /* given to the source */
	uint64_t sequence, period_ns;
	uint32_t type; /* thing */
	bool summed;
	const struct agent_sample *samples; /* thread and trace are things */
	size_t count;			    /* 1 to AGENT_SENDER_SAMPLES_MAX */
};
/**
 * What the samples need that is not defined yet, then the samples. All reports between two agent_sender_forget (or hello) have
 * the same things.
 * @return NULL; ERR_LIMIT: past AGENT_SENDER_SAMPLES_MAX, or a trace that is too deep; ERR_NOMEM; errors of send.
 */
struct err *agent_sender_report(struct agent_sender *sender, const struct agent_sender_report *report) MUST_USE;
/** Numbers are given anew, on the same connection: other things follow, or envelopes of someone else were sent between. */
void agent_sender_forget(struct agent_sender *sender);

/**
 * Takes one ServerEnvelope; what it asks for is called back. Numbers that the server names and that were never given are passed over.
 * @return NULL; ERR_FORMAT: malformed; ERR_NOMEM; errors of the callbacks.
 */
struct err *agent_sender_take(struct agent_sender *sender, struct wire_span message) MUST_USE;
void agent_sender_counters(const struct agent_sender *sender, struct agent_sender_counters *ret);

#endif
