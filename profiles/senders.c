// SPDX-License-Identifier: Apache-2.0
#include "profiles/senders.h"

#include "profiles/samples_internal.h"

#include <string.h>

enum { KEY_BYTES = 4 + SAMPLES_SENDER_ID_BYTES };

struct sender_put {
	uint8_t key[KEY_BYTES];
	size_t len;
	uint8_t record[];
};

static void put_tenant(uint8_t key[4], uint32_t tenant)
{
	for (int i = 0; i < 4; i++)
		key[i] = (uint8_t)(tenant >> (24 - 8 * i));
}

static struct err *run_put(struct store_txn *txn, void *arg)
{
	const struct sender_put *put = arg;

	if (put->len == 0)
		return store_profiles_delete(txn, STORE_SENDERS, put->key, sizeof(put->key));
	return store_profiles_put(txn, STORE_SENDERS, put->key, sizeof(put->key), put->record, put->len);
}

/* What could not be written now comes again with the next change. */
static void put_done(void *arg, struct err *e)
{
	err_free(e);
	free(arg);
}

struct err *samples_sender_put(struct samples *samples, uint32_t tenant, const uint8_t id[SAMPLES_SENDER_ID_BYTES], const void *record,
	size_t len)
{
	if (samples->options.read_only)
		return err_new(ERR_INVALID, "opened for reading");
	if (len > SAMPLES_SENDER_RECORD_MAX)
		return err_new(ERR_LIMIT, "a sender's record of %zu bytes", len);
	struct sender_put *put = malloc(sizeof(*put) + len);
	if (!put)
		return err_nomem();
	put_tenant(put->key, tenant);
	memcpy(put->key + 4, id, SAMPLES_SENDER_ID_BYTES);
	put->len = len;
	if (len)
		memcpy(put->record, record, len);
	struct err *e = store_profiles_submit(samples->store, run_put, put, put_done, put);
	if (e)
		free(put);
	return e;
}

struct err *samples_senders(struct samples *samples, uint32_t tenant,
	struct err *(*sender)(void *context, const uint8_t id[SAMPLES_SENDER_ID_BYTES], const void *record, size_t len), void *context)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	CLEANUP(store_profiles_scan_endp) struct store_scan *scan = NULL;
	struct store_view key, record;
	uint8_t prefix[4];

	put_tenant(prefix, tenant);
	TRY(store_read_begin(samples->store, &read));
	TRY(store_profiles_scan(store_profiles_read(read), STORE_SENDERS, prefix, sizeof(prefix), NULL, 0, &scan));
	for (;;) {
		TRY(store_profiles_next(scan, &key, &record));
		if (!key.bytes)
			return NULL;
		if (key.len != KEY_BYTES)
			return store_profiles_corrupt(STORE_SENDERS, key.bytes, key.len, "key of a wrong length");
		TRY(sender(context, (const uint8_t *)key.bytes + 4, record.bytes, record.len));
	}
}
