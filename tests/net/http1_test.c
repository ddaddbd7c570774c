// SPDX-License-Identifier: Apache-2.0
/*
 * The HTTP/1.1 core without sockets: what goes in, cut at every byte, and what comes out.
 */
#include "net/http1.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* What the events said, as one text: "POST /a?q [n=v;..] body=.. end\n". */
struct log {
	char text[65536];
	size_t len;
	struct http1 *core;
	bool answer; /* call http1_next after each request, as an owner that answers at once */
	bool in_body;
};

__attribute__((format(printf, 2, 3))) static void say(struct log *log, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log->len += (size_t)vsnprintf(log->text + log->len, sizeof(log->text) - log->len, format, args);
	va_end(args);
	cr_assert_lt(log->len, sizeof(log->text));
}

static void on_head(void *user, struct net_head *take_head)
{
	struct log *log = user;

	say(log, "%s %s?%s [", take_head->method_text, take_head->path, take_head->query);
	for (size_t i = 0; i < take_head->header_count; i++)
		say(log, "%s=%s;", take_head->headers[i].name, take_head->headers[i].value);
	say(log, "]%s%s", take_head->has_body ? " body" : "", take_head->expect_continue ? " expect" : "");
	log->in_body = false;
	net_head_deinit(take_head);
}

static void on_body(void *user, const uint8_t *bytes, size_t len)
{
	struct log *log = user;

	if (!log->in_body)
		say(log, "=");
	log->in_body = true;
	say(log, "%.*s", (int)len, (const char *)bytes);
}

static void on_end(void *user)
{
	struct log *log = user;

	say(log, " end%s\n", log->core->keep_alive ? "" : " close");
}

static const struct http1_events events = {.on_head = on_head, .on_body = on_body, .on_end = on_end};

enum { HEAD_MAX = 1024, COUNT_MAX = 8 };

/* Feeds input in pieces that end at `cut` (SIZE_MAX: whole; 0: byte by byte) and appends the failure, if any. */
static void run(struct log *log, const char *input, size_t len, size_t cut)
{
	struct http1 core;
	size_t pos = 0;

	*log = (struct log){.core = &core};
	http1_init(&core, &events, log, HEAD_MAX, COUNT_MAX);
	while (pos < len) {
		size_t stop = cut == 0 ? pos + 1 : pos < cut && cut < len ? cut : len;
		while (pos < stop) {
			/* A copy of its own size, so that AddressSanitizer sees a read past the piece. */
			uint8_t *piece = malloc(stop - pos);
			memcpy(piece, input + pos, stop - pos);
			size_t taken = http1_feed(&core, piece, stop - pos);
			free(piece);
			pos += taken;
			if (core.state == HTTP1_DONE)
				http1_next(&core);
			else if (taken == 0)
				break;
		}
		if (core.state == HTTP1_FAILED)
			break;
	}
	if (core.state == HTTP1_FAILED)
		say(log, "!%u", core.error_status);
	else if (!http1_is_idle(&core))
		say(log, "...");
	http1_deinit(&core);
}

/* The same whole, byte by byte, and cut in two at every place. */
static void expect_n(const char *input, size_t len, const char *want)
{
	struct log *log = malloc(sizeof(*log));

	run(log, input, len, SIZE_MAX);
	cr_assert_str_eq(log->text, want, "whole: got '%s', want '%s'", log->text, want);
	for (size_t cut = 0; cut < len && len < 4096; cut++) {
		run(log, input, len, cut);
		cr_assert_str_eq(log->text, want, "cut at %zu: got '%s', want '%s'", cut, log->text, want);
	}
	free(log);
}

static void expect(const char *input, const char *want)
{
	expect_n(input, strlen(input), want);
}

#define H "Host: a\r\n"

Test(http1_feed, reads_a_request_without_body)
{
	expect("GET /v1/files?a=b HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Blanks: \t v w \t\r\n\r\n",
		"GET /v1/files?a=b [host=a;x-empty=;x-blanks=v w;] end\n");
}

