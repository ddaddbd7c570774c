// SPDX-License-Identifier: Apache-2.0
/*
 * HTTP/1.1 requests in, answers' framing out (RFC 9112), without I/O.
 *
 * Why not libhttp-parser alone: Debian builds it in its lenient mode. Tried with 2.9.4-5: it takes blanks in field names,
 * bare LF as line end, folded lines, and any two bytes after a chunk's data. Each is a way to make two servers in
 * a row see different requests (request smuggling). So:
 *
 *   1. A head is gathered up to its empty line, within head_bytes_max, and judged byte by byte here: lines end in CRLF, the
 *      request line is three words, field names are tokens with ':' right behind, values have no control bytes, no line
 *      begins with a blank (obs-fold), no NUL.
 *   2. What passed goes through http_parser for method, target, version, fields and connection persistence.
 *   3. The framing of the body is decided here from the fields: one Content-Length of digits only, or one
 *      Transfer-Encoding that is exactly "chunked", never both; both values that http_parser and we found must agree.
 *   4. Chunks are taken apart here, strictly: 1 to 15 hex digits, an extension of bounded length that is dropped, CRLF, data,
 *      CRLF; the trailer section is judged as a head is, and dropped.
 *
 * One request at a time: after its end http1_feed takes nothing until http1_next, so pipelined requests wait in the
 * owner's input buffer (which bounds them) and are answered in order.
 *
 * A failure is final: state HTTP1_FAILED with a status; the owner answers it and closes.
 */
#include "net/http1.h"

#include <http_parser.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
	BLANK_LINES_MAX = 2,   /* before a request line (RFC 9112, 2.2) */
	CHUNK_LINE_MAX = 1024, /* a chunk's size and its extension */
	CHUNK_DIGITS_MAX = 15, /* 2^60 bytes: sums cannot overflow */
	LENGTH_DIGITS_MAX = 18,
};

void http1_init(struct http1 *h, const struct http1_events *events, void *user, size_t head_bytes_max,
	size_t head_count_max)
{
	*h = (struct http1){
		.events = events, .user = user, .head_bytes_max = head_bytes_max, .head_count_max = head_count_max};
}

void http1_deinit(struct http1 *h)
{
	buf_deinit(&h->line_bytes);
}

static void http1_fail(struct http1 *h, unsigned status, const char *reason)
{
	h->state = HTTP1_FAILED;
	h->error_status = status;
	h->error_reason = reason;
	h->keep_alive = false;
}

static void begin_section(struct http1 *h)
{
	h->line_bytes.len = 0;
	h->section_bytes = 0;
	h->line_len = 0;
	h->section_begun = false;
	h->blank_lines = 0;
}

void http1_next(struct http1 *h)
{
	begin_section(h);
	/* A large head's buffer is not kept for a connection's whole life. */
	if (h->line_bytes.cap > 4096)
		buf_deinit(&h->line_bytes);
	h->state = HTTP1_HEAD;
	h->reply_framing = HTTP1_REPLY_NONE;
	h->is_head = h->old = false;
}

bool http1_is_idle(const struct http1 *h)
{
	return h->state == HTTP1_HEAD && h->section_bytes == 0;
}

/* ---- heads ---- */

/* Collects what http_parser says of one head whose texts it points into. */
struct head_parse {
	struct net_header *headers;
	size_t count;	 /* of fields begun */
	size_t values;	 /* of values seen */
	size_t capacity;
	char *target;
	size_t target_len;
	bool failed;
};

/* The parser points into the copy that this file owns, so the const of its callbacks is dropped there. */
static char *own_text(const char *at)
{
	return (char *)(uintptr_t)at;
}

static int on_target(http_parser *parser, const char *at, size_t len)
{
	struct head_parse *p = parser->data;

	p->failed |= p->target != NULL;
	p->target = own_text(at);
	p->target_len = len;
	return p->failed;
}

static int on_field(http_parser *parser, const char *at, size_t len)
{
	struct head_parse *p = parser->data;

	if (p->count == p->capacity || p->values != p->count) {
		p->failed = true;
		return 1;
	}
	char *name = own_text(at);
	for (size_t i = 0; i < len; i++)
		if (name[i] >= 'A' && name[i] <= 'Z')
			name[i] = (char)(name[i] | 0x20);
	p->headers[p->count++] = (struct net_header){.name = name};
	/* The ':' behind the name is not needed any more, and the parser has read it. */
	name[len] = 0;
	return 0;
}

