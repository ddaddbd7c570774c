// SPDX-License-Identifier: Apache-2.0
/* Which addresses a stranger's redirect must not lead to. */
#ifndef CAIRN_SOURCES_ADDRESS_H
#define CAIRN_SOURCES_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

/**
 * True for every IPv4 and IPv6 address that is not on the public internet: loopback, private (RFC 1918, 4193, 6598), link-local,
 * unspecified, multicast, reserved, and those forms of IPv6 that carry such an IPv4 address. Any other family is private.
 */
bool address_is_private(const struct sockaddr *address);
/** The host of a URL: true for a private address written out, and for localhost and names under it. @p host may be in brackets. */
bool address_host_is_private(const char *host);

/** Whether asking the host of an http(s) URL tells strangers something: false for private addresses, localhost and names without a dot. */
bool address_url_is_public(const char *url);

#endif
