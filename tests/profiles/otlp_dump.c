// SPDX-License-Identifier: Apache-2.0
/*
 * An OTLP request from standard input, as profiles/otlp.c reads it, in the words of
 * tests/profiles/otlp_test.py: otlp_dump read    what the message says, one thing a line otlp_dump
 * intake  what goes to the store (fake_samples.c): one line a sample otlp_dump cuts    both,
 * quietly, for the message cut at every length; prints how many were whole and how many refused
 */
#include "profiles/otlp_intake.h"
#include "tests/profiles/fake_samples.h"

#include <inttypes.h>
#include <stdio.h>

static FILE *out;

static void put_text(struct otlp_text text)
{
	(void)fwrite(text.bytes, 1, text.len, out);
}

static void put_string(const struct otlp_request *request, uint32_t index)
{
	struct otlp_text text = {"", 0};

	if (otlp_string(request, index, &text))
		put_text(text);
	else
		(void)fprintf(out, "?");
}

static void put_attribute(const char *head, const struct otlp_attribute *attribute)
{
	(void)fprintf(out, "%s ", head);
	put_text(attribute->key);
	(void)fprintf(out, "=");
	if (attribute->kind == OTLP_VALUE_TEXT)
		put_text(attribute->text);
	else if (attribute->kind == OTLP_VALUE_INT)
		(void)fprintf(out, "%" PRId64, attribute->number);
	else if (attribute->kind == OTLP_VALUE_BOOL)
		(void)fprintf(out, "%s", attribute->number ? "true" : "false");
	else if (attribute->kind == OTLP_VALUE_DOUBLE)
		(void)fprintf(out, "%g", attribute->real);
	else if (attribute->kind == OTLP_VALUE_BYTES)
		for (size_t i = 0; i < attribute->text.len; i++)
			(void)fprintf(out, "%02x", (uint8_t)attribute->text.bytes[i]);
	(void)fprintf(out, "\n");
}

static void put_attributes(
	const struct otlp_request *request, const char *head, struct wire_repeated indices)
{
	struct otlp_attribute attribute;
	uint64_t index;

	while (wire_repeated_next(&indices, &index)) {
		if (otlp_attribute(request, index, &attribute))
			put_attribute(head, &attribute);
		else
			(void)fprintf(out, "%s ?\n", head);
	}
}

static void put_location(const struct otlp_request *request, uint64_t index)
{
	struct otlp_location location;
	struct otlp_mapping mapping;
	struct otlp_function function;
	struct otlp_line line;

	if (!otlp_location(request, index, &location)) {
		(void)fprintf(out, "location ?\n");
		return;
	}
	(void)fprintf(out, "location 0x%" PRIx64 "\n", location.address);
	put_attributes(request, "location attribute", location.attributes);
	if (location.mapping != OTLP_NONE && otlp_mapping(request, location.mapping, &mapping)) {
		(void)fprintf(out, "mapping 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 " ",
			mapping.memory_start, mapping.memory_limit, mapping.file_offset);
		put_string(request, mapping.filename);
		(void)fprintf(out, "\n");
		put_attributes(request, "mapping attribute", mapping.attributes);
	}
	struct reader lines = wire_reader(location.lines, NULL);

	while (otlp_next_line(&lines, &line)) {
		(void)fprintf(out, "line %" PRId64 ":%" PRId64, line.line, line.column);
		if (otlp_function(request, line.function, &function)) {
			(void)fprintf(out, " ");
			put_string(request, function.name);
			(void)fprintf(out, " ");
			put_string(request, function.system_name);
			(void)fprintf(out, " ");
			put_string(request, function.filename);
			(void)fprintf(out, " %" PRId64, function.start_line);
		}
		(void)fprintf(out, "\n");
	}
}

static void put_numbers(const char *head, struct wire_repeated numbers)
{
	uint64_t number;

	(void)fprintf(out, "%s", head);
	while (wire_repeated_next(&numbers, &number))
		(void)fprintf(out, " %" PRIu64, number);
	(void)fprintf(out, "\n");
}

static void put_stack(const struct otlp_request *request, const struct otlp_profile *profile,
	const struct otlp_sample *sample)
{
	struct wire_repeated indices;
	uint64_t index;

	if (request->layout == OTLP_1_7) {
		indices = profile->location_indices;
		for (uint64_t i = 0; wire_repeated_next(&indices, &index); i++)
			if (i >= sample->locations_first &&
				i - sample->locations_first < sample->locations)
				put_location(request, index);
	} else if (otlp_stack(request, sample->stack, &indices)) {
		while (wire_repeated_next(&indices, &index))
			put_location(request, index);
	} else {
		(void)fprintf(out, "stack ?\n");
	}
}

static void put_hex(const char *head, struct wire_span bytes)
{
	(void)fprintf(out, "%s ", head);
	for (size_t i = 0; i < bytes.len; i++)
		(void)fprintf(out, "%02x", bytes.bytes[i]);
}

