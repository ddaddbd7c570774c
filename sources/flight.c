// SPDX-License-Identifier: Apache-2.0
/* One attempt: what libcurl is told, and what it tells us while bytes come. All on the fetch thread. */
#include "sources/flight.h"

#include "sources/address.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static bool has_proxy(void)
{
	static const char *const names[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (getenv(names[i]) && *getenv(names[i]))
			return true;
	return false;
}

static curl_socket_t on_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct flight *flight = user;

	if (purpose == CURLSOCKTYPE_IPCXN && !has_proxy() && address_is_private(&address->addr)) {
		if (flight->redirects == 0)
			flight->source_is_private = true;
		else if (!flight->source_is_private) {
			flight->met_private = true;
			return CURL_SOCKET_BAD;
		}
	}
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

void flight_note_source(struct flight *flight)
{
	char *ip = NULL;

	if (flight->redirects > 0 || has_proxy() || curl_easy_getinfo(flight->curl, CURLINFO_PRIMARY_IP, &ip) != CURLE_OK)
		return;
	flight->source_is_private = flight->source_is_private || (ip && ip[0] && address_host_is_private(ip));
}

static bool header_is(const char *line, size_t len, const char *name, char *value, size_t size)
{
	size_t name_len = strlen(name);

	if (len <= name_len || strncasecmp(line, name, name_len) != 0 || line[name_len] != ':')
		return false;
	const char *begin = line + name_len + 1, *end = line + len;
	while (begin < end && isspace((unsigned char)*begin))
		begin++;
	while (end > begin && isspace((unsigned char)end[-1]))
		end--;
	if ((size_t)(end - begin) >= size)
		return false;
	memcpy(value, begin, (size_t)(end - begin));
	value[end - begin] = 0;
	return true;
}

/* RFC 9110 10.2.3: seconds or a date. */
static uint64_t parse_retry_after(const char *value)
{
	char *end;
	time_t when, now = time(NULL);

	if (isdigit((unsigned char)*value)) {
		unsigned long long seconds = strtoull(value, &end, 10);
		return (seconds < 86400 ? seconds : 86400) * 1000;
	}
	when = curl_getdate(value, NULL);
	return when > now ? (uint64_t)(when - now < 86400 ? when - now : 86400) * 1000 : 0;
}

static void read_content_range(struct head *head, const char *value)
{
	unsigned long long from;

	if (sscanf(value, "bytes %llu-", &from) == 1) {
		head->range_from = from;
		head->has_range = true;
	}
}

static size_t on_header(char *line, size_t size, size_t count, void *user)
{
	struct flight *flight = user;
	struct head *head = &flight->head;
	size_t len = size * count;
	char value[FETCH_VALIDATOR_SIZE];
	unsigned status;

	head->bytes += len;
	if (head->bytes > FETCH_HEADERS_MAX) {
		(void)snprintf(flight->refusal, sizeof(flight->refusal), "a head of more than %d bytes", FETCH_HEADERS_MAX);
		return 0;
	}
	if (sscanf(line, "HTTP/%*s %u", &status) == 1)
		*head = (struct head){.status = status, .bytes = head->bytes};
	else if (header_is(line, len, "content-type", value, sizeof(value)))
		head->is_html = strncasecmp(value, "text/html", 9) == 0;
	else if (header_is(line, len, "content-length", value, sizeof(value)))
		head->length = strtoull(value, NULL, 10), head->has_length = true;
	else if (header_is(line, len, "content-range", value, sizeof(value)))
		read_content_range(head, value);
	else if (header_is(line, len, "retry-after", value, sizeof(value)))
		head->retry_after_ms = parse_retry_after(value);
	else if (header_is(line, len, "etag", value, sizeof(value)))
		(void)snprintf(head->etag, sizeof(head->etag), "%s", value);
	else if (header_is(line, len, "last-modified", value, sizeof(value)))
		(void)snprintf(head->last_modified, sizeof(head->last_modified), "%s", value);
	return len;
}

bool flight_begin_body(struct flight *flight)
{
	struct head *head = &flight->head;
	uint64_t want = flight->range_from + flight->result.bytes;

	if (flight->refuse_html && head->is_html) {
		(void)snprintf(flight->refusal, sizeof(flight->refusal), "it answered with an HTML page");
		return false;
	}
	if (head->status == 206 && (!head->has_range || head->range_from != want)) {
		(void)snprintf(flight->refusal, sizeof(flight->refusal), "it answered another range than was asked for");
		return false;
	}
	if (head->status == 200 && flight->result.bytes > 0) { /* it does not resume */
		flight->result.bytes = 0;
		if (ftruncate(flight->result.fd, 0))
			return false;
	}
	flight->result.is_range = head->status == 206 && flight->range_len > 0;
	if (head->has_length && head->length > flight->limit - flight->result.bytes && !flight->result.is_range) {
		(void)snprintf(flight->refusal, sizeof(flight->refusal), "%llu bytes are announced, and the limit is %llu",
			(unsigned long long)(head->length + flight->result.bytes), (unsigned long long)flight->limit);
		return false;
	}
	(void)snprintf(flight->etag, sizeof(flight->etag), "%s", head->etag);
	(void)snprintf(flight->last_modified, sizeof(flight->last_modified), "%s", head->last_modified);
	return true;
}

static bool write_body(struct flight *flight, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t wrote = pwrite(flight->result.fd, bytes, len, (off_t)flight->result.bytes);
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote <= 0) {
			(void)snprintf(flight->refusal, sizeof(flight->refusal), "the temporary file: %s", strerror(wrote < 0 ? errno : ENOSPC));
			return false;
		}
		bytes += wrote;
		len -= (size_t)wrote;
		flight->result.bytes += (uint64_t)wrote;
	}
	return true;
}

