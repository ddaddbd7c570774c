// SPDX-License-Identifier: Apache-2.0
#include "tests/profiles/fake_samples.h"

#include "base/digest.h"
#include "base/intern.h"

#include <inttypes.h>
#include <stdlib.h>

/* Everything is kept as its text: a number is that of the text. Samples wait until their profile is
 * sure to stay. */
struct samples_batch {
	FILE *out;
	struct intern texts;
	struct buf profile;
	bool has_profile;
};

/* Tests run on memory that suffices. */
static void must(struct err *e)
{
	if (e)
		abort();
}

struct samples_batch *fake_samples_create(FILE *out)
{
	struct samples_batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		abort();
	batch->out = out;
	return batch;
}

static void flush(struct samples_batch *batch)
{
	if (batch->profile.len)
		(void)fwrite(batch->profile.data, 1, batch->profile.len, batch->out);
	batch->profile.len = 0;
	batch->has_profile = false;
}

void fake_samples_destroy(struct samples_batch *batch)
{
	flush(batch);
	intern_deinit(&batch->texts);
	buf_deinit(&batch->profile);
	free(batch);
}

/* The number of a text, plus 1, so that 0 is none; takes the text. */
static uint32_t keep(struct samples_batch *batch, struct buf *take_text)
{
	uint32_t number;

	must(intern_add(&batch->texts, take_text->len ? (const char *)take_text->data : "",
		take_text->len, &number));
	buf_deinit(take_text);
	return number + 1;
}

static const char *text_of(const struct samples_batch *batch, uint32_t number)
{
	return number == SAMPLES_NONE ? "-" : intern_text(&batch->texts, number - 1);
}

static bool is_known(const struct samples_batch *batch, uint32_t number)
{
	return number != 0 && number <= batch->texts.count;
}

static const char *bytes_of(struct samples_text text)
{
	return text.len ? text.bytes : "";
}

struct err *samples_batch_profile(struct samples_batch *batch, const uint8_t key[16])
{
	flush(batch);
	batch->has_profile = true;
	must(buf_printf(&batch->profile, "profile "));
	for (int i = 0; key && i < 16; i++)
		must(buf_printf(&batch->profile, "%02x", key[i]));
	must(buf_printf(&batch->profile, "%s\n", key ? "" : "without key"));
	return NULL;
}

void samples_batch_drop_profile(struct samples_batch *batch)
{
	batch->profile.len = 0;
}

struct err *samples_batch_type(
	struct samples_batch *batch, const struct samples_type *type, uint32_t *ret)
{
	struct buf text = {0};

	must(buf_printf(&text, "%.*s:%.*s:%.*s:%.*s:%" PRId64, (int)type->type.len,
		bytes_of(type->type), (int)type->unit.len, bytes_of(type->unit),
		(int)type->period_type.len, bytes_of(type->period_type), (int)type->period_unit.len,
		bytes_of(type->period_unit), type->period));
	*ret = keep(batch, &text);
	return NULL;
}

struct err *samples_batch_labels(struct samples_batch *batch, uint32_t parent,
	const struct samples_label *labels, size_t count, uint32_t *ret)
{
	struct buf text = {0};

	if (parent != SAMPLES_NONE)
		must(buf_printf(&text, "%s", text_of(batch, parent)));
	for (size_t i = 0; i < count; i++)
		must(buf_printf(&text, "%s%.*s=%.*s", text.len ? "," : "", (int)labels[i].key.len,
			bytes_of(labels[i].key), (int)labels[i].value.len,
			bytes_of(labels[i].value)));
	*ret = keep(batch, &text);
	return NULL;
}

struct err *samples_batch_mapping(
	struct samples_batch *batch, const struct samples_mapping *mapping, uint32_t *ret)
{
	struct buf text = {0};
	char id[FILEID_HEX_SIZE], build_id[BUILD_ID_HEX_SIZE];

