// SPDX-License-Identifier: Apache-2.0
/*
 * Deferred answers, aborts and stops from several threads at once: a plain program, since Criterion does not run under
 * ThreadSanitizer. Clients ask /thread and /later, and leave in the middle half of the time; the server is stopped while they
 * do. Every request must be given back exactly once.
 */
#include "tests/net/fixture.h"
#include "tests/net/socket.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>

enum { CLIENTS = 4, ROUNDS = 5, ROUND_MS = 300 };

static struct fixture fixture;
static _Atomic bool ending;
static _Atomic unsigned long answered;

static int try_dial(uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
		(void)close(fd);
		fd = -1;
	}
	return fd;
}

static void *client(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	char reply[4096];

	while (!atomic_load(&ending)) {
		int fd = try_dial(fixture.port);
		if (fd < 0)
			continue;
		const char *what = rand_r(&seed) % 2 ? "GET /thread HTTP/1.1\r\nHost: t\r\n\r\n" :
						       "GET /later?ms=1 HTTP/1.1\r\nHost: t\r\n\r\n";
		for (int i = rand_r(&seed) % 4; i < 4; i++) {
			if (!socket_send_text(fd, what))
				break;
			if (rand_r(&seed) % 2)
				break;
			unsigned status = socket_read_reply(fd, reply, sizeof(reply), 1000);
			if (status == 200)
				atomic_fetch_add(&answered, 1);
			else if (status != 503)
				break;
		}
		(void)close(fd);
	}
	return NULL;
}

static bool run_round(void)
{
	pthread_t threads[CLIENTS];

	fixture_start(&fixture, NULL, 2);
	atomic_store(&ending, false);
	for (uintptr_t i = 0; i < CLIENTS; i++)
		if (pthread_create(&threads[i], NULL, client, (void *)(i + 1)) != 0)
			abort();
	(void)usleep(ROUND_MS * 1000);
	struct net_server_stats stats = fixture_stats(&fixture);
	fixture_stop(&fixture, 20);
	atomic_store(&ending, true);
	for (unsigned i = 0; i < CLIENTS; i++)
		pthread_join(threads[i], NULL);
	unsigned long heads = atomic_load(&fixture.seen.heads), frees = atomic_load(&fixture.seen.frees);
	(void)printf("heads %lu frees %lu aborts %lu posts %lu wakes %lu\n", heads, frees, atomic_load(&fixture.seen.aborts),
		stats.loop_posts, stats.loop_wakes);
	return heads == frees && heads > 0;
}

int main(void)
{
	for (int i = 0; i < ROUNDS; i++)
		if (!run_round())
			return 1;
	(void)printf("answered %lu\n", atomic_load(&answered));
	return atomic_load(&answered) > 0 ? 0 : 1;
}
