// SPDX-License-Identifier: Apache-2.0
/*
 * What was counted before, so that a retry is not counted twice; on the writer thread, in the transaction that stores the samples.
 *
 *   keys       of profiles (OTLP): SAMPLES_DEDUPE_MS. All keys of a group are one record of `seen`, named by its time, and all that are young
 *              enough are in a table in memory too: a report has a key a process, and a record a key would touch a page each.
 *                  when u64 ms | number u32 -> 16 bytes of digest over tenant and key, each
 *   instances  of agents (streams): a mark, as long as `profiles.keep`. Sequence numbers grow, so the highest and which of the WINDOW
 *              up to it were counted say it all, with gaps for what is still on its way.
 *                  tenant u32 | instance 16 -> u8 version, u64 highest, u64 when ms, WINDOW bits or (all are set) nothing
 *              A number below the window is judged as a key: a sender that far behind its own numbers is a spool being emptied.
 *
 * In the table the first half of a digest leads to half of the rest (so that 96 bits must be equal) and the time at which it came, in milliseconds
 * without its upper half.
 * After a group that failed the table is read anew.
 */
#include "profiles/samples_internal.h"

#include "base/digest.h"

enum {
	DIGEST_BYTES = 16,
	RECORD_KEY_BYTES = 12,
	SWEEP_MIN = 1 << 14,
	RECORDS_A_STEP = 256,
	MARK_VERSION = 1,
	MARK_HEAD_BYTES = 17,
	MARK_KEY_BYTES = 4 + SAMPLES_INSTANCE_BYTES,
};

static void big_endian(uint8_t *to, uint64_t value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
}

/* A clock that was set back must not make old keys immortal, nor forget them: they count for as long either way. */
static bool is_young(uint64_t then_ms, uint64_t now_ms, uint64_t for_ms)
{
	return (now_ms > then_ms ? now_ms - then_ms : then_ms - now_ms) < for_ms;
}

/* -------------------------------------------------------------------------------------- keys */

/* As is_young, of what stands in the table: times are within 49 days of each other. */
static bool is_young_value(uint64_t value, uint64_t now_ms)
{
	uint32_t age = (uint32_t)now_ms - (uint32_t)value;

	return age < SAMPLES_DEDUPE_MS || -age < SAMPLES_DEDUPE_MS;
}

static void split(const uint8_t digest[DIGEST_BYTES], uint64_t *key_ret, uint32_t *check_ret)
{
	memcpy(key_ret, digest, sizeof(*key_ret));
	memcpy(check_ret, digest + sizeof(*key_ret), sizeof(*check_ret));
}

/* Drops what is gone when the table has doubled since that was last done. */
static struct err *sweep(struct seen *seen, uint64_t now_ms)
{
	struct hmap kept = {0};

	if (seen->keys.count < seen->sweep_at)
		return NULL;
	for (size_t i = 0; seen->keys.slots && i <= seen->keys.mask; i++) {
		const struct hmap_slot *slot = &seen->keys.slots[i];
		struct err *e = slot->key && is_young_value(slot->value, now_ms) ? hmap_set(&kept, slot->key, slot->value) : NULL;
		if (e) {
			hmap_deinit(&kept);
			return e;
		}
	}
	hmap_deinit(&seen->keys);
	seen->keys = kept;
	seen->sweep_at = 2 * kept.count > SWEEP_MIN ? 2 * kept.count : SWEEP_MIN;
	return NULL;
}

static struct err *table_add(struct seen *seen, const uint8_t digest[DIGEST_BYTES], uint64_t then_ms, uint64_t now_ms)
{
	uint64_t key;
	uint32_t check;

	TRY(sweep(seen, now_ms));
	split(digest, &key, &check);
	return hmap_set(&seen->keys, key, (uint64_t)check << 32 | (uint32_t)then_ms);
}

static struct err *load_record(struct seen *seen, const struct store_view *key, const struct store_view *value, uint64_t now_ms)
{
	struct reader r = reader_init(key->bytes, key->len, true, "seen");
	uint64_t then_ms = reader_u64(&r);

