// SPDX-License-Identifier: Apache-2.0
/*
 * Which samples are kept: by process, thread name, container, label. Each condition is a list of which one must fit; conditions
 * that are given must all hold. Patterns are those of the shell (fnmatch(3)).
 */
#ifndef CAIRN_AGENT_FILTER_H
#define CAIRN_AGENT_FILTER_H

#include "agent/processes.h"
#include "agent/shared.h"

enum { FILTER_ITEMS_MAX = 64 };

struct filter_list {
	char *text; /* owned, cut into items at its commas */
	const char *items[FILTER_ITEMS_MAX];
	size_t count;
};

struct filter {
	struct filter_list comms, containers, labels; /* labels: key=value */
	uint32_t pids[FILTER_ITEMS_MAX];
	size_t pid_count;
	bool needs_process; /* filter_process says something */
};

/** Lists with commas; NULL or "": no condition. ERR_INVALID: which; ERR_NOMEM. Free it with filter_deinit in each case. */
struct err *filter_init(struct filter *filter, const char *pids, const char *comms, const char *containers, const char *labels) MUST_USE;
void filter_deinit(struct filter *filter);
/** What the record alone tells. */
bool filter_sample(const struct filter *filter, const struct sample_head *head);
/** What the process tells: a container by its ID's beginning, a label by key=value; service.name, container.id and the like count as labels. */
bool filter_process(const struct filter *filter, const struct process_info *process);

/** Cuts @p text (NULL is fine) at commas, spaces around items taken off; empty ones are left out. ERR_INVALID: more than FILTER_ITEMS_MAX. */
struct err *filter_list_init(struct filter_list *list, const char *text) MUST_USE;
void filter_list_deinit(struct filter_list *list);
bool filter_list_match(const struct filter_list *list, const char *text);

#endif
