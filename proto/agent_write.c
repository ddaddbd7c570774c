// SPDX-License-Identifier: Apache-2.0
/*
 * Samples in the order (CPU, time): the kernel's timer fires at a grid of one period on each CPU, a little late, so that a time
 * is that of the sample before it on its CPU, plus whole periods (nearly always one), plus a small rest. The CPU is said once a
 * run. What is left of a sample is a thread, a trace and some bits of jitter.
 */
#include "proto/agent_write.h"

/* -------------------------------------------------------------------------------------- definitions */

bool agent_definitions_fits(const struct agent_definitions *definitions, uint32_t kind, uint32_t number)
{
	return definitions->count[kind] == 0 || number == definitions->first[kind] + definitions->count[kind];
}

size_t agent_definitions_bytes(const struct agent_definitions *definitions)
{
	size_t bytes = definitions->fields.len;

	for (size_t i = 0; i < ARRAY_SIZE(definitions->columns); i++)
		bytes += definitions->columns[i].len;
	return bytes;
}

static void begin(struct agent_definitions *definitions, uint32_t kind, uint32_t number)
{
	if (definitions->count[kind]++ == 0)
		definitions->first[kind] = number;
}

static struct err *put(struct agent_definitions *definitions, uint32_t field, uint64_t value)
{
	struct buf *column = &definitions->columns[field];

	TRY(buf_reserve(column, WIRE_VARINT_MAX));
	wire_put_varint(column, value);
	return NULL;
}

struct err *agent_definitions_string(struct agent_definitions *definitions, uint32_t number, const char *text, size_t len)
{
	begin(definitions, NEED_STRINGS, number);
	return wire_append_bytes(&definitions->fields, DEFINITIONS_STRING, text, len);
}

struct err *agent_definitions_frame(struct agent_definitions *definitions, uint32_t number, uint32_t kind, uint32_t executable,
	uint64_t address)
{
	begin(definitions, NEED_FRAMES, number);
	TRY(put(definitions, DEFINITIONS_FRAME_KIND, kind));
	TRY(put(definitions, DEFINITIONS_FRAME_EXECUTABLE, executable));
	TRY(put(definitions, DEFINITIONS_FRAME_ADDRESS, agent_zigzag((int64_t)(address - definitions->address))));
	definitions->address = address;
	return NULL;
}

struct err *agent_definitions_trace(struct agent_definitions *definitions, uint32_t number, const uint32_t *frames, uint32_t depth)
{
	uint32_t shared = 0;

	if (depth > AGENT_WRITE_DEPTH_MAX)
		return err_new(ERR_LIMIT, "a trace of %u frames, %d at most", depth, AGENT_WRITE_DEPTH_MAX);
	if (!definitions->trace) {
		definitions->trace = calloc(AGENT_WRITE_DEPTH_MAX, sizeof(uint32_t));
		if (!definitions->trace)
			return err_nomem();
	}
	begin(definitions, NEED_TRACES, number);
	while (shared < depth && shared < definitions->trace_depth &&
		frames[depth - 1 - shared] == definitions->trace[definitions->trace_depth - 1 - shared])
		shared++;
	TRY(put(definitions, DEFINITIONS_TRACE_DEPTH, depth));
	TRY(put(definitions, DEFINITIONS_TRACE_SHARED, shared));
	for (uint32_t i = 0; i < depth - shared; i++)
		TRY(put(definitions, DEFINITIONS_TRACE_FRAME, frames[i]));
	memcpy(definitions->trace, frames, depth * sizeof(uint32_t));
	definitions->trace_depth = depth;
	return NULL;
}

struct err *agent_definitions_thread(struct agent_definitions *definitions, uint32_t number, uint32_t process, uint32_t tid, uint32_t name)
{
	begin(definitions, NEED_THREADS, number);
	TRY(put(definitions, DEFINITIONS_THREAD_PROCESS, process));
	TRY(put(definitions, DEFINITIONS_THREAD_ID, tid));
	return put(definitions, DEFINITIONS_THREAD_NAME, name);
}

struct err *agent_definitions_finish(struct agent_definitions *definitions, struct buf *out)
{
	static const struct {
		uint32_t kind, field;
	} firsts[] = {{NEED_STRINGS, DEFINITIONS_FIRST_STRING}, {NEED_FRAMES, DEFINITIONS_FIRST_FRAME},
		{NEED_TRACES, DEFINITIONS_FIRST_TRACE}, {NEED_THREADS, DEFINITIONS_FIRST_THREAD}};

	for (size_t i = 0; i < ARRAY_SIZE(firsts); i++) {
		TRY(buf_reserve(out, WIRE_HEAD_MAX));
		if (definitions->count[firsts[i].kind])
			wire_put_field(out, firsts[i].field, definitions->first[firsts[i].kind]);
		definitions->count[firsts[i].kind] = 0;
	}
	TRY(buf_append(out, definitions->fields.data, definitions->fields.len));
	definitions->fields.len = 0;
	for (uint32_t field = 1; field < ARRAY_SIZE(definitions->columns); field++) {
		struct buf *column = &definitions->columns[field];
		if (column->len > 0)
			TRY(wire_append_bytes(out, field, column->data, column->len));
		column->len = 0;
	}
	definitions->address = 0;
	definitions->trace_depth = 0;
	return NULL;
}