	if (key->len != RECORD_KEY_BYTES || value->len % DIGEST_BYTES)
		return store_profiles_corrupt(STORE_SEEN, key->bytes, key->len, "malformed record");
	for (size_t i = 0; i < value->len && is_young(then_ms, now_ms, SAMPLES_DEDUPE_MS); i += DIGEST_BYTES)
		TRY(table_add(seen, (const uint8_t *)value->bytes + i, then_ms, now_ms));
	return NULL;
}

static struct err *load(struct seen *seen, struct store_txn *txn, uint64_t now_ms)
{
	CLEANUP(store_profiles_scan_endp) struct store_scan *scan = NULL;
	struct store_view key, value;

	if (seen->loaded)
		return NULL;
	seen_forget(seen);
	seen->sweep_at = SWEEP_MIN;
	TRY(store_profiles_scan(txn, STORE_SEEN, NULL, 0, NULL, 0, &scan));
	for (;;) {
		TRY(store_profiles_next(scan, &key, &value));
		if (!key.bytes)
			break;
		TRY(load_record(seen, &key, &value, now_ms));
	}
	seen->loaded = true;
	return NULL;
}

void seen_forget(struct seen *seen)
{
	hmap_deinit(&seen->keys);
	buf_deinit(&seen->fresh);
	seen->loaded = false;
}

struct err *seen_key(struct seen *seen, struct store_txn *txn, uint32_t tenant, const uint8_t key[16], uint64_t now_ms, bool *ret)
{
	uint8_t bytes[4 + 16], digest[DIGEST_BYTES];
	uint64_t first, value;
	uint32_t check;

	big_endian(bytes, tenant, 4);
	memcpy(bytes + 4, key, 16);
	digest_xxh3_128(bytes, sizeof(bytes), digest);
	TRY(load(seen, txn, now_ms));
	split(digest, &first, &check);
	*ret = hmap_get(&seen->keys, first, &value) && value >> 32 == check && is_young_value(value, now_ms);
	if (*ret)
		return NULL;
	TRY(table_add(seen, digest, now_ms, now_ms));
	return buf_append(&seen->fresh, digest, sizeof(digest));
}

struct err *seen_flush(struct seen *seen, struct store_txn *txn, uint64_t now_ms)
{
	uint8_t key[RECORD_KEY_BYTES];
	struct store_view view;

	if (seen->fresh.len == 0)
		return NULL;
	big_endian(key, now_ms, 8);
	for (uint32_t number = 0;; number++) {
		big_endian(key + 8, number, 4);
		TRY(store_profiles_get(txn, STORE_SEEN, key, sizeof(key), &view));
		if (!view.bytes)
			break;
	}
	TRY(store_profiles_put(txn, STORE_SEEN, key, sizeof(key), seen->fresh.data, seen->fresh.len));
	seen->fresh.len = 0;
	return NULL;
}

/* -------------------------------------------------------------------------------------- instances */

static void mark_key(uint32_t tenant, const uint8_t instance[SAMPLES_INSTANCE_BYTES], uint8_t key[MARK_KEY_BYTES])
{
	big_endian(key, tenant, 4);
	memcpy(key + 4, instance, SAMPLES_INSTANCE_BYTES);
}

static bool bit(const struct seen_mark *mark, uint64_t sequence)
{
	return mark->bits[sequence % SEEN_WINDOW / 8] >> sequence % 8 & 1;
}

static void set_bit(struct seen_mark *mark, uint64_t sequence, bool value)
{
	uint8_t *byte = &mark->bits[sequence % SEEN_WINDOW / 8], mask = (uint8_t)(1 << sequence % 8);

	*byte = (uint8_t)(value ? *byte | mask : *byte & ~mask);
}

struct err *seen_mark_read(struct store_txn *txn, uint32_t tenant, const uint8_t instance[SAMPLES_INSTANCE_BYTES], struct seen_mark *ret)
{
	uint8_t key[MARK_KEY_BYTES];
	struct store_view view;

	mark_key(tenant, instance, key);
	TRY(store_profiles_get(txn, STORE_INSTANCES, key, sizeof(key), &view));
	*ret = (struct seen_mark){0};
	if (!view.bytes)
		return NULL;
	struct reader r = reader_init(view.bytes, view.len, true, "instance");
	uint8_t version = reader_u8(&r);
	ret->highest = reader_u64(&r);
	ret->when_ms = reader_u64(&r);
	const uint8_t *bits = reader_left(&r) ? reader_bytes(&r, sizeof(ret->bits)) : NULL;
	if (r.failed || version != MARK_VERSION || reader_left(&r))
		return store_profiles_corrupt(STORE_INSTANCES, key, sizeof(key), "malformed record");
	if (bits)
		memcpy(ret->bits, bits, sizeof(ret->bits));
	else
		memset(ret->bits, 0xff, sizeof(ret->bits));
	return NULL;
}

