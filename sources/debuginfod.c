// SPDX-License-Identifier: Apache-2.0
/*
 * A debuginfod server: GET <url>/buildid/<hex>/debuginfo and /executable. Both are asked for, since only the runtime file
 * has load segments and a file ID, and only the debug file has lines. One without the other is taken too.
 * Source: elfutils, debuginfod(8), WEBAPI. Debian's server knows no HEAD and no Range.
 */
#include "sources/source.h"

#include "sources/address.h"

#include <stdio.h>
#include <string.h>

struct debuginfod {
	struct source source;
	struct source_context context;
	char url[FETCH_URL_MAX];
};

static struct err *get(struct debuginfod *server, const char *what, const struct build_id *id, struct fetch_cancel *cancel,
	struct fetch_result *ret)
{
	char hex[BUILD_ID_HEX_SIZE], url[FETCH_URL_MAX + 256];
	struct fetch_request request = {.url = url, .limit = server->context.max_file_bytes, .refuse_html = true, .cancel = cancel};

	build_id_format(id, hex);
	(void)snprintf(url, sizeof(url), "%s/buildid/%s/%s", server->url, hex, what);
	return fetch_run(server->context.fetch, &request, ret);
}

/* Takes one of the two files; false when it did not come, and then @p said says why. */
static struct err *take(struct debuginfod *server, const struct source_wanted *wanted, enum store_role role, struct source_said *said,
	bool *ret)
{
	const char *what = role == STORE_ROLE_DEBUG ? "debuginfo" : "executable";
	struct fetch_cancel *claim = role == STORE_ROLE_DEBUG ? &wanted->race->debug : &wanted->race->runtime;
	CLEANUP(fetch_result_deinit) struct fetch_result result = {.fd = -1};
	char hex[BUILD_ID_HEX_SIZE];

	*ret = false;
	TRY(get(server, what, &wanted->build_id, claim, &result));
	said->bytes += result.wire_bytes;
	if (result.answer != FETCH_OK) {
		source_say_fetch(said, &result);
		return NULL;
	}
	CLEANUP(err_freep) struct err *e = source_check_build_id(result.fd, &wanted->build_id);
	if (e) {
		source_say(said, STORE_ASK_REFUSED, "%s: %.250s", what, err_message(e));
		return NULL;
	}
	if (!fetch_cancel(server->context.fetch, claim)) {
		source_say_cancelled(said);
		return NULL;
	}
	struct source_file *file = &said->files[said->file_count++];
	*file = (struct source_file){.role = role, .fd = take_fd(&result.fd)};
	build_id_format(&wanted->build_id, hex);
	(void)snprintf(file->name, sizeof(file->name), "%s.%s", hex, what);
	*ret = true;
	return NULL;
}

static struct err *find(struct source *source, const struct source_wanted *wanted, struct source_said *ret)
{
	struct debuginfod *server = (struct debuginfod *)source;
	struct source_said executable = {0};
	bool has_debug = false, has_executable = false;

	if (wanted->build_id.len == 0) {
		source_say(ret, STORE_ASK_NOT_FOUND, "not asked: its build ID is not known");
		return NULL;
	}
	if (!wanted->has_debug)
		TRY(take(server, wanted, STORE_ROLE_DEBUG, ret, &has_debug));
	if (!has_debug && ret->answer == STORE_ASK_CANCELLED)
		return NULL; /* who was first sees to the executable, too */
	if (!has_debug && ret->answer == STORE_ASK_FAILED)
		return NULL; /* it is not well: do not press it */
	executable = *ret;
	if (!wanted->has_runtime || !has_debug)
		TRY(take(server, wanted, STORE_ROLE_RUNTIME, &executable, &has_executable));
	ret->bytes = executable.bytes;
	if (wanted->has_debug && !has_executable) {
		*ret = executable;
		return NULL;
	}
	if (has_executable) {
		ret->files[ret->file_count] = executable.files[ret->file_count];
		ret->file_count++;
	}
	if (ret->file_count == 0)
		return NULL;
	ret->answer = STORE_ASK_FOUND;
	ret->has_debug = has_debug;
	ret->has_runtime = has_executable;
	(void)snprintf(ret->provenance, sizeof(ret->provenance), "%s", source->name);
	(void)snprintf(ret->text, sizeof(ret->text), "it sent %s", !has_executable ? "debug info, and no executable" :
			wanted->has_debug ? "the executable" : !has_debug ? "an executable, and no debug info" : "debug info and the executable");
	return NULL;
}

static struct err *bring(struct source *source, const struct source_needed *needed, struct source_file *ret, char *reason, size_t size)
{
	struct debuginfod *server = (struct debuginfod *)source;
	CLEANUP(fetch_result_deinit) struct fetch_result result = {.fd = -1};

	TRY(get(server, "debuginfo", &needed->build_id, NULL, &result));
	if (result.answer != FETCH_OK) {
		(void)snprintf(reason, size, "%s", result.reason);
		return NULL;
	}
	CLEANUP(err_freep) struct err *e = source_check_build_id(result.fd, &needed->build_id);
	if (e) {
		(void)snprintf(reason, size, "%s", err_message(e));
		return NULL;
	}
	*ret = (struct source_file){.role = STORE_ROLE_SUPPLEMENT, .fd = take_fd(&result.fd)};
	return NULL;
}

static void destroy(struct source *source)
{
	free(source);
}

struct err *source_debuginfod(const struct source_context *context, const char *url, struct source **ret)
{
	static const struct source_ops ops = {.find = find, .bring = bring, .destroy = destroy};
	size_t len = strlen(url);

	while (len > 0 && url[len - 1] == '/')
		len--;
	if (len == 0 || len > 256 || (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0))
		return err_new(ERR_INVALID, "sources.debuginfod: \"%.100s\" is no http or https URL of at most 256 bytes", url);
	struct debuginfod *server = calloc(1, sizeof(*server));
	if (!server)
		return err_nomem();
	server->source.ops = &ops;
	server->source.kind = STORE_SOURCE_DEBUGINFOD;
	server->source.may_race = true;
	server->context = *context;
	(void)snprintf(server->url, sizeof(server->url), "%.*s", (int)len, url);
	(void)snprintf(server->source.name, sizeof(server->source.name), "debuginfod %.110s", server->url);
	server->source.is_public = address_url_is_public(server->url);
	*ret = &server->source;
	return NULL;
}
