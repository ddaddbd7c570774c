// SPDX-License-Identifier: Apache-2.0
/*
 * Sends one request again and again over N keep-alive connections, a thread each, and prints how long the answers took.
 *     http-load HOST PORT PATH CONTENT_TYPE BODY_FILE CLIENTS SECONDS
 * One JSON line: requests, errors, bytes of one answer, and milliseconds at p50, p90, p99, the largest. Started by
 * bench/http_symbolize. Blocking sockets and one buffer a thread, so that it is not what is measured.
 */
#include "base/buf.h"
#include "base/err.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

enum { SAMPLES_MAX = 1 << 20, READ_BYTES = 1 << 20 };

struct plan {
	struct sockaddr_in address;
	struct buf request; /* head and body */
	uint64_t end_ns;
};

struct client {
	pthread_t thread;
	const struct plan *plan;
	uint64_t *samples_ns;
	size_t count, errors;
	uint64_t answer_bytes;
	char failure[256];
};

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool send_all(int fd, const uint8_t *bytes, size_t len)
{
	while (len > 0) {
		ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);
		if (sent <= 0)
			return false;
		bytes += sent;
		len -= (size_t)sent;
	}
	return true;
}

/* Reads one answer with a Content-Length; only its head is looked at. */
static bool read_answer(int fd, char *buffer, uint64_t *bytes_ret, unsigned *status_ret)
{
	size_t got = 0;
	char *end = NULL;

	while (!end) {
		ssize_t n = recv(fd, buffer + got, READ_BYTES - 1 - got, 0);
		if (n <= 0)
			return false;
		got += (size_t)n;
		buffer[got] = 0;
		end = strstr(buffer, "\r\n\r\n");
		if (!end && got == READ_BYTES - 1)
			return false;
	}
	const char *length = strcasestr(buffer, "\r\ncontent-length:");
	if (!length || length > end || sscanf(buffer, "HTTP/1.1 %u", status_ret) != 1)
		return false;
	uint64_t body = strtoull(length + 17, NULL, 10);
	uint64_t have = got - (size_t)(end + 4 - buffer);
	while (have < body) {
		ssize_t n = recv(fd, buffer, READ_BYTES, 0);
		if (n <= 0)
			return false;
		have += (uint64_t)n;
	}
	*bytes_ret = body;
	return have == body;
}

static int connect_to(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0)
		return -1;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void *run(void *arg)
{
	struct client *client = arg;
	const struct plan *plan = client->plan;
	CLEANUP(freep) char *buffer = malloc(READ_BYTES);
	CLEANUP(closep) int fd = connect_to(&plan->address);
	unsigned status = 0;

	if (!buffer || fd < 0) {
		client->errors++;
		(void)snprintf(client->failure, sizeof(client->failure), "connect: %s", strerror(errno));
		return NULL;
	}
	while (now_ns() < plan->end_ns && client->count < SAMPLES_MAX) {
		uint64_t begin = now_ns();
		if (!send_all(fd, plan->request.data, plan->request.len) ||
			!read_answer(fd, buffer, &client->answer_bytes, &status) || status != 200) {
			client->errors++;
			(void)snprintf(client->failure, sizeof(client->failure), "status %u: %.200s", status, buffer);
			return NULL;
		}
		client->samples_ns[client->count++] = now_ns() - begin;
	}
	return NULL;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double ms_at(const uint64_t *sorted, size_t count, double part)
{
	return count ? (double)sorted[(size_t)((double)(count - 1) * part)] / 1e6 : 0;
}

static int report(struct client *clients, size_t n, double seconds)
{
	size_t total = 0, errors = 0;
	const char *failure = "";

	for (size_t i = 0; i < n; i++) {
		total += clients[i].count;
		errors += clients[i].errors;
		if (clients[i].errors)
			failure = clients[i].failure;
	}
	CLEANUP(freep) uint64_t *all = calloc(total + 1, sizeof(*all));
	if (!all)
		return 1;
	for (size_t i = 0, at = 0; i < n; at += clients[i++].count)
		memcpy(all + at, clients[i].samples_ns, clients[i].count * sizeof(*all));
	qsort(all, total, sizeof(*all), compare);
	printf("{\"clients\":%zu,\"requests\":%zu,\"errors\":%zu,\"per_second\":%.1f,\"answer_bytes\":%llu,\"p50_ms\":%.2f,"
	       "\"p90_ms\":%.2f,\"p99_ms\":%.2f,\"max_ms\":%.2f}\n",
		n, total, errors, (double)total / seconds, (unsigned long long)clients[0].answer_bytes, ms_at(all, total, .5),
		ms_at(all, total, .9), ms_at(all, total, .99), ms_at(all, total, 1));
	if (errors)
		fprintf(stderr, "http-load: %s\n", failure);
	return errors ? 1 : 0;
}

static struct err *make_request(char **argv, struct plan *plan)
{
	CLEANUP(buf_deinit) struct buf body = {0};
	FILE *file = fopen(argv[5], "rbe");
	if (!file)
		return err_os(errno, "open %s", argv[5]);
	struct err *e = NULL;
	for (size_t got = 1; got > 0 && !e; body.len += got) {
		e = buf_reserve(&body, READ_BYTES);
		got = e ? 0 : fread(body.data + body.len, 1, READ_BYTES, file);
	}
	(void)fclose(file);
	TRY(e);
	TRY(buf_printf(&plan->request, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", argv[3],
		argv[1], argv[4], body.len));
	return buf_append(&plan->request, body.data, body.len);
}

int main(int argc, char **argv)
{
	struct plan plan = {.address.sin_family = AF_INET};

	if (argc != 8 || inet_pton(AF_INET, argv[1], &plan.address.sin_addr) != 1) {
		fprintf(stderr, "usage: http-load IPV4 PORT PATH CONTENT_TYPE BODY_FILE CLIENTS SECONDS\n");
		return 2;
	}
	plan.address.sin_port = htons((uint16_t)atoi(argv[2]));
	size_t n = (size_t)atoi(argv[6]);
	double seconds = atof(argv[7]);
	struct err *e = make_request(argv, &plan);
	if (e) {
		fprintf(stderr, "http-load: %s\n", err_message(e));
		return 1;
	}
	struct client *clients = calloc(n ? n : 1, sizeof(*clients));
	if (!clients)
		return 1;
	plan.end_ns = now_ns() + (uint64_t)(seconds * 1e9);
	for (size_t i = 0; i < n; i++) {
		clients[i].plan = &plan;
		clients[i].samples_ns = malloc(SAMPLES_MAX * sizeof(uint64_t));
		if (!clients[i].samples_ns || pthread_create(&clients[i].thread, NULL, run, &clients[i]) != 0)
			return 1;
	}
	for (size_t i = 0; i < n; i++)
		(void)pthread_join(clients[i].thread, NULL);
	return report(clients, n, seconds);
}