/* Numbers from 1 on that the window has and that were not counted. */
static bool has_gaps(const struct seen_mark *mark)
{
	uint64_t first = mark->highest > SEEN_WINDOW ? mark->highest - SEEN_WINDOW + 1 : 1;

	for (uint64_t i = first; i <= mark->highest; i++)
		if (!bit(mark, i))
			return true;
	return false;
}

struct err *seen_mark_write(struct store_txn *txn, uint32_t tenant, const uint8_t instance[SAMPLES_INSTANCE_BYTES], const struct seen_mark *mark)
{
	uint8_t key[MARK_KEY_BYTES], value[MARK_HEAD_BYTES + sizeof(mark->bits)] = {MARK_VERSION};

	mark_key(tenant, instance, key);
	big_endian(value + 1, mark->highest, 8);
	big_endian(value + 9, mark->when_ms, 8);
	memcpy(value + MARK_HEAD_BYTES, mark->bits, sizeof(mark->bits));
	return store_profiles_put(txn, STORE_INSTANCES, key, sizeof(key), value, has_gaps(mark) ? sizeof(value) : MARK_HEAD_BYTES);
}

enum seen_judgement seen_sequence(struct seen_mark *mark, uint64_t sequence)
{
	if (sequence > mark->highest) {
		uint64_t skipped = sequence - mark->highest - 1;
		for (uint64_t i = skipped < SEEN_WINDOW ? mark->highest + 1 : sequence - SEEN_WINDOW + 1; i < sequence; i++)
			set_bit(mark, i, false);
		mark->highest = sequence;
	} else if (mark->highest - sequence >= SEEN_WINDOW) {
		return SEEN_TOO_OLD;
	} else if (bit(mark, sequence)) {
		return SEEN_BEFORE;
	}
	set_bit(mark, sequence, true);
	return SEEN_FIRST;
}

/* -------------------------------------------------------------------------------------- forgetting */

/* Deletes the records of `db` that are old, RECORDS_A_STEP at most. Those of `seen` are in the order of their age. */
static struct err *forget(struct store_txn *txn, enum store_profiles_db db, size_t key_len, uint64_t now_ms, uint64_t for_ms, bool *more_ret)
{
	uint8_t keys[RECORDS_A_STEP][MARK_KEY_BYTES];
	struct store_view key, value;
	size_t count = 0;

	{
		CLEANUP(store_profiles_scan_endp) struct store_scan *scan = NULL;
		TRY(store_profiles_scan(txn, db, NULL, 0, NULL, 0, &scan));
		while (count < RECORDS_A_STEP) {
			TRY(store_profiles_next(scan, &key, &value));
			if (!key.bytes)
				break;
			const struct store_view *timed = db == STORE_SEEN ? &key : &value;
			if (key.len != key_len || timed->len < MARK_HEAD_BYTES - 5)
				return store_profiles_corrupt(db, key.bytes, key.len, "malformed record");
			struct reader r = reader_init(timed->bytes, timed->len, true, "seen");
			reader_skip(&r, db == STORE_SEEN ? 0 : 9);
			if (!is_young(reader_u64(&r), now_ms, for_ms) || r.failed)
				memcpy(keys[count++], key.bytes, key.len);
			else if (db == STORE_SEEN)
				break;
		}
	}
	for (size_t i = 0; i < count; i++)
		TRY(store_profiles_delete(txn, db, keys[i], key_len));
	*more_ret = count == RECORDS_A_STEP;
	return NULL;
}

struct err *seen_forget_old(struct store_txn *txn, uint64_t now_ms, uint64_t keep_ms, bool instances, bool *more_ret)
{
	if (instances)
		return forget(txn, STORE_INSTANCES, MARK_KEY_BYTES, now_ms, keep_ms, more_ret);
	return forget(txn, STORE_SEEN, RECORD_KEY_BYTES, now_ms, SAMPLES_DEDUPE_MS, more_ret);
}
