// SPDX-License-Identifier: Apache-2.0
/*
 * Sends a recorded stream (proto/agent_record.h). Unless told to keep times it is sent as another instance, and moved in time as
 * a whole so that its last envelope of samples begins now: hello.instance and samples.base_time_unix_nano are of fixed length
 * and are replaced where they stand. After a broken connection all definitions are sent again, and the samples that were not
 * acknowledged.
 */
#include "bench/load.h"

#include "proto/agent_record.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { QUEUE_BYTES = 1 << 20, RECORD_MAX = 1 << 30 };

struct item {
	const uint8_t *bytes;
	uint32_t len;
	uint64_t sequence, samples; /* of samples; sequence 0: others */
	bool acknowledged;
};

struct replay {
	struct load_totals *totals;
	struct buf file;
	struct item *items;
	size_t count, cap, open; /* open: samples that are not acknowledged */
	struct net_grpc_client *client;
	struct net_grpc_client_call *call;
	bool ended, in_need;
	enum net_grpc_status status;
	char message[256];
};

static struct err *read_file(const char *path, struct buf *ret)
{
	FILE *file = fopen(path, "re");
	size_t n = 1;

	if (!file)
		return err_new(ERR_OS, "%s: cannot be opened", path);
	struct err *e = NULL;
	while (!e && n > 0) {
		e = ret->len > RECORD_MAX ? err_new(ERR_LIMIT, "%s: more than 1 GiB", path) : buf_reserve(ret, 1 << 20);
		if (!e) {
			n = fread(ret->data + ret->len, 1, 1 << 20, file);
			ret->len += n;
		}
	}
	(void)fclose(file);
	return e;
}

static struct err *add_item(struct replay *replay, const uint8_t *bytes, uint32_t len)
{
	struct agent_envelope envelope;
	uint64_t value;

	if (replay->count == replay->cap) {
		size_t cap = replay->cap ? 2 * replay->cap : 256;
		struct item *items = reallocarray(replay->items, cap, sizeof(*items));
		if (!items)
			return err_nomem();
		replay->items = items;
		replay->cap = cap;
	}
	struct item *item = &replay->items[replay->count];
	*item = (struct item){.bytes = bytes, .len = len};
	TRY(agent_envelope_read((struct wire_span){bytes, len}, &envelope));
	if (replay->count == 0 && envelope.body != AGENT_HELLO)
		return err_new(ERR_FORMAT, "the first envelope is no hello");
	if (envelope.body == AGENT_SAMPLES) {
		item->sequence = envelope.sequence;
		for (struct wire_repeated traces = wire_repeated_init(envelope.bytes, SAMPLES_TRACE, false);
			wire_repeated_next(&traces, &value);)
			item->samples++;
		replay->totals->samples += item->samples;
		replay->totals->reports++;
		replay->open++;
	}
	replay->count++;
	return NULL;
}

static struct err *load_items(struct replay *replay, const char *path)
{
	TRY(read_file(path, &replay->file));
	if (replay->file.len < AGENT_RECORD_MAGIC_BYTES || memcmp(replay->file.data, AGENT_RECORD_MAGIC, AGENT_RECORD_MAGIC_BYTES) != 0)
		return err_new(ERR_FORMAT, "%s: not a recorded stream", path);
	struct reader r = reader_init(replay->file.data, replay->file.len, false, path);
	reader_skip(&r, AGENT_RECORD_MAGIC_BYTES);
	while (reader_left(&r) > 0) {
		uint32_t len = reader_u32(&r);
		const uint8_t *bytes = reader_bytes(&r, len);
		if (r.failed)
			return reader_error(&r, "the record ends within an envelope");
		TRY(err_wrap(add_item(replay, bytes, len), "%s: envelope %zu", path, replay->count));
	}
	return replay->count ? NULL : err_new(ERR_FORMAT, "%s: empty", path);
}

/* The bytes of a fixed field of an item's body, or NULL. */
static uint8_t *find_in_body(const struct item *item, enum agent_body body, uint32_t number, size_t len)
{
	struct agent_envelope envelope;
	struct wire_field field;
	struct err *e = agent_envelope_read((struct wire_span){item->bytes, item->len}, &envelope);

	err_free(e);
	if (e || envelope.body != body)
		return NULL;
	struct reader r = wire_reader(envelope.bytes, NULL);
	while (wire_next(&r, &field)) {
		if (field.number == number && field.type == WIRE_LEN && field.bytes.len == len)
			return (uint8_t *)(uintptr_t)field.bytes.bytes;
		if (field.number == number && field.type == WIRE_FIXED64 && len == 8)
			return (uint8_t *)(uintptr_t)(r.pos - 8);
	}
	return NULL;
}

