// SPDX-License-Identifier: Apache-2.0
/* What is known of an ID, in the words of the API: the store's answer, and where that is none, what jobs say. */
#include "api/symbolize.h"
#include "sources/sources.h"
#include "store/job.h"
#include "symbolizer/table/table.h"

#include <stdio.h>
#include <string.h>

enum { RETRY_PENDING_S = 2, RETRY_UNKNOWN_S = 60, JOBS_LOOKED_AT = 16 };

const char *api_kind_name(uint32_t kinds)
{
	static const struct {
		uint32_t bit;
		const char *name;
	} words[] = {
		{TABLE_FROM_DWARF, "dwarf"},
		{TABLE_FROM_GOPCLNTAB, "gopclntab"},
		{TABLE_FROM_SYMTAB, "symtab"},
		{TABLE_FROM_GNU_DEBUGDATA, "gnu_debugdata"},
		{TABLE_FROM_DYNSYM, "dynsym"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (kinds & words[i].bit)
			return words[i].name;
	return "unknown";
}

static void set_pending(const struct store_job *job, struct api_known *known)
{
	known->status = API_MODULE_PENDING;
	known->retry_after_s = RETRY_PENDING_S;
	if (job->state == STORE_JOB_QUEUED)
		(void)snprintf(known->reason, sizeof(known->reason), "job %llu is queued", (unsigned long long)job->id);
	else
		(void)snprintf(known->reason, sizeof(known->reason), "job %llu is running%s%s", (unsigned long long)job->id,
			job->phase[0] ? ": " : "", job->phase);
}

/*
 * A queued or running job before all others, else the newest decides, if it failed. Packages come by twos (the debug info, the programs), and
 * one that had nothing to say of the file is no success.
 */
static struct err *ask_jobs(struct store_read *read, const struct store_query *query, struct api_known *known)
{
	struct store_job *jobs CLEANUP(freep) = calloc(JOBS_LOOKED_AT, sizeof(*jobs));
	size_t count;

	if (!jobs)
		return err_nomem();
	TRY(store_jobs_about(read, query, jobs, JOBS_LOOKED_AT, &count));
	for (size_t i = 0; i < count; i++) {
		if (jobs[i].state == STORE_JOB_QUEUED || jobs[i].state == STORE_JOB_RUNNING) {
			set_pending(&jobs[i], known);
			return NULL;
		}
	}
	size_t newest = 0;
	while (newest < count && jobs[newest].state == STORE_JOB_DONE && jobs[newest].wanted_count > 0)
		newest++;
	if (newest < count && jobs[newest].state == STORE_JOB_FAILED) {
		known->status = API_MODULE_FAILED;
		(void)snprintf(known->reason, sizeof(known->reason), "job %llu failed: %s", (unsigned long long)jobs[newest].id,
			jobs[newest].reason);
	}
	return NULL;
}

static void ask(struct sources *sources, uint64_t requester, const struct store_query *query, bool offsets, struct api_known *known)
{
	struct store_query wanted = *query;
	struct sources_answer said;
	size_t len = strlen(known->reason);

	bool names_only = known->status == API_MODULE_OK && !(known->answer.entry.kind & (TABLE_FROM_DWARF | TABLE_FROM_GOPCLNTAB));
	if (!sources || (known->status != API_MODULE_UNKNOWN && known->status != API_MODULE_NO_SYMBOLS && known->status != API_MODULE_FAILED && !names_only))
		return;
	if (!wanted.build_id.len && known->answer.has_file)
		wanted.build_id = known->answer.file.build_id;
	sources_ask(sources, &wanted, offsets, requester, &said);
	if (said.fresh && known->status == API_MODULE_FAILED)
		return;
	if (said.state == SOURCES_NONE || names_only) /* names now, and lines when a source has them */
		return;
	known->retry_after_s = said.retry_after_s;
	if (said.state == SOURCES_PENDING) {
		known->status = API_MODULE_PENDING;
		len = 0;
	}
	(void)snprintf(known->reason + len, sizeof(known->reason) - len, "%s%s", len ? "; " : "", said.reason);
}

void api_known_ask(struct sources *sources, uint64_t requester, const struct store_query *query, struct api_known *known)
{
	ask(sources, requester, query, false, known);
}

void api_known_ask_offsets(struct sources *sources, uint64_t requester, const struct store_query *query, struct api_known *known)
{
	bool has_segments = known->answer.has_file && known->answer.file.segments.count > 0;

	if (known->status == API_MODULE_OK && !has_segments) {
		known->status = API_MODULE_UNKNOWN;
		known->retry_after_s = RETRY_UNKNOWN_S;
		(void)snprintf(known->reason, sizeof(known->reason),
			"addresses are file offsets, and the runtime file, whose load segments would say what they mean, is not known");
	}
	ask(sources, requester, query, true, known);
}

struct err *api_known_resolve(struct store_read *read, const struct store_query *query, struct api_known *ret)
{
	TRY(store_resolve(read, query, &ret->answer));
	ret->retry_after_s = 0;
	(void)snprintf(ret->reason, sizeof(ret->reason), "%s", ret->answer.reason);
	switch (ret->answer.status) {
	case STORE_OK:
		ret->status = API_MODULE_OK;
		return NULL;
	case STORE_NO_SYMBOLS:
		ret->status = API_MODULE_NO_SYMBOLS;
		if (!ret->reason[0])
			(void)snprintf(ret->reason, sizeof(ret->reason),
				"the file is known, and nothing that was seen of it has symbols");
		break;
	case STORE_UNKNOWN:
	default:
		ret->status = API_MODULE_UNKNOWN;
		ret->retry_after_s = RETRY_UNKNOWN_S;
		if (!ret->reason[0])
			(void)snprintf(ret->reason, sizeof(ret->reason), "nothing was uploaded under this ID");
		break;
	}
	/* A job is found by the build ID, too, where the record has it: packages are fetched by that. */
	struct store_query wanted = *query;
	if (!wanted.build_id.len && ret->answer.has_file)
		wanted.build_id = ret->answer.file.build_id;
	return ask_jobs(read, &wanted, ret);
}
