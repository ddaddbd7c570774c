// SPDX-License-Identifier: Apache-2.0
/*
 * Each process ID that is there, or waits, has one word: milliseconds of the last read << 8 | backoff << 1 | waiting. One that
 * goes while it waits is marked, and left out when its turn comes: most of a storm's processes are.
 */
#include "agent/watch.h"

#include "base/hmap.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct entry {
	uint32_t pid;
	uint64_t due_ms;
};

struct watch {
	struct tables *tables;
	struct hmap words;
	struct entry *queue; /* a ring of WATCH_QUEUE_MAX */
	uint32_t head, count;
	struct watch_counters counters;
};

enum { WORD_WAITING = 1, WORD_BACKOFF_SHIFT = 1, WORD_BACKOFF_MASK = 0x7f, WORD_TIME_SHIFT = 8, BACKOFF_GONE = WORD_BACKOFF_MASK };

static uint64_t clock_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t word_of(const struct watch *watch, uint32_t pid)
{
	uint64_t word = 0;
	return hmap_get(&watch->words, pid, &word) ? word : 0;
}

static unsigned backoff_of(uint64_t word)
{
	return (unsigned)(word >> WORD_BACKOFF_SHIFT & WORD_BACKOFF_MASK);
}

struct err *watch_create(struct tables *tables, struct watch **ret)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return err_nomem();
	watch->tables = tables;
	watch->queue = calloc(WATCH_QUEUE_MAX, sizeof(*watch->queue));
	if (!watch->queue) {
		free(watch);
		return err_nomem();
	}
	*ret = watch;
	return NULL;
}

void watch_destroy(struct watch *watch)
{
	if (!watch)
		return;
	hmap_deinit(&watch->words);
	free(watch->queue);
	free(watch);
}

static struct err *enqueue(struct watch *watch, uint32_t pid, uint64_t word, uint64_t due_ms)
{
	if (word & WORD_WAITING)
		return hmap_set(&watch->words, pid, word);
	if (watch->count == WATCH_QUEUE_MAX) {
		watch->counters.dropped++;
		return NULL;
	}
	TRY(hmap_set(&watch->words, pid, word | WORD_WAITING));
	watch->queue[(watch->head + watch->count++) % WATCH_QUEUE_MAX] = (struct entry){.pid = pid, .due_ms = due_ms};
	watch->counters.queued++;
	return NULL;
}

struct err *watch_scan(struct watch *watch)
{
	DIR *proc = opendir("/proc");
	struct err *e = NULL;

	if (!proc)
		return err_os(errno, "/proc");
	for (const struct dirent *entry = readdir(proc); entry && !e; entry = readdir(proc)) {
		char *end = NULL;
		unsigned long pid = strtoul(entry->d_name, &end, 10);
		if (end != entry->d_name && *end == 0 && pid > 0 && pid < UINT32_MAX)
			e = enqueue(watch, (uint32_t)pid, word_of(watch, (uint32_t)pid), 0);
	}
	(void)closedir(proc);
	return e;
}

struct err *watch_changed(struct watch *watch, uint32_t pid, uint64_t now_ms)
{
	uint64_t word = word_of(watch, pid);

	/* News: what did not help before may help now. Most processes of a storm are gone before their turn, and a loader maps on. */
	word &= ~((uint64_t)WORD_BACKOFF_MASK << WORD_BACKOFF_SHIFT);
	return enqueue(watch, pid, word, now_ms + WATCH_INTERVAL_MS);
}

struct err *watch_missed(struct watch *watch, uint32_t pid, uint64_t now_ms)
{
	uint64_t word = word_of(watch, pid), last = word >> WORD_TIME_SHIFT;
	unsigned backoff = backoff_of(word);
	uint64_t due = last ? last + ((uint64_t)WATCH_INTERVAL_MS << backoff) : now_ms;

	if (word & WORD_WAITING || due > now_ms)
		return NULL;
	if (backoff < WATCH_BACKOFF_MAX)
		word += 1U << WORD_BACKOFF_SHIFT;
	return enqueue(watch, pid, word, now_ms);
}

void watch_gone(struct watch *watch, uint32_t pid)
{
	uint64_t word = word_of(watch, pid);

	tables_forget(watch->tables, pid);
	if (word & WORD_WAITING) /* the key is there: no memory is needed */
		err_free(hmap_set(&watch->words, pid, WORD_WAITING | BACKOFF_GONE << WORD_BACKOFF_SHIFT));
	else
		(void)hmap_remove(&watch->words, pid);
}

struct err *watch_work(struct watch *watch, uint64_t now_ms, uint32_t *left_ret)
{
	uint32_t looked = 0, waiting = watch->count;

	uint64_t began = clock_ms();

	for (uint32_t done = 0; looked < waiting && done < WATCH_BATCH; looked++) {
		struct entry entry = watch->queue[watch->head];
		watch->head = (watch->head + 1) % WATCH_QUEUE_MAX;
		watch->count--;
		if (entry.due_ms > now_ms) { /* to the end: it is due within WATCH_INTERVAL_MS */
			watch->queue[(watch->head + watch->count++) % WATCH_QUEUE_MAX] = entry;
			continue;
		}
		uint64_t backoff = backoff_of(word_of(watch, entry.pid));
		if (backoff == BACKOFF_GONE) {
			(void)hmap_remove(&watch->words, entry.pid);
			continue;
		}
		TRY(hmap_set(&watch->words, entry.pid, now_ms << WORD_TIME_SHIFT | backoff << WORD_BACKOFF_SHIFT));
		TRY(tables_sync(watch->tables, entry.pid));
		watch->counters.read++;
		done = clock_ms() - began < WATCH_TURN_MS ? done + 1 : WATCH_BATCH;
	}
	*left_ret = waiting - looked;
	return NULL;
}

void watch_counters(const struct watch *watch, struct watch_counters *ret)
{
	*ret = watch->counters;
}
