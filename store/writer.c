// SPDX-License-Identifier: Apache-2.0
/*
 * The one writer. Commands queue up; the writer takes as many as are there (GROUP_MAX, GROUP_BYTES of tables), runs them in
 * one transaction, commits it, and only then tells their callers: one fsync for all of them.
 *
 * A command that fails before it wrote anything fails alone. One that fails later spoils the transaction: that is
 * thrown away and every command of the group runs again, each in a transaction of its own. So commands may run twice
 * and set their outs each time.
 *
 * A commit that fails fails its whole group, and from then on everything is refused until the environment was closed and
 * opened again (env.c says why); the writer tries that with the next group, or after half a second.
 *
 * Between groups: misses that were noted are written (once a second), and compaction goes on (compact.c).
 *
 * The `profiles` environment has the same writer with hooks (profiles.h): commands gather rows in memory, group_end writes them
 * into the transaction, group_gone forgets them when it was thrown away, between merges and drops what is stored.
 */
#include "store/internal.h"

#include <errno.h>
#include <time.h>

enum {
	GROUP_MAX = 256,
	GROUP_BYTES = 64 << 20,
	IDLE_MS = 500,
	MISS_FLUSH_MS = 1000,
};

static uint64_t monotonic_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* -------------------------------------------------------------------------------------- failure */

void writer_failed(struct store *store, const struct err *e)
{
	atomic_fetch_add_explicit(&store->commit_failures, 1, memory_order_relaxed);
	(void)pthread_mutex_lock(&store->queue_mutex);
	text_copy(store->failure, sizeof(store->failure), err_message(e));
	(void)pthread_mutex_unlock(&store->queue_mutex);
}

static struct err *failure_get(struct store *store)
{
	struct err *e = NULL;

	(void)pthread_mutex_lock(&store->queue_mutex);
	if (store->failure[0])
		e = err_new(ERR_BUSY, "the store takes no writes: %s", store->failure);
	(void)pthread_mutex_unlock(&store->queue_mutex);
	return e;
}

struct err *store_health(struct store *store)
{
	return failure_get(store);
}

static struct err *recover(struct store *store)
{
	struct err *failed = failure_get(store);

	if (!failed)
		return NULL;
	compaction_abandon(store);
	struct err *e = env_reopen(store);
	if (e) {
		err_free(failed);
		writer_failed(store, e);
		return err_wrap(e, "the store takes no writes");
	}
	err_free(failed);
	(void)pthread_mutex_lock(&store->queue_mutex);
	store->failure[0] = 0;
	(void)pthread_mutex_unlock(&store->queue_mutex);
	return NULL;
}

/* -------------------------------------------------------------------------------------- groups */

/* Asks for a compaction; it is no transaction, and is never in a group with others. */
static struct err *compact_run(struct txn *txn, void *arg)
{
	(void)txn;
	(void)arg;
	return NULL;
}

static struct command *take_group(struct store *store)
{
	struct command *head = store->queue_head, *last = head;
	size_t count = 1, bytes = head->bytes;

	while (last->next && head->run != compact_run && last->next->run != compact_run && count < GROUP_MAX &&
		bytes + last->next->bytes <= GROUP_BYTES) {
		last = last->next;
		bytes += last->bytes;
		count++;
	}
	store->queue_head = last->next;
	if (!store->queue_head)
		store->queue_tail = NULL;
	last->next = NULL;
	return head;
}

static struct err *copy_error(const struct err *e)
{
	if (err_code(e) == ERR_OS)
		return err_new(ERR_OS, "%s", err_message(e));
	return err_new(err_code(e), "%s", err_message(e));
}

/* Fails every command that has no result yet. Consumes e. */
static void fail_rest(struct command *group, struct err *e)
{
	for (struct command *c = group; c; c = c->next) {
		if (c->finished)
			continue;
		c->finished = true;
		c->result = copy_error(e);
	}
	err_free(e);
}

static void note_table_bytes(struct store *store, struct txn *txn)
{
	struct table_totals totals;

	if (!store->environment->compacts)
		return;
	struct err *e = tables_totals(txn, &totals);

	if (!e)
		store->live_bytes = totals.bytes;
	err_free(e);
}

/* What commands have put into memory for the group's transaction is void. */
static void group_gone(struct store *store)
{
	if (store->hooks.group_gone)
		store->hooks.group_gone(store->hooks.context);
}

/* What belongs to the group as a whole goes into its transaction. */
static struct err *group_end(struct store *store, struct txn *txn)
{
	return store->hooks.group_end ? store->hooks.group_end(profiles_txn(txn), store->hooks.context) : NULL;
}

/* Commits and marks the commands that took part. */
static void commit_group(struct store *store, struct txn *txn, struct command *group)
{
	note_table_bytes(store, txn);
	struct err *e = txn_commit(txn);
	if (e) {
		group_gone(store);
		writer_failed(store, e);
		fail_rest(group, err_wrap(e, "not durable"));
		return;
	}
	if (store->hooks.group_durable)
		store->hooks.group_durable(store->hooks.context);
	atomic_fetch_add_explicit(&store->commits, 1, memory_order_relaxed);
	for (struct command *c = group; c; c = c->next) {
		if (!c->finished)
			store->written_since_compaction += c->bytes;
		c->finished = true;
	}
}

/* True when the transaction still stands and every command has run in it. */
static bool run_commands(struct txn *txn, struct command *group)
{
	for (struct command *c = group; c; c = c->next) {
		if (c->finished)
			continue;
		txn->dirty = false;
		struct err *e = c->run(txn, c->arg);
		if (!e)
			continue;
		if (txn->dirty && (group->next || group != c)) {
			err_free(e);
			return false;
		}
		c->result = e;
		c->finished = true;
		if (txn->dirty)
			return false;
	}
	return true;
}

