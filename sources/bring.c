// SPDX-License-Identifier: Apache-2.0
/* What is asked for other than by an ID that somebody saw: supplements of debug files (dwz), and packages ahead of need. */
#include "sources/internal.h"

#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------------------------------- supplements */

/* A source's own package, as an open file. */
static struct err *open_brought(struct source *source, struct source_file *file, struct sources_brought *ret)
{
	uint64_t bytes;

	ret->is_package = file->role == STORE_ROLE_PACKAGE;
	if (file->to_fetch)
		TRY(source->ops->fetch(source, file, &bytes));
	ret->fd = take_fd(&file->fd);
	return NULL;
}

struct err *sources_bring(struct sources *sources, const struct build_id *build_id, const char *name, bool is_public, struct sources_brought *ret)
{
	const struct source_needed needed = {*build_id, name};
	size_t len = 0;

	*ret = (struct sources_brought){.fd = -1};
	for (size_t i = 0; sources && i < sources->count && ret->fd < 0 && !sources_is_stopping(sources); i++) {
		struct source *source = sources->all[i];
		struct source_file file = {.fd = -1};
		char reason[200] = "";
		if (!source->ops->bring || (source->is_public && !is_public && !sources->options.ask_private))
			continue;
		CLEANUP(err_freep) struct err *e = source->ops->bring(source, &needed, &file, reason, sizeof(reason));
		if (!e && (file.fd >= 0 || file.to_fetch))
			e = open_brought(source, &file, ret);
		if (ret->fd < 0 && len < sizeof(ret->reason))
			len += (size_t)snprintf(ret->reason + len, sizeof(ret->reason) - len, "%s%.60s: %.150s", len ? "; " : "", source->name,
				e ? err_message(e) : reason);
	}
	return NULL;
}

/* ---------------------------------------------------------------------------------------- sync */

const char *sources_sync_state_name(enum sources_sync_state state)
{
	static const char *const names[] = {"waiting", "fetching", "building", "done", "failed"};

	return state <= SOURCES_SYNC_FAILED ? names[state] : "unknown";
}

struct err *sources_sync(struct sources *sources, const char *const *patterns, size_t count, bool dry_run, uint64_t *run_ret)
{
	bool any = false;

	for (size_t i = 0; sources && i < sources->count; i++)
		any = any || sources->all[i]->ops->list;
	return any ? sync_begin(sources->sync, patterns, count, dry_run, run_ret) :
		     err_new(ERR_NOT_FOUND, "no package repositories are configured (sources.apt)");
}

void sources_sync_progress(struct sources *sources, struct sources_sync_progress *ret)
{
	*ret = (struct sources_sync_progress){0};
	if (sources)
		sync_progress(sources->sync, ret);
}

bool sources_sync_package(struct sources *sources, size_t index, struct sources_sync_package *ret)
{
	return sources && sync_package(sources->sync, index, ret);
}
