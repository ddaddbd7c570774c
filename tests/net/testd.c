// SPDX-License-Identifier: Apache-2.0
/*
 * The fixture as a program: prints its port and serves until standard input ends, then prints what it counted.
 *   net_testd [loops [address [certificate key]]]        with TLS too, whose port is then printed second
 * For h2load, curl and the script tests.
 */
#include "tests/net/fixture.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
	struct fixture fixture;
	char byte;

	fixture_start_on(&fixture, NULL, argc > 1 ? (unsigned)atoi(argv[1]) : 0, argc > 2 ? argv[2] : "127.0.0.1:0");
	(void)printf("%u\n", fixture.port);
	if (argc > 4) {
		struct net_tls_options tls = {.certificate_file = argv[3], .key_file = argv[4]};
		uint16_t port = 0;
		struct err *e = net_server_listen_tls(fixture.server, "127.0.0.1:0", &tls, &port);
		if (e) {
			(void)fprintf(stderr, "net_testd: %s\n", err_message(e));
			err_free(e);
			fixture_stop(&fixture, 0);
			return 1;
		}
		(void)printf("%u\n", port);
	}
	(void)fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	struct net_server_stats stats = fixture_stats(&fixture);
	fixture_stop(&fixture, 1000);
	struct rusage usage;
	(void)getrusage(RUSAGE_SELF, &usage);
	(void)printf("requests=%" PRIu64 " replies_2xx=%" PRIu64 " bytes_in=%" PRIu64 " bytes_out=%" PRIu64
		     " max_rss_kib=%ld cpu_ms=%ld\n",
		stats.requests, stats.replies_2xx, stats.bytes_in, stats.bytes_out, usage.ru_maxrss,
		usage.ru_utime.tv_sec * 1000 + usage.ru_utime.tv_usec / 1000 + usage.ru_stime.tv_sec * 1000 +
			usage.ru_stime.tv_usec / 1000);
	return 0;
}
