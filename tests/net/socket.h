// SPDX-License-Identifier: Apache-2.0
/*
 * Raw sockets for tests: what a client that keeps no rules can do.
 */
#ifndef CAIRN_TESTS_NET_SOCKET_H
#define CAIRN_TESTS_NET_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A connected loopback socket; aborts the test when that fails. */
int socket_dial(uint16_t port);
/** A socket that listens on a free loopback port; aborts the test when that fails. */
int socket_listen(uint16_t *port_ret);
/** Sends all; false when the peer does not take it. */
bool socket_send(int fd, const void *bytes, size_t len);
bool socket_send_text(int fd, const char *text);
/** Reads until the peer closes or @p ms have passed without a byte; a NUL is put behind. @return bytes; closed_ret (may be NULL): the peer closed in order. */
size_t socket_read_all(int fd, char *ret, size_t size, int ms, bool *closed_ret);
/** Reads one answer with Content-Length or without body (204): exactly its bytes. @return its status, 0 when none came within @p ms. */
unsigned socket_read_reply(int fd, char *ret, size_t size, int ms);
/** True when the peer closes within @p ms (bytes before that are dropped). */
bool socket_closes(int fd, int ms);
uint64_t now_ms(void);
/** Of this process, in KiB. */
uint64_t memory_rss_kib(void);

/** Waits up to @p ms for an expression to become true. */
#define WAIT_FOR(expression, ms)                                                                   \
	__extension__({                                                                            \
		uint64_t wait_end_ = now_ms() + (ms);                                              \
		while (!(expression) && now_ms() < wait_end_)                                      \
			(void)usleep(2000);                                                        \
		(expression);                                                                      \
	})

#endif
