// SPDX-License-Identifier: Apache-2.0
/*
 * What sources.c (the queue, and asking), together.c (several sources at once), setup.c (starting and stopping) and bring.c
 * (supplements, sync) share. Internal.
 */
#ifndef CAIRN_SOURCES_INTERNAL_H
#define CAIRN_SOURCES_INTERNAL_H

#include "sources/kernels.h"
#include "sources/packages.h"
#include "sources/source.h"
#include "sources/sources.h"
#include "sources/sync.h"

#include <pthread.h>

enum {
	SOURCES_THREADS_MAX = 16,
	SOURCES_NEAR_THREADS = 2,
	SOURCES_TOGETHER_MAX = 4, /* sources that are asked at the same time for one ID; others after them */
	SOURCES_BUDGETS = 1024, /* requesters; they share by hash */
};

struct item {
	struct item *next;
	struct store_query query; /* as it is known: public tenant, one or both IDs; lock, while several threads ask */
	bool taken, near_done; /* lock; near_done: what lies on this machine was looked through */
	bool has_debug, has_runtime; /* here, or on its way; lock */
	bool wants_runtime; /* without it the search goes on: addresses may be file offsets, which mean something in that file only */
	char phase[STORE_ASK_SOURCE_SIZE + 16];
};

struct item_lacks {
	bool debug, runtime;
};

struct budget {
	uint64_t hour;
	uint32_t used;
};

struct sources {
	struct store *store;
	struct sources_options options;
	struct store_sources *db;
	struct fetch *fetch;
	struct packages *packages;
	struct kernels kernels;
	struct sync *sync;
	struct source *all[SOURCES_MAX];
	size_t count, near_count; /* the first of them lie on this machine */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stopping;
	struct item *first, **last;
	struct sources_stats stats;
	struct budget budgets[SOURCES_BUDGETS];
	pthread_t threads[SOURCES_NEAR_THREADS + SOURCES_THREADS_MAX + 1];
	uint32_t started;
};

/** Takes items and asks, until the end: folders of this machine; everybody else. */
void *sources_near_main(void *sources);
void *sources_asker_main(void *sources);
/** Refreshes indices and forgets what is over, until the end. */
void *sources_refresher_main(void *sources);
bool sources_is_stopping(struct sources *sources);
/** Asks one source for what the item lacks and writes down what it said. @return the answer; 0: it was not waited for. Thread: any. */
enum store_ask_answer sources_ask_one(struct sources *sources, struct source *source, struct item *item, struct source_race *race);

/** How many of these, from the first on, are asked at the same time: 1 to SOURCES_TOGETHER_MAX. @p n: at least 1. */
size_t together_count(struct source *const *sources, size_t n);
/** What is neither here nor on its way. Thread: any. */
struct item_lacks sources_item_lacks(struct sources *sources, const struct item *item);

/** Asks all of them for the item, waits for their answers. @p n: up to SOURCES_TOGETHER_MAX. */
void together_ask(struct sources *sources, struct item *item, struct source *const *which, size_t n);

#endif
