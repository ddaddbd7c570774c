// SPDX-License-Identifier: Apache-2.0
/*
 * What sources.c (the queue, and asking), setup.c (starting and stopping) and bring.c (supplements, sync) share. Internal.
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
	SOURCES_BUDGETS = 1024, /* requesters; they share by hash */
};

struct item {
	struct item *next;
	struct store_query query; /* as it is known: public tenant, one or both IDs */
	bool taken, has_runtime;
	char phase[STORE_ASK_SOURCE_SIZE + 16];
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
	size_t count;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stopping;
	struct item *first, **last;
	struct sources_stats stats;
	struct budget budgets[SOURCES_BUDGETS];
	pthread_t threads[SOURCES_THREADS_MAX + 1]; /* the last one polls and refreshes */
	uint32_t started;
};

/** Takes items and asks, until the end. */
void *sources_asker_main(void *sources);
/** Looks at misses, refreshes indices, forgets what is over, until the end. */
void *sources_poller_main(void *sources);
bool sources_is_stopping(struct sources *sources);

#endif
