// SPDX-License-Identifier: Apache-2.0
/*
 * The head of a request as the protocols deliver it: internal to net/.
 */
#ifndef CAIRN_NET_HEAD_H
#define CAIRN_NET_HEAD_H

#include "net/request.h"

struct net_header {
	const char *name;  /* lower case */
	const char *value; /* without surrounding blanks */
};

/* All texts are NUL-terminated and lie in `memory`, one allocation. */
struct net_head {
	void *memory;
	struct net_header *headers;
	size_t header_count;
	const char *method_text;
	const char *path;
	const char *query;
	enum net_method method;
	uint64_t content_length; /* when has_length */
	bool has_length;
	bool has_body; /* a body may follow: a length above 0, or chunked, or a stream that was not ended */
	bool expect_continue;
	bool http2;
};

void net_head_deinit(struct net_head *head);
/** The first value of that name or NULL. */
const char *net_head_get(const struct net_head *head, const char *lower_name);
enum net_method net_method_parse(const char *text, size_t len);

/** "OK", "Not Found"; "Unknown" for a status that has no word. */
const char *net_status_text(unsigned status);

/** One byte of a token (RFC 9110, 5.6.2). */
bool net_is_token_char(unsigned char c);
/** Only bytes that a header value may have: HTAB, SP..~ and 0x80..0xff (RFC 9110, 5.5). */
bool net_is_field_value(const char *text, size_t len);

/**
 * Undoes %XX (and '+' when @p plus_is_blank) of text[0, len) into @p ret with a NUL.
 * @return false: malformed, a NUL byte, or longer than @p size - 1
 */
bool net_url_decode(const char *text, size_t len, bool plus_is_blank, char *ret, size_t size);

#endif
