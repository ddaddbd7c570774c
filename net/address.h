// SPDX-License-Identifier: Apache-2.0
/*
 * Addresses in text and as sockets know them. Internal to net/.
 */
#ifndef CAIRN_NET_ADDRESS_H
#define CAIRN_NET_ADDRESS_H

#include "net/core.h"

#include <netdb.h>
#include <sys/socket.h>

enum { NET_HOST_MAX = 255 };

/** Resolves "host:port", "[v6]:port" or ":port" for listening. *ret is freed with freeaddrinfo. ERR_INVALID. */
struct err *net_address_resolve(const char *text, struct addrinfo **ret) MUST_USE;
/** Whether it is one to connect to, without asking a name server. ERR_INVALID. */
struct err *net_address_check_peer(const char *text) MUST_USE;
/**
 * The same for connecting, so that the host must be there; also gives it, without brackets.
 * ERR_INVALID: malformed; ERR_PEER: the name is not known now, which may change.
 */
struct err *net_address_resolve_peer(const char *text, char host[NET_HOST_MAX + 1], struct addrinfo **ret) MUST_USE;
/** "127.0.0.1:4318", "[::1]:4318". */
void net_address_format(const struct sockaddr *address, char *ret, size_t size);
/** The IPv4 address (also a mapped one) or the IPv6 /64. */
struct net_peer_key net_address_key(const struct sockaddr *address);
/** 0 for other families. */
uint16_t net_address_port(const struct sockaddr *address);
void net_address_set_port(struct sockaddr *address, uint16_t port);

#endif
