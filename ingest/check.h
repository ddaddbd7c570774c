// SPDX-License-Identifier: Apache-2.0
/*
 * What a result must show before it is committed: the worker may be in a stranger's hands.
 */
#ifndef CAIRN_INGEST_CHECK_H
#define CAIRN_INGEST_CHECK_H

#include "ingest/protocol.h"

/* What cairnd knows by itself of a job's one file. */
struct check_expected {
	bool has_file; /* fileid and size are known */
	struct fileid fileid;
	uint64_t size_bytes;
	struct build_id build_id; /* as announced; len 0: nothing was */
};

/**
 * @param expected  NULL for members of a package, of which nothing is known
 * @return NULL; ERR_PEER: the result contradicts itself, its table or the file; ERR_CORRUPT: the table is damaged;
 *         ERR_MISMATCH: it is not the file that was announced; ERR_UNSUPPORTED: a table version unknown here. O(table).
 */
struct err *check_result(const struct protocol_result *result, const struct buf *table, const struct check_expected *expected) MUST_USE;

#endif
