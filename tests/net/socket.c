// SPDX-License-Identifier: Apache-2.0
#include "tests/net/socket.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int socket_listen(uint16_t *port_ret)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1) ||
		getsockname(fd, (struct sockaddr *)&address, &len))
		abort();
	*port_ret = ntohs(address.sin_port);
	return fd;
}

int socket_dial(uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
		perror("dial");
		abort();
	}
	return fd;
}

bool socket_send(int fd, const void *bytes, size_t len)
{
	const char *at = bytes;

	while (len > 0) {
		ssize_t sent = send(fd, at, len, MSG_NOSIGNAL);
		if (sent <= 0)
			return false;
		at += sent;
		len -= (size_t)sent;
	}
	return true;
}

bool socket_send_text(int fd, const char *text)
{
	return socket_send(fd, text, strlen(text));
}

static bool readable(int fd, int ms)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	return poll(&poll_fd, 1, ms) == 1;
}

size_t socket_read_all(int fd, char *ret, size_t size, int ms, bool *closed_ret)
{
	size_t len = 0;
	bool closed = false;

	while (len + 1 < size && readable(fd, ms)) {
		ssize_t got = recv(fd, ret + len, size - 1 - len, 0);
		closed = got == 0;
		if (got <= 0)
			break;
		len += (size_t)got;
	}
	ret[len] = 0;
	if (closed_ret)
		*closed_ret = closed;
	return len;
}

unsigned socket_read_reply(int fd, char *ret, size_t size, int ms)
{
	size_t len = 0;
	char *body = NULL;

	ret[0] = 0;
	while (!body && len + 1 < size) {
		if (!readable(fd, ms) || recv(fd, ret + len, 1, 0) != 1)
			return 0;
		ret[++len] = 0;
		if (len >= 4 && memcmp(ret + len - 4, "\r\n\r\n", 4) == 0)
			body = ret + len;
	}
	const char *length = strcasestr(ret, "content-length:");
	size_t want = length ? strtoul(length + 15, NULL, 10) : 0;
	while (want > 0 && len + 1 < size) {
		size_t room = size - 1 - len < want ? size - 1 - len : want;
		ssize_t got = readable(fd, ms) ? recv(fd, ret + len, room, 0) : 0;
		if (got <= 0)
			return 0;
		len += (size_t)got;
		want -= (size_t)got;
	}
	ret[len] = 0;
	return (unsigned)strtoul(ret + 9, NULL, 10);
}

bool socket_closes(int fd, int ms)
{
	uint64_t end = now_ms() + (uint64_t)ms;
	char bytes[65536];

	while (now_ms() < end)
		if (readable(fd, 10) && recv(fd, bytes, sizeof(bytes), 0) <= 0)
			return true;
	return false;
}

uint64_t memory_rss_kib(void)
{
	char line[256];
	uint64_t kib = 0;
	FILE *file = fopen("/proc/self/status", "re");

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, "VmRSS:", 6) == 0)
			kib = strtoull(line + 6, NULL, 10);
	if (file)
		(void)fclose(file);
	return kib;
}
