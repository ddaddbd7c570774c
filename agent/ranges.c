// SPDX-License-Identifier: Apache-2.0
#include "agent/ranges.h"

#include <string.h>

static struct err *grow(struct range **items, size_t *cap, size_t count)
{
	if (count < *cap)
		return NULL;
	size_t wanted = *cap ? 2 * *cap : 16;
	struct range *more = realloc(*items, wanted * sizeof(*more));
	if (!more)
		return err_nomem();
	*items = more;
	*cap = wanted;
	return NULL;
}

struct err *ranges_init(struct ranges *ranges, uint32_t count)
{
	*ranges = (struct ranges){.total = count};
	TRY(grow(&ranges->free, &ranges->free_cap, 0));
	if (count > 0)
		ranges->free[ranges->free_count++] = (struct range){.first = 0, .count = count};
	return NULL;
}

void ranges_deinit(struct ranges *ranges)
{
	free(ranges->free);
	free(ranges->resting);
	*ranges = (struct ranges){0};
}

static void remove_at(struct range *items, size_t *count, size_t at)
{
	memmove(items + at, items + at + 1, (*count - at - 1) * sizeof(*items));
	(*count)--;
}

/** Makes a range free, joined with its neighbours. */
static struct err *release(struct ranges *r, struct range range)
{
	size_t at = 0;

	TRY(grow(&r->free, &r->free_cap, r->free_count));
	while (at < r->free_count && r->free[at].first < range.first)
		at++;
	memmove(r->free + at + 1, r->free + at, (r->free_count - at) * sizeof(*r->free));
	r->free[at] = range;
	r->free_count++;
	r->used -= range.count;
	if (at + 1 < r->free_count && range.first + range.count == r->free[at + 1].first) {
		r->free[at].count += r->free[at + 1].count;
		remove_at(r->free, &r->free_count, at + 1);
	}
	if (at > 0 && r->free[at - 1].first + r->free[at - 1].count == range.first) {
		r->free[at - 1].count += r->free[at].count;
		remove_at(r->free, &r->free_count, at);
	}
	return NULL;
}

static void wake_rested(struct ranges *r, uint64_t now_ms)
{
	size_t done = 0;

	while (done < r->resting_count && r->resting[done].free_at_ms <= now_ms) {
		struct err *e = release(r, r->resting[done]);
		if (e) {
			err_free(e);
			break;
		}
		done++;
	}
	if (done > 0) {
		memmove(r->resting, r->resting + done, (r->resting_count - done) * sizeof(*r->resting));
		r->resting_count -= done;
	}
}

bool ranges_take(struct ranges *r, uint32_t count, uint64_t now_ms, uint32_t *first_ret)
{
	wake_rested(r, now_ms);
	if (count == 0) {
		*first_ret = 0;
		return true;
	}
	for (size_t i = 0; i < r->free_count; i++) {
		if (r->free[i].count < count)
			continue;
		*first_ret = r->free[i].first;
		r->free[i].first += count;
		r->free[i].count -= count;
		r->used += count;
		if (r->free[i].count == 0)
			remove_at(r->free, &r->free_count, i);
		return true;
	}
	return false;
}

struct err *ranges_give(struct ranges *r, uint32_t first, uint32_t count, uint64_t free_at_ms)
{
	if (count == 0)
		return NULL;
	TRY(grow(&r->resting, &r->resting_cap, r->resting_count));
	r->resting[r->resting_count++] = (struct range){.first = first, .count = count, .free_at_ms = free_at_ms};
	return NULL;
}

uint32_t ranges_end(struct ranges *r, uint64_t now_ms)
{
	wake_rested(r, now_ms);
	const struct range *last = r->free_count > 0 ? &r->free[r->free_count - 1] : NULL;
	return last && last->first + last->count == r->total ? last->first : r->total;
}
