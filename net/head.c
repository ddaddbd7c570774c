// SPDX-License-Identifier: Apache-2.0
#include "net/head.h"

#include <string.h>

void net_head_deinit(struct net_head *head)
{
	free(head->memory);
	*head = (struct net_head){0};
}

const char *net_head_get(const struct net_head *head, const char *lower_name)
{
	for (size_t i = 0; i < head->header_count; i++)
		if (strcmp(head->headers[i].name, lower_name) == 0)
			return head->headers[i].value;
	return NULL;
}

enum net_method net_method_parse(const char *text, size_t len)
{
	static const struct {
		const char *text;
		enum net_method method;
	} methods[] = {{"GET", NET_GET}, {"HEAD", NET_HEAD}, {"POST", NET_POST}, {"PUT", NET_PUT},
		{"PATCH", NET_PATCH}, {"DELETE", NET_DELETE}, {"OPTIONS", NET_OPTIONS}};

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		if (strlen(methods[i].text) == len && memcmp(methods[i].text, text, len) == 0)
			return methods[i].method;
	return NET_METHOD_OTHER;
}

bool net_is_token_char(unsigned char c)
{
	if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
		return true;
	return c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

bool net_is_field_value(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool net_url_decode(const char *text, size_t len, bool plus_is_blank, char *ret, size_t size)
{
	size_t out = 0;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (c == '%') {
			int high = i + 2 < len ? hex_digit(text[i + 1]) : -1;
			int low = i + 2 < len ? hex_digit(text[i + 2]) : -1;
			if (high < 0 || low < 0)
				return false;
			c = (char)(high * 16 + low);
			i += 2;
		} else if (c == '+' && plus_is_blank) {
			c = ' ';
		}
		if (c == 0 || out + 1 >= size)
			return false;
		ret[out++] = c;
	}
	if (out >= size)
		return false;
	ret[out] = 0;
	return true;
}
