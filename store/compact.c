// SPDX-License-Identifier: Apache-2.0
/*
 * Keeping the file small.
 *
 * A table is one LMDB value: one run of contiguous pages, so that it can be used in place. LMDB hands out the lowest free
 * run that fits, frees nothing for reuse until two transactions later, and never shrinks its file. A simulation of that
 * (20 live tables of 1 to 50 MB, 1,000 replacements at random) says what follows: the file ends at 1.4 to 2.2 times the
 * live bytes and passes 2.3 to 2.9 on the way. Rounding sizes up to classes (powers of two, their halves, quarters and
 * eighths; multiples of 1, 4, 8, 16 MB) does no better: what holes it saves it spends on padding, and no scheme of
 * classes helps when the live set shrinks. So tables are stored as they are, and the file is compacted:
 *
 *   1 copy      a thread lets LMDB copy a snapshot of what is live into a new generation (mdb_env_copyfd2 with
 *               MDB_CP_COMPACT). The writer goes on meanwhile and notes each key that it writes or deletes.
 *   2 catch up  the keys noted are looked up in the old generation and put into, or deleted from, the new one: by the
 *               thread, while the writer notes further ones, until there is little left (CATCH_UP_BYTES), PASSES_MAX times at most;
 *   3 switch    then by the writer itself, between two groups: the rest, fsync, the link, and the new generation is the
 *               store's. Readers of the old one finish on it.
 *
 * Begins when the file is over 1.6 times the live bytes and half as many bytes as are live were written since the last
 * one (so that copying at most trebles what is written, and a store that nobody writes to is left alone), or, when no
 * command came for half a second, over 1.5 times. Commits are not held up by it, until one takes the file past twice the
 * live bytes: that one is acknowledged after the end of the compaction, so that the mark holds whenever a writing
 * function returns. Not below a floor (compact_floor_bytes; when idle a quarter of it), nor above 16 GiB live (store_gc does
 * that on demand), nor without room on the disk; above 1 GiB live the mark waits until half of it was written.
 *
 * A crash at any moment leaves the link on a whole generation: the new one is synced before the link moves, and holds all
 * that was acknowledged. Leftovers are removed at the next open.
 *
 * Rejected: tables in pieces of one size stitched together by mmap of the data file (no fragmentation, but a mapping for
 * each piece against a kernel limit of 65,530); classes of sizes (above); tables as files beside LMDB (a commit would
 * no longer be one transaction); copying while the writer stands still (a second for each 600 MB).
 */
#include "base/buf.h"
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum {
	PASSES_MAX = 8,
	CATCH_UP_BYTES = 8 << 20,   /* what the writer does itself */
	TRANSACTION_BYTES = 8 << 20, /* of catching up, to bound its memory */
	NOTES_MAX = 256 << 20,	    /* bytes of noted keys: past it the compaction is given up */
};
static const uint64_t LIVE_SMALL = 1ull << 30; /* copied in a second or two */
static const uint64_t LIVE_MAX = 16ull << 30;

/* Notes are db u8, key length u8, key. */
struct compaction {
	struct store *store;
	struct generation *from, *next; /* next: NULL until the copy is made */
	uint64_t number;		/* of next */
	char *path;
	int copy_fd;

	pthread_t thread;
	bool thread_started;
	bool thread_done; /* guarded by store->queue_mutex */
	struct err *result; /* of the thread */
	struct buf work;    /* the thread's notes */

	struct buf notes; /* the writer's */
	uint64_t note_bytes; /* of the values that they stand for */
	bool lost;	     /* a note could not be kept */
	unsigned passes;
};

void compaction_note(struct store *store, enum db db, const void *key, size_t key_len, size_t value_len)
{
	struct compaction *c = store->compaction;
	uint8_t head[2] = {(uint8_t)db, (uint8_t)key_len};

	if (!c || c->lost)
		return;
	struct err *e = key_len > UINT8_MAX || c->notes.len > NOTES_MAX ? err_nomem() : buf_append(&c->notes, head, sizeof(head));
	if (!e)
		e = buf_append(&c->notes, key, key_len);
	c->lost = e != NULL;
	c->note_bytes += key_len + value_len;
	err_free(e);
}

/* -------------------------------------------------------------------------------------- the work */

