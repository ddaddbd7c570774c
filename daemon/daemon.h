// SPDX-License-Identifier: Apache-2.0
/* The parts of cairnd, put together and taken apart in order. */
#ifndef CAIRN_DAEMON_DAEMON_H
#define CAIRN_DAEMON_DAEMON_H

#include "daemon/settings.h"

struct daemon;

/**
 * Opens the store, starts the workers' runner, the pools and the loops, and listens. Signals that main waits for must be
 * blocked already: threads inherit that.
 * @param settings  borrowed until daemon_stop
 * @return NULL: requests are served; else one line that says what and where (address in use, directory locked, ..).
 */
struct err *daemon_start(const struct settings *settings, struct daemon **ret) MUST_USE;
/** "http=127.0.0.1:4318 grpc=127.0.0.1:4317": the addresses with their real ports. Borrowed. */
const char *daemon_addresses(const struct daemon *daemon);
/** What has to be done now and then: call every minute or so. */
void daemon_tick(struct daemon *daemon);
/** Stops accepting, lets requests finish for settings.drain, leaves unfinished jobs queued, closes the store. NULL is fine. */
void daemon_stop(struct daemon *daemon);

#endif
