// SPDX-License-Identifier: Apache-2.0
/*
 * From a head to its handler: a table of method and pattern. Called from net_handler.on_head.
 */
#ifndef CAIRN_NET_ROUTER_H
#define CAIRN_NET_ROUTER_H

#include "net/request.h"

enum { NET_ROUTE_MAX_PARAMS = 4 };

struct net_route {
	enum net_method method; /* HEAD goes to the GET route */
	const char *pattern;	/* "/v1/files/{id}": a {name} takes one whole segment, at least one byte */
	/** As net_handler.on_head, with @p user of the dispatch. net_request_param(request, i) has the i-th segment, decoded. */
	void (*on_head)(struct net_request *request, void *user);
	const char *name; /* for metrics: a word; the router does not use it */
};

/**
 * Calls the handler of the first route that fits. Otherwise answers 404, 405 with Allow, or 400 for a path that
 * cannot be decoded. The route (NULL when none fitted) is remembered: net_request_route. Loop thread. O(routes).
 */
void net_route_dispatch(const struct net_route *routes, size_t count, struct net_request *request, void *user);
/** The route that was taken, NULL before dispatch and when none fitted. Any thread that holds a reference. */
const struct net_route *net_request_route(const struct net_request *request);

#endif