static int on_value(http_parser *parser, const char *at, size_t len)
{
	struct head_parse *p = parser->data;
	char *value = own_text(at);

	if (p->values + 1 != p->count) {
		p->failed = true;
		return 1;
	}
	while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t'))
		len--;
	if (len == 0) {
		/* Here the parser points at the next line, which it has not read yet. */
		p->headers[p->values++].value = "";
		return 0;
	}
	p->headers[p->values++].value = value;
	/* At the first blank or the CR behind the value; the parser has read it. */
	value[len] = 0;
	return 0;
}

/* The parser is to stop after the head: bodies are taken apart by this file. */
static int on_headers_complete(http_parser *parser)
{
	(void)parser;
	return 1;
}

/* One line without its CRLF, not empty. */
static bool field_line_is_good(const char *line, size_t len)
{
	size_t name_len = 0;

	while (name_len < len && net_is_token_char((unsigned char)line[name_len]))
		name_len++;
	return name_len > 0 && name_len < len && line[name_len] == ':' &&
	       net_is_field_value(line + name_len + 1, len - name_len - 1);
}

/* "METHOD target HTTP/d.d": three words of visible characters. */
static bool request_line_is_good(const char *line, size_t len)
{
	unsigned blanks = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)line[i];
		if (c == ' ') {
			blanks++;
			if (i == 0 || line[i - 1] == ' ')
				return false;
		} else if (c < 0x21 || c > 0x7e || c == '#') {
			return false;
		}
	}
	return blanks == 2 && line[len - 1] != ' ';
}

/*
 * Judges the lines of a head or a trailer section, which ends in its empty line; counts the fields.
 * Every LF has a CR before it: head_feed saw to it.
 */
static bool section_is_good(const char *text, size_t len, bool has_request_line, size_t *fields_ret)
{
	size_t fields = 0;

	for (size_t pos = 0; pos < len;) {
		const char *line = text + pos;
		const char *lf = memchr(line, '\n', len - pos);
		if (!lf || lf == line)
			return false;
		size_t line_len = (size_t)(lf - line) - 1;
		if (line_len == 0)
			break;
		if (pos == 0 && has_request_line) {
			if (!request_line_is_good(line, line_len))
				return false;
		} else {
			if (!field_line_is_good(line, line_len))
				return false;
			fields++;
		}
		pos += line_len + 2;
	}
	*fields_ret = fields;
	return true;
}

static bool value_is_digits(const char *value, uint64_t *ret)
{
	size_t len = strlen(value);
	uint64_t number = 0;

	if (len == 0 || len > LENGTH_DIGITS_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (value[i] < '0' || value[i] > '9')
			return false;
		number = number * 10 + (uint64_t)(value[i] - '0');
	}
	*ret = number;
	return true;
}

/* Decides the body's framing; false after http1_fail. Source: RFC 9112, 6. */
static bool decide_framing(struct http1 *h, const http_parser *parser, struct net_head *head, bool *chunked_ret)
{
	unsigned lengths = 0, encodings = 0, hosts = 0;
	const char *length = NULL, *encoding = NULL;

	for (size_t i = 0; i < head->header_count; i++) {
		const struct net_header *header = &head->headers[i];
		if (strcmp(header->name, "content-length") == 0) {
			lengths++;
			length = header->value;
		} else if (strcmp(header->name, "transfer-encoding") == 0) {
			encodings++;
			encoding = header->value;
		} else if (strcmp(header->name, "host") == 0) {
			hosts++;
		}
	}
	if (hosts > 1 || (hosts == 0 && !h->old))
		return http1_fail(h, 400, "a request has one Host header"), false;
	if (lengths > 1 || (lengths && encodings))
		return http1_fail(h, 400, "the length of the body is stated twice"), false;
	if (encodings > 1 || (encodings && h->old))
		return http1_fail(h, 400, "Transfer-Encoding is not possible here"), false;
	if (encoding && strcasecmp(encoding, "chunked") != 0)
		return http1_fail(h, 501, "the only Transfer-Encoding is chunked"), false;
	if (length && (!value_is_digits(length, &head->content_length) ||
			      parser->content_length != head->content_length))
		return http1_fail(h, 400, "malformed Content-Length"), false;
	head->has_length = length != NULL;
	head->has_body = encoding || head->content_length > 0;
	*chunked_ret = encoding != NULL;
	return true;
}

