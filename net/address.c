// SPDX-License-Identifier: Apache-2.0
#include "net/address.h"
#include "net/server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* Finds host and port in "host:port" or "[host]:port"; the host may be empty. */
static bool split_host(const char *text, char host[NET_HOST_MAX + 1], const char **port_ret)
{
	const char *end = strrchr(text, ':');
	const char *start = text;

	if (!end || end[1] == 0)
		return false;
	*port_ret = end + 1;
	if (*start == '[') {
		start++;
		end--;
		if (end < start || *end != ']')
			return false;
	} else if (memchr(start, ':', (size_t)(end - start))) {
		return false;
	}
	size_t len = (size_t)(end - start);
	if (len > NET_HOST_MAX)
		return false;
	memcpy(host, start, len);
	host[len] = 0;
	return true;
}

static bool port_is_good(const char *port)
{
	unsigned long number = 0;

	for (const char *c = port; *c; c++) {
		if (*c < '0' || *c > '9' || number > 65535)
			return false;
		number = number * 10 + (unsigned long)(*c - '0');
	}
	return number <= 65535;
}

static struct err *split(const char *text, char host[NET_HOST_MAX + 1], const char **port_ret)
{
	if (split_host(text, host, port_ret) && port_is_good(*port_ret))
		return NULL;
	return err_new(ERR_INVALID, "listen on '%s': not of the form host:port, [v6]:port or :port", text);
}

struct err *net_server_check_address(const char *address)
{
	char host[NET_HOST_MAX + 1];
	const char *port;

	return split(address, host, &port);
}

struct err *net_address_resolve(const char *text, struct addrinfo **ret)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	char host[NET_HOST_MAX + 1];
	const char *port;

	TRY(split(text, host, &port));
	int error = getaddrinfo(host[0] ? host : NULL, port, &hints, ret);
	return error ? err_new(ERR_INVALID, "listen on '%s': %s", text, gai_strerror(error)) : NULL;
}

static struct err *split_peer(const char *text, char host[NET_HOST_MAX + 1], const char **port_ret)
{
	if (split_host(text, host, port_ret) && port_is_good(*port_ret) && host[0])
		return NULL;
	return err_new(ERR_INVALID, "'%s': not of the form host:port or [v6]:port", text);
}

struct err *net_address_check_peer(const char *text)
{
	char host[NET_HOST_MAX + 1];
	const char *port;

	return split_peer(text, host, &port);
}

struct err *net_address_resolve_peer(const char *text, char host[NET_HOST_MAX + 1], struct addrinfo **ret)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	const char *port;

	TRY(split_peer(text, host, &port));
	int error = getaddrinfo(host, port, &hints, ret);
	return error ? err_new(ERR_PEER, "%s: %s", text, gai_strerror(error)) : NULL;
}

void net_address_format(const struct sockaddr *address, char *ret, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (address->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
		(void)inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		(void)snprintf(ret, size, "%s:%u", host, ntohs(in->sin_port));
	} else if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
		(void)inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		(void)snprintf(ret, size, "[%s]:%u", host, ntohs(in6->sin6_port));
	} else {
		(void)snprintf(ret, size, "?");
	}
}

struct net_peer_key net_address_key(const struct sockaddr *address)
{
	struct net_peer_key key = {{0, 0}};

	if (address->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
		key.bytes[0] = in->sin_addr.s_addr;
		key.bytes[1] = 4;
	} else if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
			uint32_t v4;
			memcpy(&v4, in6->sin6_addr.s6_addr + 12, sizeof(v4));
			key.bytes[0] = v4;
			key.bytes[1] = 4;
		} else {
			memcpy(&key.bytes[0], in6->sin6_addr.s6_addr, 8);
			key.bytes[1] = 6;
		}
	}
	return key;
}

uint16_t net_address_port(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
	if (address->sa_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
	return 0;
}

void net_address_set_port(struct sockaddr *address, uint16_t port)
{
	if (address->sa_family == AF_INET)
		((struct sockaddr_in *)(void *)address)->sin_port = htons(port);
	else if (address->sa_family == AF_INET6)
		((struct sockaddr_in6 *)(void *)address)->sin6_port = htons(port);
}
