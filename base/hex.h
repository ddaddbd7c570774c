// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes as hexadecimal text, for identities and digests.
 */
#ifndef CAIRN_BASE_HEX_H
#define CAIRN_BASE_HEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The value of one hex digit of either case, -1 for any other character. */
static inline int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	char lower = (char)(c | 0x20);
	return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/** 2 * @p len lower digits and a NUL. */
static inline void hex_format(const uint8_t *bytes, size_t len, char *text)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		*text++ = digits[bytes[i] >> 4];
		*text++ = digits[bytes[i] & 15];
	}
	*text = 0;
}

/** @p len digits of either case (an even number) into len / 2 bytes at @p ret, which is written only on success. */
static inline bool hex_parse(const char *text, size_t len, uint8_t *ret)
{
	if (len % 2 != 0)
		return false;
	for (size_t i = 0; i < len; i++)
		if (hex_digit(text[i]) < 0)
			return false;
	for (size_t i = 0; i < len / 2; i++)
		ret[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
	return true;
}

#endif