/*
 * Splits the target into path and query. @p target ends in a blank, which becomes the NUL. The path of
 * the absolute form (RFC 9112, 3.2.2) begins behind the authority; without one it is "/".
 */
static bool split_target(struct net_head *head, char *target, size_t len)
{
	target[len] = 0;
	char *query = strchr(target, '?');
	if (query)
		*query++ = 0;
	if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
		char *authority = strchr(target, ':') + 3;
		char *path = strchr(authority, '/');
		if (*authority == 0 || path == authority)
			return false;
		target = path;
	}
	head->path = target ? target : "/";
	head->query = query ? query : "";
	return head->path[0] == '/' || (strcmp(head->path, "*") == 0 && head->method == NET_OPTIONS);
}

static bool check_expect(struct http1 *h, struct net_head *head)
{
	const char *expect = net_head_get(head, "expect");

	if (!expect || h->old)
		return true;
	if (strcasecmp(expect, "100-continue") != 0)
		return http1_fail(h, 417, "the only expectation is 100-continue"), false;
	head->expect_continue = head->has_body;
	return true;
}

/* Runs the parser over @p text, which it must take whole. */
static bool run_parser(struct http1 *h, http_parser *parser, struct head_parse *parse, const char *text, size_t len)
{
	static const http_parser_settings settings = {
		.on_url = on_target,
		.on_header_field = on_field,
		.on_header_value = on_value,
		.on_headers_complete = on_headers_complete,
	};

	http_parser_init(parser, HTTP_REQUEST);
	parser->data = parse;
	size_t taken = http_parser_execute(parser, &settings, text, len);
	enum http_errno error = HTTP_PARSER_ERRNO(parser);
	if (error == HPE_INVALID_METHOD)
		return http1_fail(h, 501, "unknown method"), false;
	if (error == HPE_INVALID_VERSION)
		return http1_fail(h, 505, "the version is not HTTP/1.0 or HTTP/1.1"), false;
	if (error == HPE_INVALID_TRANSFER_ENCODING)
		return http1_fail(h, 501, "the only Transfer-Encoding is chunked"), false;
	if (error != HPE_OK || taken != len || parse->failed || parse->values != parse->count || !parse->target)
		return http1_fail(h, 400, "malformed head"), false;
	if (parser->http_major != 1)
		return http1_fail(h, 505, "the version is not HTTP/1.0 or HTTP/1.1"), false;
	return true;
}

/* Fills @p head from a copy of the head's text; false after http1_fail (the caller frees head). */
static bool parse_head(struct http1 *h, const char *text, size_t len, struct net_head *head, bool *chunked_ret)
{
	size_t fields;
	http_parser parser;

	if (!section_is_good(text, len, true, &fields))
		return http1_fail(h, 400, "malformed head"), false;
	if (fields > h->head_count_max)
		return http1_fail(h, 431, "too many headers"), false;
	char *memory = malloc(fields * sizeof(struct net_header) + len + 1);
	if (!memory)
		return http1_fail(h, 500, "out of memory"), false;
	head->memory = memory;
	head->headers = (struct net_header *)(void *)memory;
	char *copy = memory + fields * sizeof(struct net_header);
	memcpy(copy, text, len);
	copy[len] = 0;

	struct head_parse parse = {.headers = head->headers, .capacity = fields};
	if (!run_parser(h, &parser, &parse, copy, len))
		return false;
	head->header_count = parse.count;
	char *blank = strchr(copy, ' ');
	*blank = 0;
	head->method_text = copy;
	head->method = net_method_parse(copy, (size_t)(blank - copy));
	h->is_head = head->method == NET_HEAD;
	h->old = parser.http_minor == 0;
	if (parser.method == HTTP_CONNECT)
		return http1_fail(h, 501, "CONNECT is for proxies"), false;
	if (!split_target(head, parse.target, parse.target_len))
		return http1_fail(h, 400, "malformed target"), false;
	if (!decide_framing(h, &parser, head, chunked_ret) || !check_expect(h, head))
		return false;
	h->keep_alive = http_should_keep_alive(&parser) != 0;
	return true;
}

static void finish_request(struct http1 *h)
{
	h->state = HTTP1_DONE;
	h->events->on_end(h->user);
}

