// SPDX-License-Identifier: Apache-2.0
/*
 * What the suites of the server share: one fixture, and questions over raw sockets. Included once by a test file.
 */
#ifndef CAIRN_TESTS_NET_SUITE_H
#define CAIRN_TESTS_NET_SUITE_H

#include "tests/net/fixture.h"
#include "tests/net/socket.h"

#include <criterion/criterion.h>
#include <string.h>

#define HOST "Host: t\r\n"

enum { SECOND = 1000, REPLY_SIZE = 1 << 16 };

static struct fixture fixture;
static char reply[REPLY_SIZE];

static inline void start(const struct net_limits *limits)
{
	fixture_start(&fixture, limits, 2);
}

static inline void stop(void)
{
	fixture_stop(&fixture, 2 * SECOND);
}

/* Sends `text` on a new connection and reads one answer. */
static inline unsigned ask(const char *text)
{
	int fd = socket_dial(fixture.port);

	cr_assert(socket_send_text(fd, text));
	unsigned status = socket_read_reply(fd, reply, sizeof(reply), 5 * SECOND);
	(void)close(fd);
	return status;
}

static inline const char *body_of(const char *text)
{
	const char *body = strstr(text, "\r\n\r\n");

	return body ? body + 4 : "";
}

#endif
