// SPDX-License-Identifier: Apache-2.0
/*
 * gRPC's length-prefixed messages and its timeouts, without I/O. Internal to net/.
 */
#ifndef CAIRN_NET_GRPC_FRAME_H
#define CAIRN_NET_GRPC_FRAME_H

#include "base/codec.h"

enum { GRPC_PREFIX_BYTES = 5 };

struct grpc_reader {
	uint64_t limit;	  /* of a message, before and after decompression */
	enum codec codec; /* of grpc-encoding */
	uint8_t prefix[GRPC_PREFIX_BYTES];
	unsigned prefix_len;
	uint32_t left; /* of the message */
	struct buf message;
	/** A whole message, decompressed; may be taken. False: read no more. */
	bool (*on_message)(void *user, struct buf *message);
	void *user;
};

/**
 * Takes bytes of the body.
 * @return NULL; ERR_LIMIT: a message past the limit, known from its prefix before its bytes; ERR_UNSUPPORTED: compressed
 * without a grpc-encoding; ERR_FORMAT: a flag that is neither 0 nor 1, or damaged compression; ERR_NOMEM
 */
struct err *grpc_reader_feed(struct grpc_reader *reader, const uint8_t *bytes, size_t len) MUST_USE;
/** ERR_FORMAT when the body ended within a message. */
struct err *grpc_reader_finish(const struct grpc_reader *reader) MUST_USE;
void grpc_reader_deinit(struct grpc_reader *reader);

/** "100m" and the like, in milliseconds, rounded up; false when malformed. */
bool grpc_timeout_parse(const char *text, uint64_t *ms_ret);
/** Percent-encodes what a grpc-message may not hold. */
struct err *grpc_message_encode(const char *text, struct buf *ret) MUST_USE;

#endif
