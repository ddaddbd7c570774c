// SPDX-License-Identifier: Apache-2.0
#include "agent/drafts.h"

#include "base/hmap.h"

#include <stdlib.h>
#include <string.h>

struct drafts {
	struct draft *items; /* DRAFTS_MAX; pid 0: free */
	uint32_t free[DRAFTS_MAX], free_count, top;
	struct hmap index; /* pid -> place */
	uint64_t dropped;
};

struct err *drafts_create(struct drafts **ret)
{
	struct drafts *d = calloc(1, sizeof(*d));

	if (!d)
		return err_nomem();
	d->items = calloc(DRAFTS_MAX, sizeof(*d->items));
	if (!d->items) {
		free(d);
		return err_nomem();
	}
	*ret = d;
	return NULL;
}

static void empty(struct draft *draft)
{
	for (uint32_t i = 0; i < draft->count; i++)
		free((char *)(uintptr_t)draft->items[i].map.path);
	free(draft->items);
	*draft = (struct draft){0};
}

void drafts_destroy(struct drafts *d)
{
	if (!d)
		return;
	for (uint32_t i = 0; i < d->top; i++)
		empty(&d->items[i]);
	hmap_deinit(&d->index);
	free(d->items);
	free(d);
}

struct draft *drafts_find(const struct drafts *d, uint32_t pid)
{
	uint64_t place = 0;
	return hmap_get(&d->index, pid, &place) ? &d->items[place] : NULL;
}

void drafts_drop(struct drafts *d, uint32_t pid)
{
	struct draft *draft = drafts_find(d, pid);

	if (!draft)
		return;
	empty(draft);
	d->free[d->free_count++] = (uint32_t)(draft - d->items);
	(void)hmap_remove(&d->index, pid);
}

/** An empty draft in place of what there was. */
static struct err *begin(struct drafts *d, uint32_t pid, struct draft **ret)
{
	drafts_drop(d, pid);
	if (d->free_count == 0 && d->top == DRAFTS_MAX) { /* those whose end nobody told are among them */
		d->dropped += d->top;
		for (uint32_t i = 0; i < d->top; i++)
			empty(&d->items[i]);
		hmap_clear(&d->index);
		d->top = 0;
	}
	uint32_t place = d->free_count ? d->free[d->free_count - 1] : d->top;
	TRY(hmap_set(&d->index, pid, place));
	if (d->free_count)
		d->free_count--;
	else
		d->top++;
	d->items[place] = (struct draft){.pid = pid};
	*ret = &d->items[place];
	return NULL;
}

/** Room for one more mapping; NULL in @p ret past the limit. */
static struct err *add(struct drafts *d, struct draft *draft, struct draft_map **ret)
{
	*ret = NULL;
	if (draft->count == DRAFTS_MAPPINGS_MAX) {
		d->dropped++;
		return NULL;
	}
	if (draft->count == draft->cap) {
		uint32_t cap = draft->cap ? 2 * draft->cap : 8;
		struct draft_map *items = realloc(draft->items, cap * sizeof(*items));
		if (!items)
			return err_nomem();
		draft->items = items;
		draft->cap = cap;
	}
	*ret = &draft->items[draft->count++];
	**ret = (struct draft_map){0};
	return NULL;
}

struct err *drafts_fork(struct drafts *d, uint32_t pid, const struct unwind_mapping *items, uint32_t count)
{
	struct draft *draft = NULL;
	struct draft_map *added = NULL;

	TRY(begin(d, pid, &draft));
	for (uint32_t i = 0; draft && i < count; i++) {
		TRY(add(d, draft, &added));
		if (added)
			*added = (struct draft_map){.map = {.start = items[i].start, .end = items[i].end}, .mapping = items[i], .is_known = true};
	}
	return NULL;
}

static struct err *add_copy(struct drafts *d, struct draft *draft, const struct draft_map *from)
{
	struct draft_map *added = NULL;

	TRY(add(d, draft, &added));
	if (!added)
		return NULL;
	*added = *from;
	added->map.path = from->map.path ? strdup(from->map.path) : NULL;
	return !from->map.path || added->map.path ? NULL : err_nomem();
}

struct err *drafts_fork_draft(struct drafts *d, uint32_t pid, uint32_t parent)
{
	struct draft *draft = NULL;

	if (!drafts_find(d, parent) || pid == parent)
		return NULL;
	TRY(begin(d, pid, &draft));
	const struct draft *from = drafts_find(d, parent);
	for (uint32_t i = 0; draft && from && i < from->count; i++)
		TRY(add_copy(d, draft, &from->items[i]));
	return NULL;
}

struct err *drafts_exec(struct drafts *d, uint32_t pid)
{
	struct draft *draft = NULL;

	TRY(begin(d, pid, &draft));
	draft->is_exec = true;
	return NULL;
}

struct err *drafts_map(struct drafts *d, uint32_t pid, const struct proc_map *map)
{
	struct draft *draft = drafts_find(d, pid);
	uint32_t kept = 0;

	/* What was there is not mapped any more: nobody tells of munmap. */
	for (uint32_t i = 0; draft && i < draft->count; i++) {
		if (draft->items[i].map.start < map->end && map->start < draft->items[i].map.end)
			free((char *)(uintptr_t)draft->items[i].map.path);
		else
			draft->items[kept++] = draft->items[i];
	}
	if (draft)
		draft->count = kept;
	return draft ? add_copy(d, draft, &(struct draft_map){.map = *map}) : NULL;
}

uint32_t drafts_count(const struct drafts *d)
{
	return d->top - d->free_count;
}

uint64_t drafts_dropped(const struct drafts *d)
{
	return d->dropped;
}