static struct err *copy_live(struct compaction *c)
{
	TRY(err_from_lmdb(mdb_env_copyfd2(c->from->env, c->copy_fd, MDB_CP_COMPACT), "copy to %s", c->path));
	if (fsync(c->copy_fd))
		return err_os(errno, "%s/data.mdb: fsync", c->path);
	CLEANUP(closep) int dir = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fsync(dir))
		return err_os(errno, "%s: fsync", c->path);
	return generation_open(c->store, c->path, &c->next);
}

/* Makes one key of the new generation what it is in the old one. */
static struct err *apply_note(struct txn *from, struct txn *to, struct reader *r, size_t *bytes)
{
	enum db db = reader_u8(r);
	size_t len = reader_u8(r);
	const uint8_t *key = reader_bytes(r, len);
	MDB_val k = {.mv_size = len, .mv_data = (void *)(uintptr_t)key}, value;

	if (!key || db >= DB_COUNT)
		return err_new(ERR_INTERNAL, "compaction: a damaged note");
	int rc = mdb_get(from->txn, from->generation->dbi[db], &k, &value);
	if (rc == MDB_NOTFOUND) {
		rc = mdb_del(to->txn, to->generation->dbi[db], &k, NULL);
		return rc == MDB_NOTFOUND ? NULL : err_from_lmdb(rc, "compaction: delete from %s", db_names[db]);
	}
	*bytes += rc ? 0 : value.mv_size;
	if (!rc)
		rc = mdb_put(to->txn, to->generation->dbi[db], &k, &value, 0);
	return err_from_lmdb(rc, "compaction: write %s", db_names[db]);
}

/* Applies notes in transactions of a bounded size. Both txns are begun and ended here. */
static struct err *apply(struct compaction *c, const struct buf *notes)
{
	struct reader r = reader_init(notes->data, notes->len, false, "notes");
	struct txn from = {.generation = c->from}, to = {.generation = c->next};
	struct err *e = err_from_lmdb(mdb_txn_begin(c->from->env, NULL, MDB_RDONLY, &from.txn), "compaction: begin a read");

	while (!e && reader_left(&r) > 0) {
		size_t bytes = 0;
		e = err_from_lmdb(mdb_txn_begin(c->next->env, NULL, 0, &to.txn), "compaction: begin");
		while (!e && reader_left(&r) > 0 && bytes < TRANSACTION_BYTES)
			e = apply_note(&from, &to, &r, &bytes);
		if (e)
			txn_abort(&to);
		else
			e = txn_commit(&to);
	}
	txn_abort(&from);
	return e;
}

static void *thread_main(void *arg)
{
	struct compaction *c = arg;
	struct store *store = c->store;

	c->result = c->next ? apply(c, &c->work) : copy_live(c);
	(void)pthread_mutex_lock(&store->queue_mutex);
	c->thread_done = true;
	(void)pthread_cond_signal(&store->queue_wake);
	(void)pthread_mutex_unlock(&store->queue_mutex);
	return NULL;
}

static struct err *thread_start(struct compaction *c)
{
	c->thread_done = false;
	int rc = pthread_create(&c->thread, NULL, thread_main, c);
	if (rc)
		return err_os(rc, "start a compaction");
	c->thread_started = true;
	return NULL;
}

/* Waits for the thread; its result. */
static struct err *thread_end(struct compaction *c)
{
	if (!c->thread_started)
		return NULL;
	(void)pthread_join(c->thread, NULL);
	c->thread_started = false;
	return TAKE_PTR(c->result);
}

/* -------------------------------------------------------------------------------------- begin and end */

static void compaction_free(struct compaction *c)
{
	if (!c)
		return;
	generation_close(c->next);
	buf_deinit(&c->notes);
	buf_deinit(&c->work);
	closep(&c->copy_fd);
	free(c->path);
	free(c);
}

static void compaction_freep(struct compaction **c)
{
	compaction_free(*c);
}

void compaction_abandon(struct store *store)
{
	struct compaction *c = store->compaction;

	if (!c)
		return;
	/* LMDB's copy cannot be stopped, but what it writes to can be made full. */
	CLEANUP(closep) int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	if (full >= 0 && c->copy_fd >= 0 && c->thread_started)
		(void)dup2(full, c->copy_fd);
	err_free(thread_end(c));
	store->compaction = NULL;
	uint64_t named;
	generation_close(TAKE_PTR(c->next));
	/* Unless the link names it already, perhaps not durably: then env_reopen decides. */
	if (!link_number(store, &named) || named != c->number)
		folder_remove(c->path);
	compaction_free(c);
}