	fileid_format_hex(&mapping->file_id, id);
	build_id_format(&mapping->build_id, build_id);
	must(buf_printf(&text, "%.*s[%s %s %.*s 0x%" PRIx64 "-0x%" PRIx64 "@0x%" PRIx64 "]",
		(int)mapping->name.len, bytes_of(mapping->name), id, build_id,
		(int)mapping->go_build_id.len, bytes_of(mapping->go_build_id),
		mapping->memory_start, mapping->memory_limit, mapping->file_offset));
	*ret = keep(batch, &text);
	return NULL;
}

struct err *samples_batch_expect(struct samples_batch *batch, uint32_t functions, uint32_t locations, uint32_t traces)
{
	(void)batch;
	(void)functions;
	(void)locations;
	(void)traces;
	return NULL;
}

/* Locations bring the texts of their lines. */
struct err *samples_batch_function(struct samples_batch *batch, const struct samples_line *line, uint32_t *ret)
{
	(void)batch;
	(void)line;
	*ret = 0;
	return NULL;
}

struct err *samples_batch_location(
	struct samples_batch *batch, const struct samples_location *location, uint32_t *ret)
{
	static const char *const kinds[] = {"native", "kernel", "interpreted"};
	struct buf text = {0};

	if (location->line_count > SAMPLES_LINES_MAX)
		return err_new(ERR_LIMIT, "too many lines");
	if (location->mapping != SAMPLES_NONE && !is_known(batch, location->mapping))
		return err_new(ERR_INVALID, "no such mapping");
	must(buf_printf(&text, "%s 0x%" PRIx64 " %s", kinds[location->kind], location->address,
		text_of(batch, location->mapping)));
	for (uint32_t i = 0; i < location->line_count; i++) {
		const struct samples_line *line = &location->lines[i];
		must(buf_printf(&text, " {%.*s|%.*s|%.*s:%u:%u from %u}", (int)line->function.len,
			bytes_of(line->function), (int)line->system_name.len,
			bytes_of(line->system_name), (int)line->file.len, bytes_of(line->file),
			line->line, line->column, line->start_line));
	}
	*ret = keep(batch, &text);
	return NULL;
}

struct err *samples_batch_trace(
	struct samples_batch *batch, const uint32_t *locations, uint32_t depth, uint32_t *ret)
{
	struct buf text = {0};

	if (depth > PROFILE_MAX_DEPTH)
		return err_new(ERR_LIMIT, "too deep");
	for (uint32_t i = 0; i < depth; i++) {
		if (!is_known(batch, locations[i]))
			return err_new(ERR_INVALID, "no such location");
		must(buf_printf(&text, "%s%s", i ? "; " : "", text_of(batch, locations[i])));
	}
	*ret = keep(batch, &text);
	return NULL;
}

void samples_trace_hash(const struct samples_batch *batch, uint32_t trace, uint8_t ret[16])
{
	const char *text = text_of(batch, trace);

	digest_xxh3_128(text, strlen(text), ret);
}

struct err *samples_batch_link(struct samples_batch *batch, const uint8_t trace_id[16],
	const uint8_t span_id[8], uint32_t *ret)
{
	struct buf text = {0};

	for (int i = 0; i < 16; i++)
		must(buf_printf(&text, "%02x", trace_id[i]));
	must(buf_printf(&text, "/"));
	for (int i = 0; i < 8; i++)
		must(buf_printf(&text, "%02x", span_id[i]));
	*ret = keep(batch, &text);
	return NULL;
}

struct err *samples_batch_add(struct samples_batch *batch, const struct samples_sample *sample)
{
	if (!batch->has_profile || !is_known(batch, sample->trace) ||
		!is_known(batch, sample->labels) || !is_known(batch, sample->type))
		return err_new(ERR_INVALID, "a number that this batch did not give");
	must(buf_printf(&batch->profile,
		"%s %" PRIu64 "%s %" PRIu64 " cpu %d link %s labels %s stack ",
		text_of(batch, sample->type), sample->time_unix_nano, sample->exact ? "" : " about",
		sample->value, sample->cpu, sample->link ? text_of(batch, sample->link) : "-",
		text_of(batch, sample->labels)));
	must(buf_printf(&batch->profile, "%s\n", text_of(batch, sample->trace)));
	return NULL;
}
