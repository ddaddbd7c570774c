// SPDX-License-Identifier: Apache-2.0
#include "sources/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool is_private_v4(uint32_t address)
{
	/* IANA's special-purpose registry, as far as it is not globally reachable. */
	static const struct {
		uint32_t net;
		unsigned bits;
	} nets[] = {
		{0x00000000, 8}, {0x0a000000, 8}, {0x64400000, 10}, {0x7f000000, 8}, {0xa9fe0000, 16}, {0xac100000, 12},
		{0xc0000000, 24}, {0xc0000200, 24}, {0xc0a80000, 16}, {0xc6120000, 15}, {0xc6336400, 24}, {0xcb007100, 24},
		{0xe0000000, 4}, {0xf0000000, 4},
	};

	for (size_t i = 0; i < sizeof(nets) / sizeof(nets[0]); i++)
		if (address >> (32 - nets[i].bits) == nets[i].net >> (32 - nets[i].bits))
			return true;
	return false;
}

static uint32_t get_v4(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static bool is_private_v6(const uint8_t *b)
{
	static const uint8_t zeros[12], nat64[12] = {0, 0x64, 0xff, 0x9b};

	if (memcmp(b, zeros, 10) == 0 && ((b[10] == 0xff && b[11] == 0xff) || (b[10] == 0 && b[11] == 0)))
		return is_private_v4(get_v4(b + 12)); /* mapped, compatible, ::, ::1 (0.0.0.1 is private) */
	if (memcmp(b, nat64, 12) == 0)
		return is_private_v4(get_v4(b + 12));
	if (b[0] == 0x20 && b[1] == 0x02) /* 6to4 */
		return is_private_v4(get_v4(b + 2));
	return (b[0] & 0xe0) != 0x20; /* only 2000::/3 is global unicast */
}

bool address_is_private(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET) {
		struct sockaddr_in v4;
		memcpy(&v4, address, sizeof(v4));
		return is_private_v4(ntohl(v4.sin_addr.s_addr));
	}
	if (address->sa_family == AF_INET6) {
		struct sockaddr_in6 v6;
		memcpy(&v6, address, sizeof(v6));
		return is_private_v6(v6.sin6_addr.s6_addr);
	}
	return true;
}

bool address_host_is_private(const char *host)
{
	char plain[256];
	struct in_addr v4;
	struct in6_addr v6;

	(void)snprintf(plain, sizeof(plain), "%s", host[0] == '[' ? host + 1 : host);
	plain[strcspn(plain, "]%")] = 0;
	if (inet_pton(AF_INET6, plain, &v6) == 1)
		return is_private_v6(v6.s6_addr);
	if (inet_aton(plain, &v4)) /* also "127.1" and "0x7f000001", as resolvers take them */
		return is_private_v4(ntohl(v4.s_addr));
	size_t len = strlen(plain);
	while (len > 0 && plain[len - 1] == '.')
		plain[--len] = 0;
	return strcasecmp(plain, "localhost") == 0 || (len > 10 && strcasecmp(plain + len - 10, ".localhost") == 0);
}

bool address_url_is_public(const char *url)
{
	const char *begin = strstr(url, "://");
	char host[256];

	begin = begin ? begin + 3 : url;
	(void)snprintf(host, sizeof(host), "%.*s", (int)(begin[0] == '[' ? strcspn(begin, "]") : strcspn(begin, ":/")), begin);
	return (begin[0] == '[' || strchr(host, '.')) && !address_host_is_private(host);
}