Test(http1_feed, reads_a_body_of_stated_length)
{
	expect("POST /a HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello", "POST /a? [host=a;content-length=5;] body=hello end\n");
	expect("POST /a HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", "POST /a? [host=a;content-length=0;] end\n");
}

Test(http1_feed, reads_chunks_and_drops_extensions_and_trailers)
{
	expect("PUT /a HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n00A;x=\"y\"\r\n, world...\r\n0\r\nX-T: v\r\n\r\n",
		"PUT /a? [host=a;transfer-encoding=Chunked;] body=hello, world... end\n");
	expect("PUT /a HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"PUT /a? [host=a;transfer-encoding=chunked;] body end\n");
}

Test(http1_feed, takes_pipelined_requests_one_at_a_time)
{
	expect("GET /1 HTTP/1.1\r\n" H "\r\nPOST /2 HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nab\r\nGET /3 HTTP/1.1\r\n" H
	       "Connection: close\r\n\r\n",
		"GET /1? [host=a;] end\nPOST /2? [host=a;content-length=2;] body=ab end\n"
		"GET /3? [host=a;connection=close;] end close\n");
}

Test(http1_feed, stops_at_the_end_of_a_request_until_next)
{
	const char *input = "GET /1 HTTP/1.1\r\n" H "\r\nGET /2 HTTP/1.1\r\n" H "\r\n";
	struct log *log = calloc(1, sizeof(*log));
	struct http1 core;
	log->core = &core;
	http1_init(&core, &events, log, HEAD_MAX, COUNT_MAX);

	size_t taken = http1_feed(&core, (const uint8_t *)input, strlen(input));
	cr_assert_eq(taken, strlen(input) / 2);
	cr_assert_eq(core.state, HTTP1_DONE);
	cr_assert_eq(http1_feed(&core, (const uint8_t *)input + taken, taken), 0);
	http1_next(&core);
	cr_assert_eq(http1_feed(&core, (const uint8_t *)input + taken, taken), taken);
	http1_deinit(&core);
	free(log);
}

Test(http1_feed, stops_before_the_body_while_paused)
{
	const char *input = "POST /1 HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc";
	struct log *log = calloc(1, sizeof(*log));
	struct http1 core;
	log->core = &core;
	http1_init(&core, &events, log, HEAD_MAX, COUNT_MAX);
	core.paused = true;

	size_t taken = http1_feed(&core, (const uint8_t *)input, strlen(input));
	cr_assert_eq(taken, strlen(input) - 3);
	core.paused = false;
	cr_assert_eq(http1_feed(&core, (const uint8_t *)input + taken, 3), 3);
	cr_assert_eq(core.state, HTTP1_DONE);
	http1_deinit(&core);
	free(log);
}

Test(http1_feed, takes_two_empty_lines_before_a_request_and_no_third)
{
	expect("\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", "GET /? [host=a;] end\n");
	expect("\r\n\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", "!400");
}

Test(http1_feed, knows_the_forms_of_a_target)
{
	expect("GET http://x:1/p?q HTTP/1.1\r\n" H "\r\n", "GET /p?q [host=a;] end\n");
	expect("GET http://x?q HTTP/1.1\r\n" H "\r\n", "GET /?q [host=a;] end\n");
	expect("OPTIONS * HTTP/1.1\r\n" H "\r\n", "OPTIONS *? [host=a;] end\n");
	expect("GET /a?b?c/d HTTP/1.1\r\n" H "\r\n", "GET /a?b?c/d [host=a;] end\n");
	expect("GET * HTTP/1.1\r\n" H "\r\n", "!400");
	expect("GET http:///x HTTP/1.1\r\n" H "\r\n", "!400");
	expect("GET /a#b HTTP/1.1\r\n" H "\r\n", "!400");
	expect("GET a HTTP/1.1\r\n" H "\r\n", "!400");
}

Test(http1_feed, decides_persistence_by_version_and_connection)
{
	expect("GET / HTTP/1.0\r\n\r\n", "GET /? [] end close\n");
	expect("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET /? [connection=keep-alive;] end\n");
	expect("GET / HTTP/1.1\r\n" H "Connection: foo, close\r\n\r\n", "GET /? [host=a;connection=foo, close;] end close\n");
}

Test(http1_feed, ignores_an_offer_to_upgrade)
{
	expect("GET / HTTP/1.1\r\n" H "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
		"GET /? [host=a;connection=Upgrade, HTTP2-Settings;upgrade=h2c;http2-settings=AAMAAABk;] end\n");
}

Test(http1_feed, knows_only_one_expectation)
{
	expect("PUT / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
		"PUT /? [host=a;expect=100-Continue;content-length=1;] body expect=x end\n");
	expect("PUT / HTTP/1.1\r\n" H "Expect: coffee\r\nContent-Length: 1\r\n\r\nx", "!417");
}

/* Everything that two servers in a row might read differently. */
Test(http1_feed, refuses_what_could_smuggle_a_request)
{
	static const char *const bad[] = {
		"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Content-Length: 5, 5\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Content-Length: -5\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Content-Length: 0x5\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Content-Length: 5 5\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Content-Length : 5\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "X: a\r\n Transfer-Encoding: chunked\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "X: a\r\n\tb\r\n\r\n",
		"POST / HTTP/1.1\r\n Host: a\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "X: a\nY: b\r\n\r\n",
		"POST / HTTP/1.1\n" H "\r\n",
		"POST / HTTP/1.1\r\n" H "\n",
		"POST / HTTP/1.1\r\n" H "X: a\rY: b\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "X\x01: a\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "X: \x01\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "X: \x7f\r\n\r\n",
		"POST / HTTP/1.1\r\n" H ": a\r\n\r\n",
		"POST / HTTP/1.1\r\n" H "X\r\n\r\n",
		"POST / HTTP/1.1\r\n" H H "\r\n",
		"POST / HTTP/1.1\r\n\r\n",
		"POST  / HTTP/1.1\r\n" H "\r\n",
		"POST / HTTP/1.1 \r\n" H "\r\n",
		" POST / HTTP/1.1\r\n" H "\r\n",
		"POST /\r\n" H "\r\n",
		"POST /\x80 HTTP/1.1\r\n" H "\r\n",
		"POST /\tHTTP/1.1\r\n" H "\r\n",
		"POST / HTTP/1.1x\r\n" H "\r\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct log *log = malloc(sizeof(*log));
		run(log, bad[i], strlen(bad[i]), SIZE_MAX);
		cr_expect(strcmp(log->text, "!400") == 0 || strcmp(log->text, "!505") == 0, "case %zu: %s", i, log->text);
		free(log);
		expect(bad[i], strstr(bad[i], "1.1x") ? "!505" : "!400");
	}
}

Test(http1_feed, refuses_a_nul_anywhere_in_a_head)
{
	const char head[] = "GET /abc HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";

	for (size_t i = 0; i + 3 < sizeof(head) - 1; i++) {
		char bad[sizeof(head)];
		memcpy(bad, head, sizeof(head));
		bad[i] = 0;
		struct log *log = malloc(sizeof(*log));
		run(log, bad, sizeof(head) - 1, SIZE_MAX);
		cr_assert(log->text[0] == '!', "NUL at %zu: %s", i, log->text);
		free(log);
	}
}

Test(http1_feed, refuses_malformed_chunks)
{
	static const char *const bad[] = {
		"\r\n", "g\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", " 1\r\n", "1 \r\n", "1\n", "1\r1", "1;a\nb\r\n", "1;\x01\r\n", ";\r\n",
		"1\r\nab\r\n", "1\r\na\n", "1\r\naX", "1\r\na\rX", "1000000000000000\r\n", "0\r\nX: a\n\r\n", "0\r\n X: a\r\n\r\n",
		"0\r\nX\r\n\r\n", "0\r\nX : b\r\n\r\n", "0\r\n\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char input[256];
		(void)snprintf(input, sizeof(input), "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n%s", bad[i]);
		struct log *log = malloc(sizeof(*log));
		run(log, input, strlen(input), SIZE_MAX);
		cr_expect(strstr(log->text, "!400") && !strstr(log->text, "end"), "case %zu: %s", i, log->text);
		run(log, input, strlen(input), 0);
		cr_expect(strstr(log->text, "!400") && !strstr(log->text, "end"), "case %zu, bytes: %s", i, log->text);
		free(log);
	}
}

Test(http1_feed, names_what_it_does_not_do)
{
	expect("POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", "!501");
	expect("POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", "!501");
	expect("BREW / HTTP/1.1\r\n" H "\r\n", "!501");
	expect("CONNECT a:1 HTTP/1.1\r\n" H "\r\n", "!501");
	expect("GET / HTTP/2.0\r\n" H "\r\n", "!505");
}

Test(http1_feed, refuses_a_head_past_its_limits_with_431)
{
	char input[4096];
	int len = snprintf(input, sizeof(input), "GET / HTTP/1.1\r\n" H "X: ");
	memset(input + len, 'x', HEAD_MAX);
	expect_n(input, (size_t)len + HEAD_MAX, "!431");

	(void)snprintf(input, sizeof(input), "GET / HTTP/1.1\r\n" H "A:\r\nB:\r\nC:\r\nD:\r\nE:\r\nF:\r\nG:\r\n\r\n");
	expect(input, "GET /? [host=a;a=;b=;c=;d=;e=;f=;g=;] end\n");
	(void)snprintf(input, sizeof(input), "GET / HTTP/1.1\r\n" H "A:\r\nB:\r\nC:\r\nD:\r\nE:\r\nF:\r\nG:\r\nI:\r\n\r\n");
	expect(input, "!431");
}

Test(http1_feed, takes_a_head_of_exactly_the_limit)
{
	char input[HEAD_MAX + 1];
	int len = snprintf(input, sizeof(input), "GET / HTTP/1.1\r\n" H "X: ");
	memset(input + len, 'x', HEAD_MAX - (size_t)len);
	memcpy(input + HEAD_MAX - 4, "\r\n\r\n", 4);
	struct log *log = malloc(sizeof(*log));

	run(log, input, HEAD_MAX, SIZE_MAX);
	cr_assert(strstr(log->text, " end\n"), "%s", log->text);
	run(log, input, HEAD_MAX, 0);
	cr_assert(strstr(log->text, " end\n"), "%s", log->text);
	free(log);
}

Test(http1_feed, refuses_a_trailer_section_past_the_head_limit)
{
	char input[4096];
	int len = snprintf(input, sizeof(input), "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\nX: ");
	memset(input + len, 'x', HEAD_MAX);
	expect_n(input, (size_t)len + HEAD_MAX, "POST /? [host=a;transfer-encoding=chunked;] body!431");
}

Test(http1_feed, refuses_a_chunk_extension_without_end)
{
	char input[4096];
	int len = snprintf(input, sizeof(input), "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1;");
	memset(input + len, 'x', 2000);
	expect_n(input, (size_t)len + 2000, "POST /? [host=a;transfer-encoding=chunked;] body!400");
}

Test(http1_feed, waits_for_the_rest_of_a_truncated_request)
{
	const char *input = "POST /a HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n";

	for (size_t len = 1; len < strlen(input); len++) {
		struct log *log = malloc(sizeof(*log));
		run(log, input, len, SIZE_MAX);
		cr_assert(!strstr(log->text, "end") && strstr(log->text, "..."), "%zu: %s", len, log->text);
		free(log);
	}
}

/* ---- answers ---- */

static const char *reply_to(const char *request, const struct net_reply *reply, int64_t length)
{
	static char text[4096];
	struct log *log = calloc(1, sizeof(*log));
	struct http1 core;
	struct buf out = {0};
	log->core = &core;
	http1_init(&core, &events, log, HEAD_MAX, COUNT_MAX);

	cr_assert_eq(http1_feed(&core, (const uint8_t *)request, strlen(request)), strlen(request));
	cr_assert_null(http1_write_head(&core, reply, length, "DATE", &out));
	(void)snprintf(text, sizeof(text), "%.*s", (int)out.len, (const char *)out.data);
	buf_deinit(&out);
	http1_deinit(&core);
	free(log);
	return text;
}

Test(http1_write_head, frames_by_length_chunks_or_close)
{
	struct net_reply ok = {.status = 200, .content_type = "text/plain"};

	cr_assert_str_eq(reply_to("GET / HTTP/1.1\r\n" H "\r\n", &ok, 5),
		"HTTP/1.1 200 OK\r\ndate: DATE\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n");
	cr_assert_str_eq(reply_to("GET / HTTP/1.1\r\n" H "\r\n", &ok, -1),
		"HTTP/1.1 200 OK\r\ndate: DATE\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n");
	cr_assert_str_eq(reply_to("GET / HTTP/1.0\r\n\r\n", &ok, -1),
		"HTTP/1.1 200 OK\r\ndate: DATE\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n");
	cr_assert_str_eq(reply_to("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &ok, 5),
		"HTTP/1.1 200 OK\r\ndate: DATE\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n");
	cr_assert_str_eq(reply_to("HEAD / HTTP/1.1\r\n" H "Connection: close\r\n\r\n", &ok, 5),
		"HTTP/1.1 200 OK\r\ndate: DATE\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nconnection: close\r\n\r\n");
}

Test(http1_write_head, sends_no_length_with_204_and_304)
{
	struct net_reply none = {.status = 204};

	cr_assert_str_eq(reply_to("GET / HTTP/1.1\r\n" H "\r\n", &none, 0), "HTTP/1.1 204 No Content\r\ndate: DATE\r\n\r\n");
}

Test(net_reply_header, refuses_what_would_split_the_answer)
{
	struct net_reply reply = {0};
	static const struct {
		const char *name, *value;
	} bad[] = {{"x", "a\r\nb: c"}, {"x", "a\nb"}, {"x\r\n", "a"}, {"x y", "a"}, {"", "a"}, {"x:", "a"}, {"Content-Length", "5"},
		{"connection", "close"}, {"x", "\x7f"}};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err *e = net_reply_header(&reply, bad[i].name, bad[i].value);
		cr_assert(e && err_code(e) == ERR_INVALID, "case %zu", i);
		err_free(e);
	}
	cr_assert_null(net_reply_header(&reply, "X-Good", "a b"));
	cr_assert_eq(reply.headers.len, strlen("x-good: a b\r\n"));
	net_reply_deinit(&reply);
}

Test(net_url_decode, undoes_percent_and_refuses_nul_and_overflow)
{
	char out[8];

	cr_assert(net_url_decode("a%2Fb", 5, false, out, sizeof(out)));
	cr_assert_str_eq(out, "a/b");
	cr_assert(net_url_decode("a+b", 3, true, out, sizeof(out)));
	cr_assert_str_eq(out, "a b");
	cr_assert(net_url_decode("a+b", 3, false, out, sizeof(out)));
	cr_assert_str_eq(out, "a+b");
	cr_assert(net_url_decode("1234567", 7, false, out, sizeof(out)));
	cr_assert_not(net_url_decode("12345678", 8, false, out, sizeof(out)));
	cr_assert_not(net_url_decode("%00", 3, false, out, sizeof(out)));
	cr_assert_not(net_url_decode("%4", 2, false, out, sizeof(out)));
	cr_assert_not(net_url_decode("%", 1, false, out, sizeof(out)));
	cr_assert_not(net_url_decode("%4g", 3, false, out, sizeof(out)));
	cr_assert(net_url_decode("", 0, false, out, 1));
}
