// SPDX-License-Identifier: Apache-2.0
/*
 * What cairn-worker says to cairnd: frames on one pipe, {type u8, length u32 little-endian, payload}.
 *
 *     hello     version u32                                       first, once
 *     progress  phase u8, done u64, total u64                     any time, also between the chunks of a table
 *     skipped   text                                              a member of a package that gave nothing, or parts of a file that were left out, and why
 *     result    identity of a file, length of its table           then `chunk`s until that many bytes came
 *     chunk     at most PROTOCOL_CHUNK_BYTES of the table
 *     needs     build ID (u8 length, bytes), name                 last: start me again with this file too
 *     failed    code u8, text                                     last
 *     done      results u32                                       last
 *
 * Numbers are little-endian; text is u16 length and bytes, without NUL; it may hold anything. The worker parses
 * strangers' bytes and may be in their hands: cairnd believes nothing. Lengths are checked against the limits below before
 * anything is kept, the order of frames against the state, and memory grows with bytes that came, not with those promised.
 */
#ifndef CAIRN_INGEST_PROTOCOL_H
#define CAIRN_INGEST_PROTOCOL_H

#include "base/buf.h"
#include "base/err.h"
#include "fileid/build_id.h"
#include "fileid/fileid.h"
#include "fileid/load_segment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PROTOCOL_VERSION = 2,
	PROTOCOL_HEADER_BYTES = 5,
	PROTOCOL_CHUNK_BYTES = 256 * 1024,
	PROTOCOL_FRAME_MAX = PROTOCOL_CHUNK_BYTES, /* of payload, of any type */
	PROTOCOL_NAME_MAX = 1024,		   /* bytes of a file's name */
	PROTOCOL_TEXT_MAX = 1024,		   /* bytes of a message or of statistics */
	PROTOCOL_RESULTS_MAX = 16384,		   /* files of one job: the largest kernel packages have some 4,500 */
	PROTOCOL_SKIPPED_MAX = 65536,		   /* skipped frames of one job */
	PROTOCOL_PROGRESS_MAX = 10 * 1000 * 1000,  /* progress frames of one job */
};

/* The numbers of the descriptors that a worker starts with. Nothing else is open. */
enum {
	PROTOCOL_FD_OUTPUT = 1,
	PROTOCOL_FD_LAST_WORDS = 2, /* standard error: what a dying worker says */
	PROTOCOL_FD_INPUT = 3,	    /* the first of up to PROTOCOL_INPUTS_MAX inputs; the scratch file follows the last */
	PROTOCOL_INPUTS_MAX = 4,
};

enum protocol_type {
	PROTOCOL_HELLO = 1,
	PROTOCOL_PROGRESS,
	PROTOCOL_SKIPPED,
	PROTOCOL_RESULT,
	PROTOCOL_CHUNK,
	PROTOCOL_NEEDS,
	PROTOCOL_FAILED,
	PROTOCOL_DONE,
};

enum protocol_phase {
	PROTOCOL_STARTING,
	PROTOCOL_UNPACKING, /* bytes of the package */
	PROTOCOL_READING,   /* units of debug information */
	PROTOCOL_WRITING,   /* bytes of the table */
	PROTOCOL_PHASES,
};
/** "starting", "unpacking", "reading", "writing". */
const char *protocol_phase_name(enum protocol_phase phase);

/* Far along in a phase: `done` of `total`; total 0 when it is not known. */
struct protocol_progress {
	enum protocol_phase phase;
	uint64_t done, total;
};

