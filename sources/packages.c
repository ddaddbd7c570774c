// SPDX-License-Identifier: Apache-2.0
/*
 *   FETCHING    one thread fetches; others add to the list and wait
 *   DONE        the job is queued, or there is a reason why not; the last one to read it frees the parcel
 *
 * Who comes later begins anew: where the package is still kept among the store's originals, nothing is fetched.
 *
 * What is kept is the note "packages kept": "<sha256> <bytes> <last wanted, ms>" a line, so that a restart forgets nothing that
 * must be forgotten.
 */
#include "sources/packages.h"

#include "base/buf.h"
#include "sources/deb822.h"
#include "store/blob.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { KEPT_MAX = 256 };

struct parcel {
	struct parcel *next;
	struct sha256 sha256;
	unsigned users; /* inside packages_take */
	bool closed, done; /* closed: the list is read, nobody joins */
	size_t wanted_count;
	struct build_id wanted[STORE_JOB_WANTED_MAX];
	struct package_taken taken;
};

struct kept {
	struct sha256 sha256;
	uint64_t bytes, wanted_ms;
};

struct packages {
	struct packages_options options;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct parcel *parcels;
	bool loaded;
	size_t kept_count;
	struct kept kept[KEPT_MAX];
};

static const char kept_key[] = "packages kept";

static uint64_t wall_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

struct err *packages_create(const struct packages_options *options, struct packages **ret)
{
	struct packages *packages = calloc(1, sizeof(*packages));

	if (!packages)
		return err_nomem();
	packages->options = *options;
	(void)pthread_mutex_init(&packages->lock, NULL);
	(void)pthread_cond_init(&packages->changed, NULL);
	*ret = packages;
	return NULL;
}

void packages_destroy(struct packages *packages)
{
	if (!packages)
		return;
	(void)pthread_cond_destroy(&packages->changed);
	(void)pthread_mutex_destroy(&packages->lock);
	free(packages);
}

/* ---------------------------------------------------------------------------------------- what is kept; all under the lock */

static struct err *load_kept(struct packages *packages)
{
	CLEANUP(freep) char *note = NULL;
	struct text hash, bytes, wanted;

	if (packages->loaded)
		return NULL;
	TRY(store_note_get(packages->options.db, kept_key, &note));
	packages->loaded = true;
	struct text rest = {note ? note : "", note ? strlen(note) : 0};
	while (packages->kept_count < KEPT_MAX && text_word(&rest, &hash) && text_word(&rest, &bytes) && text_word(&rest, &wanted)) {
		struct kept *kept = &packages->kept[packages->kept_count];
		packages->kept_count += sha256_parse(hash.at, hash.len, &kept->sha256) && text_u64(bytes, &kept->bytes) && text_u64(wanted, &kept->wanted_ms);
	}
	return NULL;
}

static struct err *save_kept(struct packages *packages)
{
	CLEANUP(buf_deinit) struct buf text = {0};
	char hex[SHA256_HEX_SIZE];

	for (size_t i = 0; i < packages->kept_count; i++) {
		sha256_format(&packages->kept[i].sha256, hex);
		TRY(buf_printf(&text, "%s %llu %llu\n", hex, (unsigned long long)packages->kept[i].bytes, (unsigned long long)packages->kept[i].wanted_ms));
	}
	TRY(buf_append(&text, "", 1));
	return store_note_put(packages->options.db, kept_key, (const char *)text.data);
}

static size_t oldest_of(const struct packages *packages)
{
	size_t oldest = 0;

	for (size_t i = 1; i < packages->kept_count; i++)
		if (packages->kept[i].wanted_ms < packages->kept[oldest].wanted_ms)
			oldest = i;
	return oldest;
}

/* On its way to a job: not to be dropped before that has it. */
static bool is_on_its_way(const struct packages *packages, const struct sha256 *id)
{
	for (const struct parcel *parcel = packages->parcels; parcel; parcel = parcel->next)
		if (memcmp(&parcel->sha256, id, sizeof(*id)) == 0)
			return true;
	return false;
}

/* One that a job still needs stays, and is looked at again. */
static struct err *prune_locked(struct packages *packages, size_t room)
{
	uint64_t now = wall_ms(), sum = 0;
	bool changed = false;

	for (size_t i = 0; i < packages->kept_count; i++)
		sum += packages->kept[i].bytes;
	while (packages->kept_count > 0) {
		size_t oldest = oldest_of(packages);
		struct kept *kept = &packages->kept[oldest];
		bool dropped = false;
		if (kept->wanted_ms + packages->options.keep_ms > now && sum <= packages->options.keep_bytes && packages->kept_count <= KEPT_MAX - room)
			break;
		if (!is_on_its_way(packages, &kept->sha256))
			TRY(store_blob_drop(packages->options.store, &kept->sha256, &dropped));
		if (!dropped)
			break;
		sum -= kept->bytes;
		*kept = packages->kept[--packages->kept_count];
		changed = true;
	}
	return changed ? save_kept(packages) : NULL;
}

static struct err *note_kept(struct packages *packages, const struct sha256 *id, uint64_t bytes)
{
	size_t i = 0;

	TRY(load_kept(packages));
	TRY(prune_locked(packages, 1));
	while (i < packages->kept_count && memcmp(&packages->kept[i].sha256, id, sizeof(*id)) != 0)
		i++;
	if (i == KEPT_MAX)
		return NULL; /* all of them are being built from: the store's own quota has the last word */
	packages->kept[i] = (struct kept){*id, bytes, wall_ms()};
	packages->kept_count += i == packages->kept_count;
	return save_kept(packages);
}