static struct err *renew(struct replay *replay)
{
	uint8_t *instance = find_in_body(&replay->items[0], AGENT_HELLO, 1, AGENT_INSTANCE_BYTES);
	uint64_t last = 0, base;
	struct timespec now;

	if (!instance || getrandom(instance, AGENT_INSTANCE_BYTES, 0) != AGENT_INSTANCE_BYTES)
		return err_new(ERR_FORMAT, "the hello has no instance of %d bytes", AGENT_INSTANCE_BYTES);
	(void)clock_gettime(CLOCK_REALTIME, &now);
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < replay->count; i++) {
			uint8_t *at = find_in_body(&replay->items[i], AGENT_SAMPLES, SAMPLES_BASE_TIME, sizeof(base));
			if (!at)
				continue;
			memcpy(&base, at, sizeof(base));
			if (pass == 0)
				last = base > last ? base : last;
			base += (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec - last;
			if (pass == 1)
				memcpy(at, &base, sizeof(base));
		}
	}
	return NULL;
}

/* -------------------------------------------------------------------------------------- sending */

static void on_message(void *user, const uint8_t *bytes, size_t len)
{
	struct replay *replay = user;
	struct server_envelope envelope;
	struct server_acknowledgement acknowledgement;
	uint64_t sequence;

	struct err *e = server_envelope_read((struct wire_span){bytes, len}, &envelope);
	if (!e && envelope.body == SERVER_NEED) {
		replay->totals->needs++;
		replay->in_need = true;
	}
	if (!e && envelope.body == SERVER_ACKNOWLEDGEMENT)
		e = server_acknowledgement_read(envelope.bytes, &acknowledgement);
	if (e || envelope.body != SERVER_ACKNOWLEDGEMENT) {
		err_free(e);
		return;
	}
	replay->totals->duplicates += acknowledgement.duplicates;
	replay->totals->rejected_future += acknowledgement.rejected_future;
	replay->totals->rejected_old += acknowledgement.rejected_old;
	struct wire_repeated sequences = wire_repeated_init(acknowledgement.sequences, 1, false);
	while (wire_repeated_next(&sequences, &sequence)) {
		for (size_t i = 0; i < replay->count; i++) {
			struct item *item = &replay->items[i];
			if (item->sequence != sequence || item->acknowledged)
				continue;
			item->acknowledged = true;
			replay->totals->acknowledged += item->samples;
			replay->totals->reports_acknowledged++;
			replay->open--;
		}
	}
}

static void on_end(void *user, enum net_grpc_status status, const char *message)
{
	struct replay *replay = user;

	replay->ended = true;
	replay->call = NULL;
	replay->status = status;
	(void)snprintf(replay->message, sizeof(replay->message), "%s", message);
}

static const struct net_grpc_client_ops ops = {.on_message = on_message, .on_end = on_end};

/* One connection: everything but what is acknowledged. */
static struct err *send_all(struct replay *replay)
{
	replay->ended = replay->in_need = false;
	TRY(net_grpc_client_open(replay->client, AGENT_STREAM_PATH, &ops, replay, &replay->call));
	for (size_t i = 0; i < replay->count && !replay->ended; i++) {
		if (replay->items[i].acknowledged)
			continue;
		while (!replay->ended && net_grpc_client_queued(replay->call) > QUEUE_BYTES)
			TRY(net_grpc_client_run(replay->client, 100));
		if (!replay->ended)
			TRY(net_grpc_client_send(replay->call, replay->items[i].bytes, replay->items[i].len));
	}
	while (!replay->ended && replay->open > 0 && !replay->in_need)
		TRY(net_grpc_client_run(replay->client, 100));
	if (replay->in_need && !replay->ended)
		return err_new(ERR_FORMAT, "the record does not define all that its samples use");
	if (replay->ended)
		return err_new(replay->status == NET_GRPC_UNAVAILABLE ? ERR_PEER : ERR_INVALID, "the stream ended: status %d %s",
			(int)replay->status, replay->message);
	net_grpc_client_half_close(replay->call);
	while (!replay->ended)
		TRY(net_grpc_client_run(replay->client, 100));
	return NULL;
}

static struct err *run(const struct load_options *options, struct replay *replay)
{
	for (;;) {
		TRY(load_connect(options, replay->totals, &replay->client));
		struct err *e = send_all(replay);
		load_disconnect(replay->totals, &replay->client);
		if (!e || err_code(e) != ERR_PEER)
			return e;
		err_free(e);
		if (replay->open == 0)
			return NULL;
		replay->totals->failures++;
	}
}

struct err *load_replay(const struct load_options *options, struct load_totals *totals)
{
	struct replay replay = {.totals = totals};

	struct err *e = load_items(&replay, options->replay);
	if (!e && !options->keep_times)
		e = renew(&replay);
	if (!e)
		e = run(options, &replay);
	free(replay.items);
	buf_deinit(&replay.file);
	return e;
}
