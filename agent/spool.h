// SPDX-License-Identifier: Apache-2.0
/*
 * Reports on disk, for while the server is away, and across restarts of the agent: each with the definitions it needs, so that it can
 * be sent as it lies there. Bounded: past the limit the oldest segment file is deleted and its samples counted. Kept beside
 * them are the instance and a sequence number past all that were used, since both live as long as the reports do.
 *
 *     DIR/state                     CAIRNSS1, instance, next sequence number, XXH3-64 of the bytes before
 *     DIR/00000000000000000001.spool CAIRNSP1, instance, then records:
 *         u32 0x43525054, u32 length of the payload, u64 sequence, u32 samples, u8 acknowledged, u8[3] 0,
 *         u64 XXH3-64 of length, sequence, samples and payload, then the payload: envelopes, each behind its length as u32
 *
 * All little-endian. A damaged record ends what is read of its segment; a half-written one at the end of a segment is what a crash leaves. One
 * thread, one process (the folder is locked).
 */
#ifndef CAIRN_AGENT_SPOOL_H
#define CAIRN_AGENT_SPOOL_H

#include "base/buf.h"
#include "proto/agent.h"

enum {
	SPOOL_SEGMENT_BYTES_MAX = 4 << 20,
	SPOOL_PAYLOAD_BYTES_MAX = 8 << 20,
	SPOOL_RECORDS_MAX = 65536, /* the oldest segment goes before more */
	SPOOL_SEGMENT_HEAD = 8 + AGENT_INSTANCE_BYTES,
	SPOOL_RECORD_HEAD = 32,
};

struct spool_counters {
	uint64_t reports, bytes;		 /* now */
	uint64_t dropped_reports, dropped_samples; /* for want of room */
	uint64_t damaged; /* records or ends of segments that could not be read */
	uint64_t written_reports;
};

struct spool;
/**
 * @param dir  created when absent
 * @return NULL; ERR_OS; ERR_BUSY: another process has it; ERR_NOMEM.
 */
struct err *spool_open(const char *dir, uint64_t bytes_max, struct spool **ret) MUST_USE;
void spool_close(struct spool *spool);

const uint8_t *spool_instance(const struct spool *spool);
/** A number never given before with this instance, also not by an earlier run. ERR_OS. */
struct err *spool_next_sequence(struct spool *spool, uint64_t *ret) MUST_USE;

/** Appends a report, durably. @p payload: its envelopes, each behind its length as u32. ERR_OS; ERR_LIMIT: the payload; ERR_NOMEM. */
struct err *spool_append(struct spool *spool, uint64_t sequence, uint32_t samples, const struct buf *payload) MUST_USE;
/**
 * The oldest report that was not handed out since spool_rewind, its payload in @p payload (emptied first). False when there is none.
 * What cannot be read is counted and passed over.
 */
bool spool_next(struct spool *spool, uint64_t *sequence_ret, struct buf *payload);
bool spool_has_next(const struct spool *spool);
/** All that is not acknowledged is handed out again: another connection. */
void spool_rewind(struct spool *spool);
/** The server did not take it: hands it out again, and after a few times drops it. False: there is no such report. */
bool spool_refused(struct spool *spool, uint64_t sequence);
/** Samples of a report; 0: there is no such report. */
uint32_t spool_samples(const struct spool *spool, uint64_t sequence);
/** It is durable elsewhere. False: there is no such report. */
bool spool_acknowledge(struct spool *spool, uint64_t sequence);
void spool_counters(const struct spool *spool, struct spool_counters *ret);

struct spool_record {
	uint64_t sequence;
	uint32_t samples, payload_len;
	size_t offset; /* of the record in its segment */
	bool acknowledged;
	const uint8_t *payload;
};
/** The record at the reader's place, which is in a whole segment. False: the end, or (@p r failed) damaged from here on. */
bool spool_read_record(struct reader *r, struct spool_record *ret);
/** The next envelope of a payload; false at its end, and when it is malformed (@p r failed). */
bool spool_read_envelope(struct reader *r, struct wire_span *ret);

#endif
