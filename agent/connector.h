// SPDX-License-Identifier: Apache-2.0
/*
 * Connecting without waiting for it: resolving, connecting and the TLS handshake take a thread of their own for as long as they
 * last, so that sampling never stands still because a name server does. Pauses between attempts double, with jitter, so that a thousand
 * agents do not come back in the same second. One owner.
 */
#ifndef CAIRN_AGENT_CONNECTOR_H
#define CAIRN_AGENT_CONNECTOR_H

#include "net/grpc_client.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	CONNECTOR_PAUSE_FIRST_MS = 250,
	CONNECTOR_PAUSE_MAX_MS = 30000,
	CONNECTOR_TIMEOUT_MS = 5000,
	CONNECTOR_ASKED_MAX_MS = 300000, /* longer than that no server makes us wait */
};

struct connector;
/** @p address, @p options and what they point to are borrowed. ERR_INVALID: an address or a file of TLS that will not do, now; ERR_NOMEM. */
struct err *connector_create(const char *address, const struct net_grpc_client_options *options, struct connector **ret) MUST_USE;
/** Waits for an attempt under way. NULL is fine. */
void connector_destroy(struct connector *connector);
/**
 * Goes on with connecting: begins an attempt when it is time, or takes its result.
 * @param ret  the client, or NULL: not yet
 * @return NULL; why an attempt failed (once an attempt; the next one begins by itself); ERR_OS: no thread
 */
struct err *connector_poll(struct connector *connector, uint64_t now_ms, struct net_grpc_client **ret) MUST_USE;
/** The connection that was handed out is lost: the next attempt after a pause, which is short when it was good for a while. */
void connector_lost(struct connector *connector, uint64_t now_ms, bool was_good);
/** No attempt before then: the server asked for a pause. */
void connector_wait(struct connector *connector, uint64_t until_ms);
/** The pause before attempt @p failures + 1: 3/4 to 5/4 of doubled ones. @p random any number. */
uint64_t connector_pause_ms(unsigned failures, uint64_t random);
/** The pause for a server that asks for @p asked_ms: not less, from CONNECTOR_PAUSE_FIRST_MS (where it asks for none) up to
 * CONNECTOR_ASKED_MAX_MS, and up to a quarter more, so that not all agents come in the same moment. */
uint64_t connector_asked_pause_ms(uint64_t asked_ms, uint64_t random);

#endif