static void put_sample(const struct otlp_request *request, const struct otlp_profile *profile,
	const struct otlp_sample *sample)
{
	struct wire_span trace_id, span_id;

	(void)fprintf(out, "sample\n");
	put_stack(request, profile, sample);
	put_attributes(request, "sample attribute", sample->attributes);
	if (sample->link != OTLP_NONE && otlp_link(request, sample->link, &trace_id, &span_id)) {
		put_hex("link", trace_id);
		put_hex("", span_id);
		(void)fprintf(out, "\n");
	}
	put_numbers("values", sample->values);
	put_numbers("timestamps", sample->timestamps);
}

static void put_profile(const struct otlp_request *request, const struct otlp_profile *profile)
{
	struct reader attributes = wire_reader(profile->resource, NULL);
	struct otlp_attribute attribute;
	struct reader samples = wire_reader(profile->body, NULL);
	struct otlp_sample sample;

	(void)fprintf(out, "profile ");
	put_string(request, profile->sample_type.type);
	(void)fprintf(out, " ");
	put_string(request, profile->sample_type.unit);
	(void)fprintf(out, " ");
	put_string(request, profile->period_type.type);
	(void)fprintf(out, " ");
	put_string(request, profile->period_type.unit);
	(void)fprintf(out, " %" PRId64 " %" PRIu64 " %" PRIu64, profile->period,
		profile->time_unix_nano, profile->duration_nano);
	put_hex("", profile->profile_id);
	(void)fprintf(out, "\n");
	while (otlp_next_resource_attribute(request, &attributes, &attribute))
		put_attribute("resource", &attribute);
	put_attributes(request, "profile attribute", profile->attributes);
	while (otlp_next_sample(request, &samples, &sample))
		put_sample(request, profile, &sample);
}

/* 0: read whole; 1: refused. */
static int read_one(const uint8_t *bytes, size_t len)
{
	struct arena arena = {0};
	struct otlp_request request;
	struct otlp_profile profile;
	const char *fault = NULL;
	struct err *e = otlp_open((struct wire_span){bytes, len}, &arena, &request);

	if (e) {
		(void)fprintf(out, "refused: %s\n", err_message(e));
		err_free(e);
		arena_deinit(&arena);
		return 1;
	}
	static const char *const names[] = {"1.7", "1.8", "1.9", "1.10"};
	struct otlp_cursor cursor = {.request = &request};
	(void)fprintf(out, "layout %s\n", names[request.layout]);
	while (otlp_next_profile(&cursor, &profile, &fault)) {
		if (fault)
			(void)fprintf(out, "profile ?\n");
		else
			put_profile(&request, &profile);
	}
	arena_deinit(&arena);
	return 0;
}

static int intake_one(const uint8_t *bytes, size_t len)
{
	struct arena arena = {0};
	struct otlp_request request;
	struct otlp_intake_result result = {0};
	struct samples_batch *batch = fake_samples_create(out);
	struct err *e = otlp_open((struct wire_span){bytes, len}, &arena, &request);

	if (!e)
		e = otlp_intake(&request, &arena, 1700000000000000000, batch, &result);
	fake_samples_destroy(batch);
	if (e)
		(void)fprintf(out, "refused: %s\n", err_message(e));
	else
		(void)fprintf(out,
			"profiles %" PRIu64 " rejected %" PRIu64 " samples %" PRIu64
			" modules %zu %s\n",
			result.profiles, result.rejected_profiles, result.samples,
			result.module_count, result.message);
	int status = e || result.rejected_profiles;
	err_free(e);
	arena_deinit(&arena);
	return status;
}

static int cuts(const struct buf *message)
{
	size_t whole = 0, refused = 0;

	out = fopen("/dev/null", "w");
	if (!out)
		return 1;
	for (size_t len = 0; len <= message->len; len++) {
		/* A copy of its own, so that a byte read past the end is seen. */
		uint8_t *copy = malloc(len + 1);
		if (!copy)
			return 1;
		if (len)
			memcpy(copy, message->data, len);
		uint8_t *exact = realloc(copy, len ? len : 1);
		int status = read_one(exact, len) | intake_one(exact, len);
		whole += status == 0;
		refused += status != 0;
		free(exact);
	}
	(void)fclose(out);
	(void)printf("whole %zu refused %zu\n", whole, refused);
	return 0;
}

int main(int argc, char **argv)
{
	CLEANUP(buf_deinit) struct buf message = {0};
	uint8_t piece[65536];
	size_t n;

	out = stdout;
	while ((n = fread(piece, 1, sizeof(piece), stdin)) > 0) {
		struct err *e = buf_append(&message, piece, n);
		if (e) {
			err_free(e);
			return 1;
		}
	}
	if (argc == 2 && strcmp(argv[1], "read") == 0)
		return read_one(message.data, message.len);
	if (argc == 2 && strcmp(argv[1], "intake") == 0)
		return intake_one(message.data, message.len);
	if (argc == 2 && strcmp(argv[1], "cuts") == 0)
		return cuts(&message);
	return 2;
}
