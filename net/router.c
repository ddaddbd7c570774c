// SPDX-License-Identifier: Apache-2.0
#include "net/router.h"

#include "net/exchange.h"

#include <stdio.h>
#include <string.h>

/* One segment of a path: [text, text + len). */
struct segment {
	const char *text;
	size_t len;
};

/* Cuts the next segment off "/a/b"; false at the end. "/" has one empty segment, as "/a/" has a second one. */
static bool next_segment(const char **path, struct segment *ret)
{
	if (**path != '/')
		return false;
	ret->text = *path + 1;
	ret->len = strcspn(ret->text, "/");
	*path = ret->text + ret->len;
	return true;
}

/* Whether @p path fits @p pattern; the segments that stand for parameters in @p params. */
static bool match(const char *pattern, const char *path, struct segment *params, size_t *count_ret)
{
	struct segment want, have;
	size_t count = 0;

	for (;;) {
		bool more = next_segment(&pattern, &want);
		if (next_segment(&path, &have) != more)
			return false;
		if (!more)
			break;
		if (want.len > 1 && want.text[0] == '{') {
			if (have.len == 0 || count == NET_ROUTE_MAX_PARAMS)
				return false;
			params[count++] = have;
		} else if (want.len != have.len || memcmp(want.text, have.text, want.len) != 0) {
			return false;
		}
	}
	*count_ret = count;
	return true;
}

/* Decodes the parameters into one allocation of the request. */
static bool keep_params(struct net_request *request, const struct segment *params, size_t count)
{
	size_t size = 0, used = 0;

	for (size_t i = 0; i < count; i++)
		size += params[i].len + 1;
	if (size == 0)
		return true;
	request->param_text = malloc(size);
	for (size_t i = 0; request->param_text && i < count; i++) {
		char *text = request->param_text + used;
		if (!net_url_decode(params[i].text, params[i].len, false, text, size - used))
			return false;
		request->params[i] = text;
		used += strlen(text) + 1;
	}
	return request->param_text != NULL;
}

static const char *method_name(enum net_method method)
{
	static const char *const names[] = {[NET_GET] = "GET, HEAD", [NET_HEAD] = "HEAD", [NET_POST] = "POST",
		[NET_PUT] = "PUT", [NET_PATCH] = "PATCH", [NET_DELETE] = "DELETE", [NET_OPTIONS] = "OPTIONS"};

	return (size_t)method < ARRAY_SIZE(names) ? names[method] : "";
}

static void answer_405(struct net_request *request, unsigned allowed)
{
	struct net_reply reply = {0};
	char allow[96] = "";
	size_t used = 0;

	for (unsigned m = 0; m < NET_METHOD_OTHER; m++)
		if (allowed & (1u << m))
			used += (size_t)snprintf(allow + used, sizeof(allow) - used, "%s%s", used ? ", " : "",
				method_name((enum net_method)m));
	net_reply_error(&reply, 405, "method_not_allowed", "%s takes %s", net_request_path(request), allow);
	err_free(net_reply_header(&reply, "allow", allow));
	net_request_reply(request, &reply);
}

void net_route_dispatch(const struct net_route *routes, size_t count, struct net_request *request, void *user)
{
	enum net_method method = net_request_method(request);
	struct segment params[NET_ROUTE_MAX_PARAMS];
	unsigned allowed = 0;
	size_t param_count;

	for (size_t i = 0; i < count; i++) {
		const struct net_route *route = &routes[i];
		if (!match(route->pattern, net_request_path(request), params, &param_count))
			continue;
		allowed |= 1u << route->method;
		if (route->method != method && !(method == NET_HEAD && route->method == NET_GET))
			continue;
		request->route = route;
		if (keep_params(request, params, param_count))
			route->on_head(request, user);
		else
			net_request_error(request, 400, "invalid", "malformed path");
		return;
	}
	if (allowed)
		answer_405(request, allowed);
	else
		net_request_error(request, 404, "not_found", "there is no %s", net_request_path(request));
}

struct err *net_request_query_get(const struct net_request *request, const char *name, char *ret, size_t size,
	bool *found_ret)
{
	const char *at = net_request_query(request);
	size_t name_len = strlen(name);

	while (*at) {
		size_t len = strcspn(at, "&");
		if (len >= name_len && memcmp(at, name, name_len) == 0 && (len == name_len || at[name_len] == '=')) {
			size_t skip = len == name_len ? name_len : name_len + 1;
			if (!net_url_decode(at + skip, len - skip, true, ret, size))
				return err_new(ERR_INVALID, "%s: malformed or too long", name);
			*found_ret = true;
			return NULL;
		}
		at += len;
		at += *at == '&';
	}
	*found_ret = false;
	return NULL;
}
