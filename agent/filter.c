// SPDX-License-Identifier: Apache-2.0
#include "agent/filter.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAIR_MAX = 2048 };

struct err *filter_list_init(struct filter_list *list, const char *text)
{
	*list = (struct filter_list){0};
	if (!text || !text[0])
		return NULL;
	list->text = strdup(text);
	if (!list->text)
		return err_nomem();
	char *rest = list->text;
	for (char *item = strsep(&rest, ","); item; item = strsep(&rest, ",")) {
		item += strspn(item, " \t");
		for (size_t len = strlen(item); len > 0 && strchr(" \t", item[len - 1]); len--)
			item[len - 1] = 0;
		if (!item[0])
			continue;
		if (list->count == FILTER_ITEMS_MAX)
			return err_new(ERR_INVALID, "more than %d in one list", FILTER_ITEMS_MAX);
		list->items[list->count++] = item;
	}
	return NULL;
}

void filter_list_deinit(struct filter_list *list)
{
	free(list->text);
	*list = (struct filter_list){0};
}

bool filter_list_match(const struct filter_list *list, const char *text)
{
	for (size_t i = 0; i < list->count; i++)
		if (fnmatch(list->items[i], text, 0) == 0)
			return true;
	return false;
}

static struct err *take_pids(struct filter *filter, const char *text)
{
	struct filter_list list;
	struct err *e = filter_list_init(&list, text);

	for (size_t i = 0; i < list.count && !e; i++) {
		char *end = NULL;
		unsigned long pid = strtoul(list.items[i], &end, 10);
		if (*end || pid == 0 || pid > INT32_MAX || list.items[i][0] == '-')
			e = err_new(ERR_INVALID, "\"%s\" is no process ID", list.items[i]);
		filter->pids[filter->pid_count++] = (uint32_t)pid;
	}
	filter_list_deinit(&list);
	return e;
}

struct err *filter_init(struct filter *filter, const char *pids, const char *comms, const char *containers, const char *labels)
{
	*filter = (struct filter){0};
	TRY(err_wrap(take_pids(filter, pids), "pid"));
	TRY(err_wrap(filter_list_init(&filter->comms, comms), "comm"));
	TRY(err_wrap(filter_list_init(&filter->containers, containers), "container"));
	TRY(err_wrap(filter_list_init(&filter->labels, labels), "with-label"));
	for (size_t i = 0; i < filter->labels.count; i++)
		if (!strchr(filter->labels.items[i], '=') || filter->labels.items[i][0] == '=')
			return err_new(ERR_INVALID, "with-label: \"%s\" is not key=value", filter->labels.items[i]);
	filter->needs_process = filter->containers.count + filter->labels.count > 0;
	return NULL;
}

void filter_deinit(struct filter *filter)
{
	filter_list_deinit(&filter->comms);
	filter_list_deinit(&filter->containers);
	filter_list_deinit(&filter->labels);
}

bool filter_sample(const struct filter *filter, const struct sample_head *head)
{
	char comm[SAMPLE_COMM_BYTES + 1] = "";
	bool fits = filter->pid_count == 0;

	for (size_t i = 0; i < filter->pid_count && !fits; i++)
		fits = filter->pids[i] == head->pid;
	if (!fits || filter->comms.count == 0)
		return fits;
	memcpy(comm, head->comm, SAMPLE_COMM_BYTES);
	return filter_list_match(&filter->comms, comm);
}

static bool fits_container(const struct filter_list *list, const char *id)
{
	for (size_t i = 0; i < list->count && id[0]; i++)
		if (strncmp(id, list->items[i], strlen(list->items[i])) == 0 || fnmatch(list->items[i], id, 0) == 0)
			return true;
	return false;
}

static bool fits_pair(const struct filter_list *list, const char *key, const char *value)
{
	char pair[PAIR_MAX];

	(void)snprintf(pair, sizeof(pair), "%s=%s", key, value);
	return value[0] && filter_list_match(list, pair);
}

static bool fits_label(const struct filter_list *list, const struct process_info *process)
{
	if (fits_pair(list, "service.name", process->service) || fits_pair(list, "container.id", process->container.id) ||
		fits_pair(list, "process.executable.name", process->executable) ||
		fits_pair(list, "process.executable.path", process->executable_path))
		return true;
	for (size_t i = 0; i < process->label_count; i++)
		if (fits_pair(list, process->labels[i].key, process->labels[i].value))
			return true;
	return false;
}

bool filter_process(const struct filter *filter, const struct process_info *process)
{
	if (filter->containers.count > 0 && !fits_container(&filter->containers, process->container.id))
		return false;
	return filter->labels.count == 0 || fits_label(&filter->labels, process);
}
