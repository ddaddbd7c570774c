// SPDX-License-Identifier: Apache-2.0
/*
 * Who sent: one small record a sender, kept in the `profiles` environment over restarts. What a record says is its owner's affair
 * (api/agents.c).
 */
#ifndef CAIRN_PROFILES_SENDERS_H
#define CAIRN_PROFILES_SENDERS_H

#include "profiles/samples.h"

enum { SAMPLES_SENDER_ID_BYTES = 17, SAMPLES_SENDER_RECORD_MAX = 8192 };

/**
 * Keeps a record (copied) in the place of what was there; @p len 0 forgets it. Written with the next commit, without waiting; a failure
 * is nobody's loss but the record's.
 * @return NULL; ERR_LIMIT past SAMPLES_SENDER_RECORD_MAX; ERR_INVALID: opened for reading; ERR_NOMEM. Thread: any.
 */
struct err *samples_sender_put(struct samples *samples, uint32_t tenant, const uint8_t id[SAMPLES_SENDER_ID_BYTES], const void *record,
	size_t len) MUST_USE;

/** Each record that is kept, borrowed for the call, by ID; an error of @p sender ends the walk and is returned. ERR_CORRUPT: a key of a wrong length. */
struct err *samples_senders(struct samples *samples, uint32_t tenant,
	struct err *(*sender)(void *context, const uint8_t id[SAMPLES_SENDER_ID_BYTES], const void *record, size_t len), void *context) MUST_USE;

#endif
