// SPDX-License-Identifier: Apache-2.0
/*
 * Who sends OTLP profiles: the instrumentation scope names the agent and its version, the resource the host. Agents make a resource of
 * each process, so that most resources of a request say the same of their sender: it is looked at once for each resource, and there
 * are few different ones.
 */
#include "profiles/otlp_intake_internal.h"

#include <string.h>

enum { SCOPE_NAME = 1, SCOPE_VERSION = 2 };

static bool text_is(struct otlp_text text, const char *word)
{
	return text.len == strlen(word) && memcmp(text.bytes, word, text.len) == 0;
}

/* Semantic conventions of resources, and where each goes. The scope's own words win over those of an SDK. */
static struct otlp_text *place_of(struct otlp_sender *sender, struct otlp_text key)
{
	const struct {
		const char *key;
		struct otlp_text *place;
	} places[] = {{"host.name", &sender->host}, {"host.id", &sender->host_id}, {"host.arch", &sender->machine},
		{"os.description", &sender->os}, {"k8s.node.name", &sender->node}, {"telemetry.sdk.name", &sender->name},
		{"telemetry.sdk.version", &sender->version},
		{"os.kernel.release", &sender->kernel}, {"host.kernel.release", &sender->kernel}};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (text_is(key, places[i].key))
			return places[i].place;
	return NULL;
}

/* The SDKs' os.description has uname's words in it: "Debian GNU/Linux 12 (bookworm) (Linux host 6.1.0-50-amd64 #1 SMP ..)". */
static struct otlp_text kernel_of(struct otlp_text os)
{
	static const char mark[] = "(Linux ";
	const char *at = os.len ? memmem(os.bytes, os.len, mark, sizeof(mark) - 1) : NULL;
	const char *end = os.bytes + os.len, *host = at ? memchr(at + sizeof(mark) - 1, ' ', (size_t)(end - at) - (sizeof(mark) - 1)) : NULL;
	const char *behind = host ? memchr(host + 1, ' ', (size_t)(end - host - 1)) : NULL;

	return behind ? (struct otlp_text){host + 1, (size_t)(behind - host - 1)} : (struct otlp_text){0};
}

static void read_resource(const struct otlp_request *request, struct wire_span resource, struct otlp_sender *sender)
{
	struct reader r = wire_reader(resource, NULL);
	struct otlp_attribute attribute;

	while (otlp_next_resource_attribute(request, &r, &attribute)) {
		struct otlp_text *place = attribute.kind == OTLP_VALUE_TEXT ? place_of(sender, attribute.key) : NULL;
		if (place)
			*place = attribute.text;
	}
	if (!sender->host.len)
		sender->host = sender->node;
	if (!sender->kernel.len)
		sender->kernel = kernel_of(sender->os);
}

static void read_scope(struct wire_span scope, struct otlp_sender *sender)
{
	struct reader r = wire_reader(scope, NULL);
	struct otlp_text name = {0}, version = {0};
	struct wire_field field;

	while (wire_next(&r, &field)) {
		struct otlp_text text = {(const char *)field.bytes.bytes, field.bytes.len};
		if (field.type == WIRE_LEN && field.number == SCOPE_NAME)
			name = text;
		else if (field.type == WIRE_LEN && field.number == SCOPE_VERSION)
			version = text;
	}
	if (!name.len && !version.len)
		return;
	sender->name = name;
	sender->version = version;
}

static bool same_text(struct otlp_text a, struct otlp_text b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.bytes, b.bytes, a.len) == 0);
}

static bool same_sender(const struct otlp_sender *a, const struct otlp_sender *b)
{
	return same_text(a->host, b->host) && same_text(a->host_id, b->host_id) && same_text(a->name, b->name) &&
	       same_text(a->version, b->version) && same_text(a->kernel, b->kernel);
}

void otlp_intake_sender(struct otlp_intake *in, const struct otlp_profile *profile, uint64_t samples)
{
	struct otlp_intake_result *result = in->result;
	struct otlp_sender sender = {.samples = samples};

	if (result->sender_count > 0 && in->sender_resource == profile->resource.bytes && in->sender_scope == profile->scope.bytes) {
		result->senders[in->sender].samples += samples;
		return;
	}
	read_resource(in->request, profile->resource, &sender);
	read_scope(profile->scope, &sender);
	in->sender_resource = profile->resource.bytes;
	in->sender_scope = profile->scope.bytes;
	for (in->sender = 0; in->sender < result->sender_count; in->sender++) {
		if (same_sender(&result->senders[in->sender], &sender)) {
			result->senders[in->sender].samples += samples;
			return;
		}
	}
	/* What is past the limit counts for the last: it is a list for people. */
	if (result->sender_count == OTLP_SENDERS_MAX)
		result->senders[--in->sender].samples += samples;
	else
		result->senders[result->sender_count++] = sender;
}