/* Whether the rest is to wait behind another flight; else it has moved by so many bytes. */
static bool hold(struct flight *flight, size_t len)
{
	struct fetch *fetch = flight->fetch;
	uint64_t now = fetch_now_ms();

	(void)pthread_mutex_lock(&fetch->lock);
	flight->held = race_holds(flight, now);
	fetch->stats.held += flight->held;
	if (!flight->held)
		race_moved(flight, len, now);
	(void)pthread_mutex_unlock(&fetch->lock);
	return flight->held;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *user)
{
	struct flight *flight = user;
	size_t len = size * count, take = len;

	if (hold(flight, len))
		return CURL_WRITEFUNC_PAUSE; /* it gives these bytes again */
	flight->result.wire_bytes += len;
	flight->fetch->hour_bytes += len;
	if (flight->head.status != 200 && flight->head.status != 206)
		return len; /* an error page: passed over */
	if (flight->head.bytes != SIZE_MAX) {
		if (!flight_begin_body(flight))
			return 0;
		flight->head.bytes = SIZE_MAX; /* begun */
	}
	if (flight->result.is_range && len > flight->range_len - flight->result.bytes)
		take = (size_t)(flight->range_len - flight->result.bytes);
	if (take > flight->limit - flight->result.bytes) {
		(void)snprintf(flight->refusal, sizeof(flight->refusal), "more than %llu bytes came, which is the limit",
			(unsigned long long)flight->limit);
		return 0;
	}
	if (!write_body(flight, bytes, take))
		return 0;
	flight->enough = flight->result.is_range && flight->result.bytes == flight->range_len;
	return take == len ? len : 0;
}


/* ---------------------------------------------------------------------------------------- one attempt */

static bool add_header(struct flight *flight, const char *name, const char *value)
{
	char line[FETCH_VALIDATOR_SIZE + 64];

	(void)snprintf(line, sizeof(line), "%s: %s", name, value);
	struct curl_slist *headers = curl_slist_append(flight->headers, line);
	if (!headers)
		return false;
	flight->headers = headers;
	return true;
}

static bool add_validators(struct flight *flight)
{
	char range[64];
	uint64_t from = flight->range_from + flight->result.bytes;
	bool ok = true;

	flight->resumed = flight->result.bytes > 0;
	if (flight->resumed)
		ok = add_header(flight, "If-Range", flight->etag[0] ? flight->etag : flight->last_modified);
	else if (flight->if_etag[0])
		ok = add_header(flight, "If-None-Match", flight->if_etag);
	else if (flight->if_modified[0])
		ok = add_header(flight, "If-Modified-Since", flight->if_modified);
	if (ok && flight->range_len)
		(void)snprintf(range, sizeof(range), "bytes=%llu-%llu", (unsigned long long)from,
			(unsigned long long)(flight->range_from + flight->range_len - 1));
	else if (ok && flight->resumed)
		(void)snprintf(range, sizeof(range), "bytes=%llu-", (unsigned long long)from);
	else
		return ok;
	return add_header(flight, "Range", range);
}

static void set_options(struct flight *flight)
{
	const struct fetch_options *options = &flight->fetch->options;
	CURL *curl = flight->curl;
	uint64_t now = fetch_now_ms(), left = flight->deadline_ms > now ? flight->deadline_ms - now : 1;

	(void)curl_easy_setopt(curl, CURLOPT_URL, flight->at);
	(void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	(void)curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	(void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_USERAGENT, "cairn/" CAIRN_VERSION);
	(void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, flight->message);
	(void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)options->connect_ms);
	(void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)left);
	(void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)((options->stall_ms + 999) / 1000));
	(void)curl_easy_setopt(curl, CURLOPT_MAX_RECV_SPEED_LARGE, (curl_off_t)options->rate_bytes);
	(void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, flight->headers);
	(void)curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, flight->redirects > 0 ? 1L : 0L);
	/* Of a host without TLS libcurl would not learn that it has no HTTP/2, and let all others wait for the first transfer's end. */
	(void)curl_easy_setopt(curl, CURLOPT_PIPEWAIT, strncmp(flight->at, "https:", 6) == 0 ? 1L : 0L);
	(void)curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, on_socket);
	(void)curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, flight);
	(void)curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(curl, CURLOPT_HEADERDATA, flight);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, flight);
	(void)curl_easy_setopt(curl, CURLOPT_PRIVATE, flight);
}

bool flight_prepare(struct flight *flight)
{
	flight->curl = curl_easy_init();
	if (flight->curl && add_validators(flight)) {
		set_options(flight);
		return true;
	}
	if (flight->curl)
		curl_easy_cleanup(flight->curl);
	curl_slist_free_all(flight->headers);
	flight->curl = NULL;
	flight->headers = NULL;
	return false;
}