static void run_group(struct store *store, struct command *group)
{
	struct txn txn;
	struct err *e = recover(store);

	if (!e && group->run == compact_run) {
		group->result = compaction_run(store);
		group->finished = true;
		return;
	}
	if (!e)
		e = txn_begin_write(store, &txn);
	if (e) {
		fail_rest(group, e);
		return;
	}
	if (run_commands(&txn, group)) {
		e = group_end(store, &txn);
		if (!e) {
			commit_group(store, &txn, group);
			return;
		}
	}
	txn_abort(&txn);
	group_gone(store);
	if (!group->next) {
		if (e)
			fail_rest(group, e);
		return;
	}
	err_free(e);
	for (struct command *c = group; c; c = c->next) {
		struct command *next = c->next;
		c->next = NULL;
		if (!c->finished)
			run_group(store, c);
		c->next = next;
	}
}

static void complete(struct store *store, struct command *group)
{
	while (group) {
		/* The command is its owner's again once done has begun. */
		struct command *c = group;
		group = c->next;
		atomic_fetch_add_explicit(&store->commands, 1, memory_order_relaxed);
		c->done(c->done_arg, TAKE_PTR(c->result));
	}
}

/* -------------------------------------------------------------------------------------- between groups */

static void discard_error(void *arg, struct err *e)
{
	(void)arg;
	err_free(e);
}

static void flush_misses(struct store *store)
{
	struct command command = {.run = misses_flush, .arg = store, .done = discard_error};

	run_group(store, &command);
	complete(store, &command);
}

static bool wait_for_work(struct store *store, uint64_t until_ms)
{
	struct timespec until = {.tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};

	return pthread_cond_timedwait(&store->queue_wake, &store->queue_mutex, &until) != ETIMEDOUT;
}

static void *writer_main(void *arg)
{
	struct store *store = arg;
	uint64_t last_flush = monotonic_ms();
	bool more = false; /* of the hook's work is left */

	for (;;) {
		struct command *group = NULL;
		(void)pthread_mutex_lock(&store->queue_mutex);
		bool woken = store->queue_head || store->stopping || more || wait_for_work(store, monotonic_ms() + IDLE_MS);
		if (store->queue_head)
			group = take_group(store);
		bool stop = store->stopping && !group;
		(void)pthread_mutex_unlock(&store->queue_mutex);
		if (group) {
			run_group(store, group);
			compaction_hold_mark(store);
			complete(store, group);
			compaction_step(store, false);
		}
		uint64_t now = monotonic_ms();
		if (store->misses && misses_pending(store) && (stop || now - last_flush >= MISS_FLUSH_MS)) {
			flush_misses(store);
			last_flush = now;
		}
		if (stop) {
			/* Nothing is left for hooks: what was acknowledged is durable. */
			compaction_abandon(store);
			return NULL;
		}
		if (!group) {
			err_free(recover(store));
			compaction_step(store, !woken);
		}
		if (store->hooks.between)
			more = store->hooks.between(store->hooks.context, store);
	}
}

/* -------------------------------------------------------------------------------------- callers */

void writer_submit(struct store *store, struct command *command)
{
	command->next = NULL;
	command->finished = false;
	command->result = NULL;
	(void)pthread_mutex_lock(&store->queue_mutex);
	bool open = store->writer_started && !store->stopping;
	if (open) {
		if (store->queue_tail)
			store->queue_tail->next = command;
		else
			store->queue_head = command;
		store->queue_tail = command;
		(void)pthread_cond_signal(&store->queue_wake);
	}
	(void)pthread_mutex_unlock(&store->queue_mutex);
	if (!open)
		command->done(command->done_arg, err_new(ERR_INVALID, "the store is open for reading only, or closing"));
}

struct waiter {
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	bool done;
	struct err *result;
};

static void waiter_done(void *arg, struct err *e)
{
	struct waiter *waiter = arg;

	(void)pthread_mutex_lock(&waiter->mutex);
	waiter->result = e;
	waiter->done = true;
	(void)pthread_cond_signal(&waiter->wake);
	(void)pthread_mutex_unlock(&waiter->mutex);
}

struct err *writer_run(struct store *store, command_fn *run, void *arg, size_t bytes)
{
	struct waiter waiter = {.mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
	struct command command = {.run = run, .arg = arg, .bytes = bytes, .done = waiter_done, .done_arg = &waiter};

	writer_submit(store, &command);
	(void)pthread_mutex_lock(&waiter.mutex);
	while (!waiter.done)
		(void)pthread_cond_wait(&waiter.wake, &waiter.mutex);
	(void)pthread_mutex_unlock(&waiter.mutex);
	(void)pthread_cond_destroy(&waiter.wake);
	(void)pthread_mutex_destroy(&waiter.mutex);
	return waiter.result;
}

struct err *writer_compact(struct store *store)
{
	return writer_run(store, compact_run, NULL, 0);
}

struct err *writer_start(struct store *store)
{
	int rc = pthread_create(&store->writer, NULL, writer_main, store);

	if (rc)
		return err_os(rc, "start the store's writer");
	(void)pthread_setname_np(store->writer, "store-writer");
	(void)pthread_mutex_lock(&store->queue_mutex);
	store->writer_started = true;
	(void)pthread_mutex_unlock(&store->queue_mutex);
	return NULL;
}

void writer_stop(struct store *store)
{
	if (!store->writer_started)
		return;
	(void)pthread_mutex_lock(&store->queue_mutex);
	store->stopping = true;
	(void)pthread_cond_signal(&store->queue_wake);
	(void)pthread_mutex_unlock(&store->queue_mutex);
	(void)pthread_join(store->writer, NULL);
	store->writer_started = false;
}
