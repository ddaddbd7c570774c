// SPDX-License-Identifier: Apache-2.0
/*
 * Sources that are asked for one ID at the same time, so that a server that stalls holds nobody up. They stand next to each other in
 * the list, allow it, and tell equally many people what is asked for: servers in the house are asked before those on the internet.
 *
 * They share a struct source_race: who has the debug info, or the runtime file, claims it, and the others' transfers of it end. So one
 * that brings only the runtime file ends nothing but the others' transfers of that. When who was first has debug info and no runtime file,
 * those that were given up are asked for it, one after the other. All have answered when together_ask returns.
 */
#include "sources/internal.h"

struct runner {
	struct sources *sources;
	struct item *item;
	struct source *source;
	struct source_race *race;
	pthread_t thread;
	bool has_thread;
	enum store_ask_answer answer;
};

size_t together_count(struct source *const *sources, size_t n)
{
	size_t count = 1;

	while (count < n && count < SOURCES_TOGETHER_MAX && sources[0]->may_race && sources[count]->may_race &&
		sources[count]->kind == sources[0]->kind && sources[count]->is_public == sources[0]->is_public)
		count++;
	return count;
}

static void *run(void *argument)
{
	struct runner *runner = argument;

	runner->answer = sources_ask_one(runner->sources, runner->source, runner->item, runner->race);
	return NULL;
}

/* Who was first has debug info alone: those that were given up may have the rest. */
static void ask_for_runtime(struct runner *runners, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct sources *sources = runners[i].sources;
		struct item_lacks lacks = sources_item_lacks(sources, runners[i].item);
		struct source_race alone = {0};
		if (lacks.debug || !lacks.runtime || sources_is_stopping(sources))
			return;
		if (runners[i].answer == STORE_ASK_CANCELLED)
			(void)sources_ask_one(sources, runners[i].source, runners[i].item, &alone);
	}
}

void together_ask(struct sources *sources, struct item *item, struct source *const *which, size_t n)
{
	struct source_race race = {0};
	struct runner runners[SOURCES_TOGETHER_MAX];

	for (size_t i = 0; i < n; i++)
		runners[i] = (struct runner){.sources = sources, .item = item, .source = which[i], .race = &race};
	for (size_t i = 1; i < n; i++)
		runners[i].has_thread = pthread_create(&runners[i].thread, NULL, run, &runners[i]) == 0;
	for (size_t i = 0; i < n; i++)
		if (!runners[i].has_thread) /* the first; and those for which there was no thread, one after the other */
			(void)run(&runners[i]);
	for (size_t i = 0; i < n; i++)
		if (runners[i].has_thread)
			(void)pthread_join(runners[i].thread, NULL);
	ask_for_runtime(runners, n);
}
