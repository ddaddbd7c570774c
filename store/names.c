// SPDX-License-Identifier: Apache-2.0
/* Words for the store's enums: stable, since the HTTP API and metrics print them. */
#include "store/job.h"

#include <string.h>

const char *store_source_name(enum store_source source)
{
	switch (source) {
	case STORE_SOURCE_UPLOAD:
		return "upload";
	case STORE_SOURCE_DIRECTORY:
		return "directory";
	case STORE_SOURCE_PACKAGE:
		return "package";
	case STORE_SOURCE_DEBUGINFOD:
		return "debuginfod";
	default:
		return "unknown";
	}
}

uint8_t store_source_rank(enum store_source source)
{
	switch (source) {
	case STORE_SOURCE_UPLOAD:
		return 100;
	case STORE_SOURCE_DIRECTORY:
		return 80;
	case STORE_SOURCE_PACKAGE:
		return 60;
	case STORE_SOURCE_DEBUGINFOD:
		return 40;
	default:
		return 0;
	}
}

const char *store_job_state_name(enum store_job_state state)
{
	switch (state) {
	case STORE_JOB_QUEUED:
		return "queued";
	case STORE_JOB_RUNNING:
		return "running";
	case STORE_JOB_FAILED:
		return "failed";
	case STORE_JOB_DONE:
		return "done";
	default:
		return "unknown";
	}
}

static const char *const role_names[] = {
	[STORE_ROLE_RUNTIME] = "runtime",
	[STORE_ROLE_DEBUG] = "debug",
	[STORE_ROLE_PACKAGE] = "package",
	[STORE_ROLE_SUPPLEMENT] = "supplement",
	[STORE_ROLE_SPLIT] = "split",
};

const char *store_role_name(enum store_role role)
{
	return role >= STORE_ROLE_RUNTIME && role <= STORE_ROLE_SPLIT ? role_names[role] : "unknown";
}

bool store_role_parse(const char *word, enum store_role *ret)
{
	for (int role = STORE_ROLE_RUNTIME; role <= STORE_ROLE_SPLIT; role++) {
		if (strcmp(word, role_names[role]) == 0) {
			*ret = (enum store_role)role;
			return true;
		}
	}
	return false;
}