void agent_definitions_deinit(struct agent_definitions *definitions)
{
	buf_deinit(&definitions->fields);
	for (size_t i = 0; i < ARRAY_SIZE(definitions->columns); i++)
		buf_deinit(&definitions->columns[i]);
	free(definitions->trace);
	*definitions = (struct agent_definitions){0};
}

/* -------------------------------------------------------------------------------------- samples */

static int by_cpu_and_time(const void *a, const void *b)
{
	const struct agent_sample *x = a, *y = b;

	if (x->cpu != y->cpu)
		return x->cpu < y->cpu ? -1 : 1;
	if (x->time_unix_nano != y->time_unix_nano)
		return x->time_unix_nano < y->time_unix_nano ? -1 : 1;
	return 0;
}

/* Columns under way. */
struct columns {
	struct buf cpu_run, thread, trace, step, rest, value, link;
	bool has_thread, has_step, has_value, has_link;
};

static void columns_deinit(struct columns *c)
{
	buf_deinit(&c->cpu_run);
	buf_deinit(&c->thread);
	buf_deinit(&c->trace);
	buf_deinit(&c->step);
	buf_deinit(&c->rest);
	buf_deinit(&c->value);
	buf_deinit(&c->link);
}

static struct err *reserve(struct columns *c, size_t count)
{
	struct buf *all[] = {&c->thread, &c->trace, &c->step, &c->rest, &c->value, &c->link, &c->cpu_run};

	/* As runs have two words, the last is as large as all samples with a CPU each. */
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		TRY(buf_reserve(all[i], (i + 1 == ARRAY_SIZE(all) ? 2 : 1) * count * WIRE_VARINT_MAX));
	return NULL;
}

static void put_time(struct columns *c, uint64_t before, uint64_t time, uint64_t period)
{
	uint64_t step = period && time > before ? (time - before + period / 2) / period : 0;

	if (step > UINT32_MAX)
		step = 0;
	c->has_step |= step != 0;
	wire_put_varint(&c->step, step);
	wire_put_varint(&c->rest, agent_zigzag((int64_t)(time - before - step * period)));
}

static void put_all(struct columns *c, const struct agent_sample *samples, size_t count, uint64_t base, uint64_t period)
{
	uint64_t before = base;
	size_t run = 0;

	for (size_t i = 0; i < count; i++) {
		const struct agent_sample *sample = &samples[i];
		if (i > 0 && sample->cpu != samples[i - 1].cpu) {
			wire_put_varint(&c->cpu_run, (uint64_t)samples[i - 1].cpu + 1);
			wire_put_varint(&c->cpu_run, i - run);
			run = i;
			before = base;
		}
		put_time(c, before, sample->time_unix_nano, period);
		before = sample->time_unix_nano;
		wire_put_varint(&c->thread, sample->thread);
		wire_put_varint(&c->trace, sample->trace);
		wire_put_varint(&c->value, sample->value);
		wire_put_varint(&c->link, sample->link);
		c->has_thread |= sample->thread != 0;
		c->has_value |= sample->value != 1;
		c->has_link |= sample->link != 0;
	}
	wire_put_varint(&c->cpu_run, (uint64_t)samples[count - 1].cpu + 1);
	wire_put_varint(&c->cpu_run, count - run);
}

static struct err *append_column(struct buf *out, uint32_t field, const struct buf *column, bool wanted)
{
	return wanted ? wire_append_bytes(out, field, column->data, column->len) : NULL;
}

struct err *agent_samples_write(struct buf *out, uint32_t type, uint64_t period_ns, bool summed, struct agent_sample *samples, size_t count)
{
	CLEANUP(columns_deinit) struct columns c = {0};
	uint64_t base = count ? samples[0].time_unix_nano : 0;

	if (count == 0)
		return err_new(ERR_INVALID, "no samples");
	qsort(samples, count, sizeof(*samples), by_cpu_and_time);
	for (size_t i = 0; i < count; i++)
		base = samples[i].time_unix_nano < base ? samples[i].time_unix_nano : base;
	TRY(reserve(&c, count));
	put_all(&c, samples, count, base, period_ns);
	TRY(buf_reserve(out, 4 * WIRE_HEAD_MAX));
	wire_put_field(out, SAMPLES_TYPE, type);
	wire_put_tag(out, SAMPLES_BASE_TIME, WIRE_FIXED64);
	memcpy(out->data + out->len, &base, sizeof(base));
	out->len += sizeof(base);
	wire_put_field(out, SAMPLES_PERIOD, period_ns);
	wire_put_field(out, SAMPLES_SUMMED, summed);
	TRY(append_column(out, SAMPLES_CPU_RUN, &c.cpu_run, true));
	TRY(append_column(out, SAMPLES_THREAD, &c.thread, c.has_thread));
	TRY(append_column(out, SAMPLES_TRACE, &c.trace, true));
	TRY(append_column(out, SAMPLES_TIME_STEP, &c.step, c.has_step));
	TRY(append_column(out, SAMPLES_TIME_REST, &c.rest, true));
	TRY(append_column(out, SAMPLES_VALUE, &c.value, c.has_value));
	return append_column(out, SAMPLES_LINK, &c.link, c.has_link);
}
