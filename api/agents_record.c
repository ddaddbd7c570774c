// SPDX-License-Identifier: Apache-2.0
/*
 * An agent's record as it is kept. A protobuf message without a .proto, since nobody else reads it: members may be added, and what an older
 * cairnd does not know it passes over.
 *
 *      1..8   texts: agent, version, host, host_id, kernel, machine, os, peer
 *      9..13  cpus, connects, first_seen_ms, last_seen_ms, samples
 *     14      status { 1..9 in the order of struct agent_status, 10 loss, 11 cut { 1 reason, 2 count } }
 *
 * Protocol and instance are in the key.
 */
#include "api/agents_internal.h"

#include <stdio.h>
#include <string.h>

enum { TEXTS = 8, FIRST_NUMBER = 9, NUMBERS = 5, STATUS = 14, STATUS_NUMBERS = 9, LOSS = 10, CUT = 11, LOSS_REASON = 1, LOSS_COUNT = 2 };

static void texts_of(struct api_agent *agent, char *ret[TEXTS])
{
	char *const texts[TEXTS] = {
		agent->agent, agent->version, agent->host, agent->host_id, agent->kernel, agent->machine, agent->os, agent->peer};

	memcpy(ret, texts, sizeof(texts));
}

static void status_numbers(struct agent_status *status, uint64_t *ret[STATUS_NUMBERS])
{
	uint64_t *const numbers[STATUS_NUMBERS] = {&status->time_unix_nano, &status->cpu_user_ns, &status->cpu_system_ns, &status->bpf_ns,
		&status->memory_bytes, &status->bpf_map_bytes, &status->samples, &status->queued_bytes, &status->spooled_bytes};

	memcpy(ret, numbers, sizeof(numbers));
}

static struct err *put_number(struct buf *out, uint32_t field, uint64_t value)
{
	TRY(buf_reserve(out, WIRE_HEAD_MAX + WIRE_VARINT_MAX));
	wire_put_field(out, field, value);
	return NULL;
}

static struct err *encode_losses(const struct api_agent_losses *losses, uint32_t field, struct buf *status)
{
	CLEANUP(buf_deinit) struct buf loss = {0};

	for (uint32_t i = 0; i < losses->count; i++) {
		loss.len = 0;
		TRY(wire_append_bytes(&loss, LOSS_REASON, losses->items[i].reason, strlen(losses->items[i].reason)));
		TRY(put_number(&loss, LOSS_COUNT, losses->items[i].count));
		TRY(wire_append_bytes(status, field, loss.data, loss.len));
	}
	return NULL;
}

static struct err *encode_status(struct api_agent *agent, struct buf *ret)
{
	CLEANUP(buf_deinit) struct buf status = {0};
	uint64_t *numbers[STATUS_NUMBERS];

	status_numbers(&agent->status, numbers);
	for (uint32_t i = 0; i < STATUS_NUMBERS; i++)
		TRY(put_number(&status, 1 + i, *numbers[i]));
	TRY(encode_losses(&agent->lost, LOSS, &status));
	TRY(encode_losses(&agent->cut, CUT, &status));
	return wire_append_bytes(ret, STATUS, status.data, status.len);
}

struct err *api_agent_encode(const struct api_agent *agent, struct buf *ret)
{
	struct api_agent copy = *agent;
	char *texts[TEXTS];
	const uint64_t numbers[NUMBERS] = {agent->cpus, agent->connects, agent->first_seen_ms, agent->last_seen_ms, agent->samples};

	texts_of(&copy, texts);
	for (uint32_t i = 0; i < TEXTS; i++)
		if (texts[i][0])
			TRY(wire_append_bytes(ret, 1 + i, texts[i], strlen(texts[i])));
	for (uint32_t i = 0; i < NUMBERS; i++)
		TRY(put_number(ret, FIRST_NUMBER + i, numbers[i]));
	return agent->has_status ? encode_status(&copy, ret) : NULL;
}

void api_agent_copy_text(char ret[API_AGENT_TEXT_SIZE], const void *bytes, size_t len)
{
	if (len >= API_AGENT_TEXT_SIZE)
		len = API_AGENT_TEXT_SIZE - 1;
	if (len > 0)
		memcpy(ret, bytes, len);
	ret[len] = 0;
}

static bool decode_loss(struct wire_span message, struct api_agent_losses *losses)
{
	struct reader r = wire_reader(message, NULL);
	struct wire_field field;

	if (losses->count == API_AGENT_LOSSES_MAX)
		return true;
	struct api_agent_loss *loss = &losses->items[losses->count++];
	while (wire_next(&r, &field)) {
		if (field.number == LOSS_REASON)
			(void)snprintf(loss->reason, sizeof(loss->reason), "%.*s", (int)(field.bytes.len < 32 ? field.bytes.len : 31),
				field.bytes.len ? (const char *)field.bytes.bytes : "");
		else if (field.number == LOSS_COUNT)
			loss->count = field.value;
	}
	return !r.failed;
}

static bool decode_status(struct wire_span message, struct api_agent *agent)
{
	struct reader r = wire_reader(message, NULL);
	struct wire_field field;
	uint64_t *numbers[STATUS_NUMBERS];

	status_numbers(&agent->status, numbers);
	agent->has_status = true;
	while (wire_next(&r, &field)) {
		if (field.number <= STATUS_NUMBERS)
			*numbers[field.number - 1] = field.value;
		else if ((field.number == LOSS || field.number == CUT) && !decode_loss(field.bytes, field.number == CUT ? &agent->cut : &agent->lost))
			return false;
	}
	return !r.failed;
}

struct err *api_agent_decode(const void *record, size_t len, struct api_agent *ret)
{
	struct reader r = wire_reader((struct wire_span){record, len}, NULL);
	uint64_t cpus = 0;
	uint64_t *const numbers[NUMBERS] = {&cpus, &ret->connects, &ret->first_seen_ms, &ret->last_seen_ms, &ret->samples};
	struct wire_field field;
	char *texts[TEXTS];

	texts_of(ret, texts);
	while (wire_next(&r, &field)) {
		if (field.number <= TEXTS)
			api_agent_copy_text(texts[field.number - 1], field.bytes.bytes, field.bytes.len);
		else if (field.number < FIRST_NUMBER + NUMBERS)
			*numbers[field.number - FIRST_NUMBER] = field.value;
		else if (field.number == STATUS && !decode_status(field.bytes, ret))
			reader_fail(&r);
	}
	ret->cpus = (uint32_t)cpus;
	return r.failed ? err_new(ERR_CORRUPT, "an agent's record is malformed") : NULL;
}