static struct err *compaction_begin(struct store *store)
{
	CLEANUP(compaction_freep) struct compaction *c = calloc(1, sizeof(*c));
	struct statvfs disk;

	if (!c)
		return err_nomem();
	c->copy_fd = -1;
	c->store = store;
	c->from = store->generation;
	store->written_since_compaction = 0;
	if (fstatvfs(store->dir_fd, &disk))
		return err_os(errno, "%s", store->data_dir);
	if ((uint64_t)disk.f_bavail * disk.f_frsize < store->live_bytes + store->live_bytes / 4 + (64u << 20))
		return err_new(ERR_LIMIT, "%s: no room on the disk for compaction", store->data_dir);
	if (!link_number(store, &c->number))
		return err_new(ERR_CORRUPT, "%s/symbols does not name a generation", store->data_dir);
	c->number++;
	if (!(c->path = generation_path(store, c->number)))
		return err_nomem();
	folder_remove(c->path);
	if (mkdir(c->path, 0750))
		return err_os(errno, "%s", c->path);
	CLEANUP(freep) char *file = NULL;
	if (asprintf(&file, "%s/data.mdb", c->path) < 0)
		return err_nomem();
	c->copy_fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	if (c->copy_fd < 0)
		return err_os(errno, "%s", file);
	TRY(thread_start(c));
	store->compaction = TAKE_PTR(c);
	return NULL;
}

/* The thread has ended a pass: the next one, or the switch. On an error the compaction is abandoned. */
static struct err *compaction_advance(struct store *store)
{
	struct compaction *c = store->compaction;
	struct err *e = thread_end(c);

	if (!e && c->lost)
		e = err_new(ERR_LIMIT, "compaction: too much was written meanwhile");
	if (!e && c->note_bytes > CATCH_UP_BYTES && c->passes++ < PASSES_MAX) {
		buf_deinit(&c->work);
		c->work = c->notes;
		c->notes = (struct buf){0};
		c->note_bytes = 0;
		e = thread_start(c);
		if (!e)
			return NULL;
	}
	if (!e)
		e = apply(c, &c->notes);
	if (!e)
		e = link_set(store, c->number);
	if (e) {
		uint64_t named;
		if (!link_number(store, &named) || named == c->number)
			writer_failed(store, e);
		compaction_abandon(store);
		return e;
	}
	store->compaction = NULL;
	env_switch(store, TAKE_PTR(c->next));
	compaction_free(c);
	atomic_fetch_add_explicit(&store->compactions, 1, memory_order_relaxed);
	return NULL;
}

struct err *compaction_run(struct store *store)
{
	if (!store->compaction)
		TRY(compaction_begin(store));
	while (store->compaction)
		TRY(compaction_advance(store));
	return NULL;
}

static bool thread_is_done(struct compaction *c)
{
	(void)pthread_mutex_lock(&c->store->queue_mutex);
	bool done = c->thread_done;
	(void)pthread_mutex_unlock(&c->store->queue_mutex);
	return done;
}

void compaction_step(struct store *store, bool idle)
{
	uint64_t file = env_file_bytes(store->generation), live = store->live_bytes;
	uint64_t floor = store->options.compact_floor_bytes;

	int dead;
	if (idle && store->generation)
		(void)mdb_reader_check(store->generation->env, &dead); /* of a `store check` that was killed */
	if (!store->environment->compacts)
		return;
	if (store->compaction) {
		if (thread_is_done(store->compaction))
			err_free(compaction_advance(store));
		return;
	}
	if (live > LIVE_MAX || store->written_since_compaction == 0)
		return;
	bool worth = store->written_since_compaction >= live / 2;
	if ((file > floor && file > live / 10 * 16 && worth) || (idle && file > floor / 4 && file > live / 2 * 3))
		err_free(compaction_begin(store));
}

void compaction_hold_mark(struct store *store)
{
	if (!store->environment->compacts)
		return;
	/* Twice: what was committed while one was under way can leave its file over the mark as well. */
	for (int i = 0; i < 2; i++) {
		uint64_t file = env_file_bytes(store->generation), live = store->live_bytes;
		if (file <= store->options.compact_floor_bytes || file <= 2 * live)
			return;
		bool worth = live <= LIVE_SMALL || (live <= LIVE_MAX && store->written_since_compaction >= live / 2);
		if (!store->compaction && !worth)
			return;
		struct err *e = compaction_run(store);
		if (e) {
			err_free(e);
			return;
		}
	}
}
