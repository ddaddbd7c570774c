// SPDX-License-Identifier: Apache-2.0
#include "agent/proc_maps.h"

#include "base/hex.h"

/** Hex digits up to @p stop, which is stepped over. */
static bool take_hex(const char **at, char stop, uint64_t *ret)
{
	uint64_t value = 0;
	const char *c = *at;
	int digits = 0;

	for (; hex_digit(*c) >= 0; c++, digits++) {
		if (digits == 16)
			return false;
		value = value << 4 | (uint64_t)hex_digit(*c);
	}
	if (digits == 0 || *c != stop)
		return false;
	*at = c + 1;
	*ret = value;
	return true;
}

static bool take_decimal(const char **at, uint64_t *ret)
{
	uint64_t value = 0;
	const char *c = *at;

	for (; *c >= '0' && *c <= '9'; c++)
		if (__builtin_mul_overflow(value, 10U, &value) || __builtin_add_overflow(value, (uint64_t)(*c - '0'), &value))
			return false;
	if (c == *at)
		return false;
	*at = c;
	*ret = value;
	return true;
}

bool proc_map_parse(const char *line, struct proc_map *ret)
{
	struct proc_map map = {0};
	uint64_t major = 0, minor = 0;

	if (!take_hex(&line, '-', &map.start) || !take_hex(&line, ' ', &map.end))
		return false;
	for (int i = 0; i < 4; i++)
		if (line[i] == 0)
			return false;
	map.executable = line[2] == 'x';
	line += 4;
	if (*line++ != ' ' || !take_hex(&line, ' ', &map.foff) || !take_hex(&line, ':', &major) || !take_hex(&line, ' ', &minor) ||
		!take_decimal(&line, &map.inode))
		return false;
	while (*line == ' ')
		line++;
	map.path = line;
	map.major = (uint32_t)major;
	map.minor = (uint32_t)minor;
	if (map.start >= map.end)
		return false;
	*ret = map;
	return true;
}