static void finish_head(struct http1 *h, const char *text, size_t len)
{
	struct net_head head = {0};
	bool chunked = false;

	if (!parse_head(h, text, len, &head, &chunked)) {
		net_head_deinit(&head);
		return;
	}
	bool has_body = head.has_body;
	h->left = head.content_length;
	h->state = chunked ? HTTP1_CHUNK_SIZE : HTTP1_BODY_LENGTH;
	if (!has_body)
		h->state = HTTP1_DONE;
	begin_section(h);
	h->events->on_head(h->user, &head);
	if (!has_body)
		h->events->on_end(h->user);
}

static void finish_section(struct http1 *h, const char *text, size_t len)
{
	size_t fields;

	if (h->state == HTTP1_HEAD) {
		finish_head(h, text, len);
		return;
	}
	if (len > 2 && !section_is_good(text, len, false, &fields)) {
		http1_fail(h, 400, "malformed trailer");
		return;
	}
	finish_request(h);
}

/* Takes bytes of one line, with its LF if it is there. True when the section is complete. */
static bool section_line(struct http1 *h, const uint8_t *line, size_t len)
{
	bool ends = line[len - 1] == '\n';

	h->line_len += len;
	h->section_bytes += len;
	if (h->section_bytes > h->head_bytes_max)
		return http1_fail(h, 431, "the head is too large"), false;
	if (!ends) {
		h->last_byte = (char)line[len - 1];
		return false;
	}
	char before = len > 1 ? (char)line[len - 2] : h->line_len > 1 ? h->last_byte : 0;
	if (before != '\r')
		return http1_fail(h, 400, "a line does not end in CR LF"), false;
	bool blank = h->line_len == 2;
	h->line_len = 0;
	if (!blank) {
		h->section_begun = true;
		return false;
	}
	if (h->section_begun || h->state == HTTP1_TRAILER)
		return true;
	if (++h->blank_lines > BLANK_LINES_MAX)
		http1_fail(h, 400, "empty lines instead of a request");
	return false;
}

/*
 * Bytes of a head or trailer section. One that lies whole in @p bytes is parsed in place; otherwise the pieces are
 * gathered in line_bytes. Empty lines before the request line belong to no one.
 */
static size_t section_feed(struct http1 *h, const uint8_t *bytes, size_t len)
{
	size_t start = 0; /* of the section in bytes */
	size_t pos = 0;
	bool complete = false;

	while (pos < len && !complete && h->state != HTTP1_FAILED) {
		const uint8_t *lf = memchr(bytes + pos, '\n', len - pos);
		size_t line_len = lf ? (size_t)(lf - (bytes + pos)) + 1 : len - pos;
		complete = section_line(h, bytes + pos, line_len);
		pos += line_len;
		if (lf && !complete && !h->section_begun) {
			start = pos;
			h->line_bytes.len = 0;
		}
	}
	if (h->state == HTTP1_FAILED)
		return pos;
	if (complete && h->line_bytes.len == 0) {
		finish_section(h, (const char *)bytes + start, pos - start);
		return pos;
	}
	struct err *e = buf_append(&h->line_bytes, bytes + start, pos - start);
	if (e) {
		err_free(e);
		http1_fail(h, 500, "out of memory");
	} else if (complete) {
		finish_section(h, (const char *)h->line_bytes.data, h->line_bytes.len);
	}
	return pos;
}

/* ---- bodies ---- */

static size_t data_feed(struct http1 *h, const uint8_t *bytes, size_t len)
{
	size_t take = len < h->left ? len : (size_t)h->left;
	bool chunk = h->state == HTTP1_CHUNK_DATA;

	h->left -= take;
	if (h->left == 0 && chunk)
		h->state = HTTP1_CHUNK_DATA_CR;
	h->events->on_body(h->user, bytes, take);
	if (h->left == 0 && !chunk && h->state != HTTP1_FAILED)
		finish_request(h);
	return take;
}

static int chunk_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void chunk_digit_feed(struct http1 *h, uint8_t c)
{
	int digit = chunk_digit(c);

	if (digit >= 0) {
		if (h->state == HTTP1_CHUNK_SIZE) {
			h->left = 0;
			h->line_limit = 0;
		}
		h->left = h->left * 16 + (uint64_t)digit;
		h->state = HTTP1_CHUNK_SIZE_MORE;
		if (++h->line_limit > CHUNK_DIGITS_MAX)
			http1_fail(h, 400, "a chunk is too large");
	} else if (h->state == HTTP1_CHUNK_SIZE_MORE && c == '\r') {
		h->state = HTTP1_CHUNK_SIZE_LF;
	} else if (h->state == HTTP1_CHUNK_SIZE_MORE && c == ';') {
		h->state = HTTP1_CHUNK_EXT;
	} else {
		http1_fail(h, 400, "malformed chunk size");
	}
}