/* What is known of one file before its table. */
struct protocol_result {
	bool debug_only; /* no runtime bytes: `fileid`, `size` and `segments` mean the debug file and are not to be used as a runtime file's */
	bool has_debug;	 /* a debug file took part */
	bool kernel;	 /* a Linux kernel or module: profilers know it by fileid_from_kernel_build_id */
	bool packed;	 /* it lay packed in the file (vmlinuz, .ko.xz): `fileid` is that kernel ID, `size_bytes` the packed file's */
	bool has_text;
	uint64_t text_vaddr; /* where profilers begin to count the addresses of a kernel; has_text only */
	struct fileid fileid;
	struct build_id build_id;		   /* GNU; len 0: none */
	char go_build_id[GO_BUILD_ID_MAX + 1];	   /* "" : none */
	char name[PROTOCOL_NAME_MAX + 1];	   /* within a package; "" else. No control characters */
	uint64_t size_bytes;			   /* of the file */
	uint16_t elf_machine;			   /* e_machine */
	uint32_t sources;			   /* enum table_source bits; 0 when there is no table */
	uint32_t builder_version;		   /* of symbolizer/build */
	struct load_segments segments;
	uint64_t table_bytes;			   /* 0: the file has no symbols at all */
	char stats[PROTOCOL_TEXT_MAX + 1];	   /* for the log: "units=12 rows=3456 .." */
};

struct protocol_needs {
	struct build_id build_id; /* len 0: not known */
	char name[PROTOCOL_NAME_MAX + 1];
};

struct protocol_failure {
	enum err_code code;
	char message[PROTOCOL_TEXT_MAX + 1];
};

/* How a stream of frames ended. */
enum protocol_end {
	PROTOCOL_END_NONE, /* not yet */
	PROTOCOL_END_DONE,
	PROTOCOL_END_NEEDS,
	PROTOCOL_END_FAILED,
};

/* ---- the worker's side: each appends one whole frame to @p out. ERR_NOMEM, ERR_LIMIT. Text that is too long is cut. */

struct err *protocol_put_hello(struct buf *out) MUST_USE;
struct err *protocol_put_progress(struct buf *out, const struct protocol_progress *progress) MUST_USE;
struct err *protocol_put_skipped(struct buf *out, const char *text) MUST_USE;
struct err *protocol_put_result(struct buf *out, const struct protocol_result *result) MUST_USE;
/** @p len in 1 .. PROTOCOL_CHUNK_BYTES, else ERR_INVALID. */
struct err *protocol_put_chunk(struct buf *out, const void *bytes, size_t len) MUST_USE;
struct err *protocol_put_needs(struct buf *out, const struct protocol_needs *needs) MUST_USE;
struct err *protocol_put_failed(struct buf *out, enum err_code code, const char *message) MUST_USE;
struct err *protocol_put_done(struct buf *out, uint32_t results) MUST_USE;

/* ---- cairnd's side */

/* Called from protocol_decode. An error that one returns ends the decoding and is handed on. NULL members: ignored. */
struct protocol_handler {
	void *context;
	void (*progress)(void *context, const struct protocol_progress *progress);
	void (*skipped)(void *context, const char *text);
	/** A whole result; @p table has result->table_bytes bytes, the handler's to take (leave it empty) or to leave. */
	struct err *(*result)(void *context, const struct protocol_result *result, struct buf *table);
};

struct protocol_decoder {
	const struct protocol_handler *handler; /* borrowed */
	uint64_t max_table_bytes;
	struct buf frame;		 /* a frame that is not complete yet */
	struct buf table;		 /* of `result` */
	struct protocol_result result;	 /* valid while in_table */
	struct protocol_progress now;	 /* the last one */
	bool greeted, in_table;
	uint32_t results, skipped, progressed;
	enum protocol_end end;
	struct protocol_needs needs;	 /* END_NEEDS */
	struct protocol_failure failure; /* END_FAILED */
};

/** @p max_table_bytes: a result that promises more is ERR_LIMIT. */
void protocol_decoder_init(struct protocol_decoder *decoder, const struct protocol_handler *handler, uint64_t max_table_bytes);
/**
 * Takes bytes in any pieces.
 * @return NULL; ERR_PEER: malformed, out of order, or anything after the end (says what); ERR_LIMIT: more than a limit allows;
 *         ERR_NOMEM; what the handler returned. After an error nothing more may be fed.
 */
struct err *protocol_decode(struct protocol_decoder *decoder, const void *bytes, size_t len) MUST_USE;
/** NULL when the stream may end here; ERR_PEER: in the middle of a frame, of a table, or before a last frame. */
struct err *protocol_decode_finish(const struct protocol_decoder *decoder) MUST_USE;
void protocol_decoder_deinit(struct protocol_decoder *decoder);

#endif