struct err *packages_prune(struct packages *packages)
{
	(void)pthread_mutex_lock(&packages->lock);
	struct err *e = load_kept(packages);
	if (!e)
		e = prune_locked(packages, 0);
	(void)pthread_mutex_unlock(&packages->lock);
	return e;
}

/* ---------------------------------------------------------------------------------------- taking */

static struct err *is_here(struct packages *packages, const struct sha256 *id, bool *ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_blob blob;

	TRY(store_read_begin(packages->options.store, &read));
	return store_blob_get(read, id, &blob, ret);
}

/* Fetches it into the store, unless it is there. */
static struct err *fetch(struct packages *packages, const struct package_wanted *wanted, uint64_t *bytes_ret)
{
	struct source_file file = *wanted->file;
	struct sha256 id;
	bool here;

	TRY(is_here(packages, &file.sha256, &here));
	if (!here) {
		TRY(wanted->source->ops->fetch(wanted->source, &file, bytes_ret));
		struct err *e = store_blob_put(packages->options.store, file.fd, file.name, &id);
		(void)close(file.fd);
		TRY(e);
	}
	(void)pthread_mutex_lock(&packages->lock);
	struct err *e = note_kept(packages, &file.sha256, file.size);
	(void)pthread_mutex_unlock(&packages->lock);
	return e;
}

static struct err *submit(struct packages *packages, const struct package_wanted *wanted, const struct parcel *parcel, uint64_t *id_ret)
{
	struct store_job job = *wanted->job;

	job.kind = STORE_JOB_PACKAGE;
	job.inputs[0] = (struct store_job_input){STORE_ROLE_PACKAGE, wanted->file->sha256};
	job.input_count = 1;
	job.wanted_count = parcel->wanted_count;
	memcpy(job.wanted, parcel->wanted, sizeof(job.wanted));
	if (parcel->wanted_count > 0)
		job.build_id = parcel->wanted[0];
	(void)snprintf(job.name, sizeof(job.name), "%s", wanted->file->name);
	return store_job_submit(packages->options.store, &job, id_ret);
}

static struct err *fetch_and_submit(struct packages *packages, const struct package_wanted *wanted, struct parcel *parcel)
{
	struct err *e = fetch(packages, wanted, &parcel->taken.bytes);

	(void)pthread_mutex_lock(&packages->lock);
	parcel->closed = true;
	(void)pthread_mutex_unlock(&packages->lock);
	TRY(e);
	return submit(packages, wanted, parcel, &parcel->taken.job_id);
}

/* What cannot be had is an answer; what is wrong here is an error. */
static struct err *judge(struct err *e, struct package_taken *taken)
{
	if (!e) {
		taken->answer = STORE_ASK_FOUND;
		return NULL;
	}
	enum err_code code = err_code(e);
	taken->answer = code == ERR_MISMATCH || code == ERR_LIMIT || code == ERR_FORMAT ? STORE_ASK_REFUSED : STORE_ASK_FAILED;
	(void)snprintf(taken->text, sizeof(taken->text), "%.300s", err_message(e));
	if (code == ERR_OS || code == ERR_NOMEM)
		return e;
	err_free(e);
	return NULL;
}

/* A parcel on its way that has room; with the build ID on its list. Under the lock. */
static struct parcel *join(struct packages *packages, const struct package_wanted *wanted)
{
	struct parcel *parcel = packages->parcels;

	while (parcel && (parcel->closed || memcmp(&parcel->sha256, &wanted->file->sha256, sizeof(parcel->sha256)) != 0 || parcel->wanted_count == STORE_JOB_WANTED_MAX))
		parcel = parcel->next;
	if (!parcel || !wanted->build_id || parcel->wanted_count == 0)
		return parcel && !wanted->build_id == (parcel->wanted_count == 0) ? parcel : NULL;
	for (size_t i = 0; i < parcel->wanted_count; i++)
		if (build_id_equal(&parcel->wanted[i], wanted->build_id))
			return parcel;
	parcel->wanted[parcel->wanted_count++] = *wanted->build_id;
	return parcel;
}

static void unlink_parcel(struct packages *packages, const struct parcel *parcel)
{
	struct parcel **link = &packages->parcels;

	while (*link != parcel)
		link = &(*link)->next;
	*link = parcel->next;
}

struct err *packages_take(struct packages *packages, const struct package_wanted *wanted, struct package_taken *ret)
{
	struct err *e = NULL;

	TRY(packages_prune(packages));
	(void)pthread_mutex_lock(&packages->lock);
	struct parcel *parcel = join(packages, wanted);
	bool joined = parcel != NULL;
	if (!joined && (parcel = calloc(1, sizeof(*parcel)))) {
		parcel->sha256 = wanted->file->sha256;
		if (wanted->build_id)
			parcel->wanted[parcel->wanted_count++] = *wanted->build_id;
		parcel->next = packages->parcels;
		packages->parcels = parcel;
	}
	if (parcel)
		parcel->users++;
	while (joined && !parcel->done)
		(void)pthread_cond_wait(&packages->changed, &packages->lock);
	(void)pthread_mutex_unlock(&packages->lock);
	if (!parcel)
		return err_nomem();
	if (!joined)
		e = judge(fetch_and_submit(packages, wanted, parcel), &parcel->taken);
	(void)pthread_mutex_lock(&packages->lock);
	if (!joined)
		unlink_parcel(packages, parcel);
	parcel->done = true;
	(void)pthread_cond_broadcast(&packages->changed);
	*ret = parcel->taken;
	if (joined)
		ret->bytes = 0; /* they were counted once */
	bool last = --parcel->users == 0;
	(void)pthread_mutex_unlock(&packages->lock);
	if (last)
		free(parcel);
	return e;
}
