// SPDX-License-Identifier: Apache-2.0
/*
 * Profiles by OTLP: what HTTP and gRPC share. A message becomes a batch of samples; the answer is given when the batch is durable.
 * Internal to api/.
 */
#ifndef CAIRN_API_OTLP_EXPORT_H
#define CAIRN_API_OTLP_EXPORT_H

#include "base/buf.h"
#include "profiles/otlp_intake.h"

struct api;

/* What became of a request, for its answer. */
struct otlp_outcome {
	uint64_t rejected_profiles;
	char message[OTLP_MESSAGE_SIZE]; /* "" when there is nothing to say */
};

/**
 * The batch is durable, or is not: @p e (the callee's). Runs once, on the thread that commits, or on the caller's before otlp_export
 * returns. @p outcome is borrowed.
 */
typedef void otlp_done_fn(void *arg, struct err *e, const struct otlp_outcome *outcome);

/**
 * Takes a protobuf message of @p peer (an address, for the list of agents) in. On NULL @p done has run or will run; otherwise it will not.
 * @return NULL; ERR_INVALID: not a profiles request, or one of proto 1.6 and older; ERR_LIMIT: more than a batch holds; ERR_BUSY: too
 *         much waits for the store; ERR_NOMEM. Worker threads only.
 */
struct err *otlp_export(struct api *api, const char *peer, const void *bytes, size_t len, otlp_done_fn *done, void *arg) MUST_USE;

/** Appends an ExportProfilesServiceResponse. */
struct err *otlp_write_response(const struct otlp_outcome *outcome, struct buf *ret) MUST_USE;

/* What is remembered between requests. */
struct api_otlp;
struct err *api_otlp_create(struct api_otlp **ret) MUST_USE;
/** NULL is fine. */
void api_otlp_destroy(struct api_otlp *otlp);
/** Counts @p bytes of a message as held in memory; false when that is past the limit (then nothing is counted). Any thread. */
bool api_otlp_hold(struct api *api, size_t bytes);
void api_otlp_release(struct api *api, size_t bytes);

#endif