static void chunk_ext_feed(struct http1 *h, uint8_t c)
{
	if (c == '\r')
		h->state = HTTP1_CHUNK_SIZE_LF;
	else if ((c < 0x20 && c != '\t') || c == 0x7f)
		http1_fail(h, 400, "malformed chunk extension");
	else if (++h->line_limit > CHUNK_LINE_MAX)
		http1_fail(h, 400, "a chunk extension is too long");
}

/* The bytes between chunks, one at a time: they are few. */
static void chunk_frame_feed(struct http1 *h, uint8_t c)
{
	switch (h->state) {
	case HTTP1_CHUNK_SIZE:
	case HTTP1_CHUNK_SIZE_MORE:
		chunk_digit_feed(h, c);
		return;
	case HTTP1_CHUNK_EXT:
		chunk_ext_feed(h, c);
		return;
	case HTTP1_CHUNK_SIZE_LF:
		if (c != '\n')
			break;
		if (h->left == 0)
			begin_section(h);
		h->state = h->left == 0 ? HTTP1_TRAILER : HTTP1_CHUNK_DATA;
		return;
	case HTTP1_CHUNK_DATA_CR:
		if (c != '\r')
			break;
		h->state = HTTP1_CHUNK_DATA_LF;
		return;
	case HTTP1_CHUNK_DATA_LF:
		if (c != '\n')
			break;
		h->state = HTTP1_CHUNK_SIZE;
		return;
	default:
		break;
	}
	http1_fail(h, 400, "malformed chunk");
}

size_t http1_feed(struct http1 *h, const uint8_t *bytes, size_t len)
{
	size_t pos = 0;

	while (pos < len && h->state != HTTP1_DONE && h->state != HTTP1_FAILED) {
		if (h->state == HTTP1_HEAD) {
			pos += section_feed(h, bytes + pos, len - pos);
			continue;
		}
		if (h->paused)
			break;
		if (h->state == HTTP1_TRAILER)
			pos += section_feed(h, bytes + pos, len - pos);
		else if (h->state == HTTP1_BODY_LENGTH || h->state == HTTP1_CHUNK_DATA)
			pos += data_feed(h, bytes + pos, len - pos);
		else
			chunk_frame_feed(h, bytes[pos++]);
	}
	return pos;
}

/* ---- answers ---- */

static bool status_has_body(unsigned status)
{
	return status >= 200 && status != 204 && status != 304;
}

static void decide_reply_framing(struct http1 *h, unsigned status, int64_t length)
{
	if (h->is_head || !status_has_body(status))
		h->reply_framing = HTTP1_REPLY_NONE;
	else if (length >= 0)
		h->reply_framing = HTTP1_REPLY_LENGTH;
	else
		h->reply_framing = h->old ? HTTP1_REPLY_CLOSE : HTTP1_REPLY_CHUNKED;
	if (h->reply_framing == HTTP1_REPLY_CLOSE)
		h->keep_alive = false;
}

struct err *http1_write_head(struct http1 *h, const struct net_reply *reply, int64_t length, const char *date,
	struct buf *out)
{
	decide_reply_framing(h, reply->status, length);
	TRY(buf_printf(out, "HTTP/1.1 %u %s\r\ndate: %s\r\n", reply->status, net_status_text(reply->status), date));
	if (reply->content_type)
		TRY(buf_printf(out, "content-type: %s\r\n", reply->content_type));
	if (status_has_body(reply->status) && length >= 0)
		TRY(buf_printf(out, "content-length: %" PRId64 "\r\n", length));
	else if (status_has_body(reply->status) && !h->old)
		TRY(buf_append(out, "transfer-encoding: chunked\r\n", 28));
	if (!h->keep_alive)
		TRY(buf_append(out, "connection: close\r\n", 19));
	else if (h->old)
		TRY(buf_append(out, "connection: keep-alive\r\n", 24));
	TRY(buf_append(out, reply->headers.data, reply->headers.len));
	return buf_append(out, "\r\n", 2);
}

struct err *http1_write_chunk_head(size_t len, struct buf *out)
{
	return buf_printf(out, "%zx\r\n", len);
}
