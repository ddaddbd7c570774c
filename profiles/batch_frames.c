// SPDX-License-Identifier: Apache-2.0
/*
 * Mappings, locations and traces of a batch.
 *
 * Addresses are brought to one form here (design section 3): a native one with load facts is a file offset, else as linked; so that one
 * frame is one location whatever process it was seen in.
 *
 * Everything has a digest over what it is: a mapping over its IDs and name, a location over its kind, address, mapping and lines, a trace over
 * its locations. A trace that a partition has seen is found by its digest alone, so that of a report that looks like the one before
 * hardly a frame is looked up. XXH3 can be made to collide: whoever does so misnames stacks of his own tenant, which he could send as well.
 */
#include "profiles/samples_internal.h"

#include "base/digest.h"

enum {
	LINKED_MAX_SHIFT = 40, /* Linux puts shared objects and PIEs far above 2^40; addresses as linked are below */
	CHECK_EVERY = 256,
	HINT_MAX = 1 << 15,
};

size_t batch_frames_bytes(const struct batch_frames *f)
{
	size_t index = f->trace_index.slots ? (f->trace_index.mask + 1) * sizeof(*f->trace_index.slots) : 0;

	return f->mapping_cap * sizeof(*f->mappings) + f->function_cap * sizeof(*f->functions) + f->location_cap * sizeof(*f->locations) +
		f->digest_cap * sizeof(*f->location_digests) + f->line_cap * sizeof(*f->lines) + f->stack_cap * sizeof(*f->stacks) +
		f->trace_cap * sizeof(*f->traces) + f->text.cap + index;
}

void batch_frames_deinit(struct batch_frames *f)
{
	free(f->mappings);
	free(f->locations);
	free(f->location_digests);
	free(f->functions);
	free(f->lines);
	free(f->stacks);
	free(f->traces);
	free(f->scratch);
	hmap_deinit(&f->trace_index);
	buf_deinit(&f->text);
	*f = (struct batch_frames){0};
}

/* The next power of two above, at most HINT_MAX: what a message claims is believed so far. */
static size_t hinted(uint32_t count)
{
	size_t room = 64;

	while (room < count && room < HINT_MAX)
		room *= 2;
	return room;
}

struct err *samples_batch_expect(struct samples_batch *batch, uint32_t functions, uint32_t locations, uint32_t traces)
{
	struct batch_frames *f = &batch->frames;
	size_t room = hinted(locations);

	TRY(batch_grow((void **)&f->functions, hinted(functions) - 1, &f->function_cap, sizeof(*f->functions)));
	TRY(batch_grow((void **)&f->lines, room - 1, &f->line_cap, sizeof(*f->lines)));
	TRY(batch_grow((void **)&f->locations, room - 1, &f->location_cap, sizeof(*f->locations)));
	TRY(batch_grow((void **)&f->location_digests, room - 1, &f->digest_cap, sizeof(*f->location_digests)));
	TRY(batch_grow((void **)&f->traces, hinted(traces) - 1, &f->trace_cap, sizeof(*f->traces)));
	return hmap_reserve(&f->trace_index, hinted(traces) < traces ? hinted(traces) : traces);
}

/* What is hashed: gathered in frames.text, which keeps its room. */
static struct err *feed(struct samples_batch *batch, const void *bytes, size_t len)
{
	return len ? buf_append(&batch->frames.text, bytes, len) : NULL;
}

static struct err *feed_text(struct samples_batch *batch, struct samples_text text)
{
	uint32_t len = (uint32_t)text.len;

	TRY(feed(batch, &len, sizeof(len)));
	return feed(batch, text.bytes, text.len);
}

static void finish_digest(struct samples_batch *batch, struct batch_digest *ret)
{
	digest_xxh3_128(batch->frames.text.data, batch->frames.text.len, ret->bytes);
	batch->frames.text.len = 0;
}

/* -------------------------------------------------------------------------------------- mappings */

static struct err *digest_mapping(struct samples_batch *batch, const struct samples_mapping *mapping, const struct dict_mapping *record,
	struct batch_digest *ret)
{
	uint64_t facts[] = {record->bias, record->has_bias, record->build_id.len};

	batch->frames.text.len = 0;
	TRY(feed(batch, facts, sizeof(facts)));
	TRY(feed(batch, &record->file_id, sizeof(record->file_id)));
	TRY(feed(batch, record->build_id.bytes, record->build_id.len));
	TRY(feed_text(batch, mapping->go_build_id));
	TRY(feed_text(batch, mapping->name));
	finish_digest(batch, ret);
	return NULL;
}

struct err *samples_batch_mapping(struct samples_batch *batch, const struct samples_mapping *mapping, uint32_t *ret)
{
	struct batch_frames *f = &batch->frames;
	struct dict_mapping record = {.file_id = mapping->file_id, .build_id = mapping->build_id};
	struct batch_mapping facts = {.memory_start = mapping->memory_start,
		.memory_limit = mapping->memory_limit,
		.file_offset = mapping->file_offset,
		.is_loaded = mapping->memory_start || mapping->memory_limit || mapping->file_offset};

	if (record.build_id.len > BUILD_ID_MAX)
		return err_new(ERR_INVALID, "a build ID of %u bytes", record.build_id.len);
	TRY(batch_add_text(batch, mapping->go_build_id, &record.go_build_id));
	TRY(batch_add_text(batch, mapping->name, &record.name));
	record.has_bias = facts.is_loaded && facts.memory_start >> LINKED_MAX_SHIFT == 0;
	record.bias = record.has_bias ? facts.memory_start - facts.file_offset : 0;
	TRY(digest_mapping(batch, mapping, &record, &facts.digest));
	TRY(batch_grow((void **)&f->mappings, f->mapping_count, &f->mapping_cap, sizeof(*f->mappings)));
	TRY(dict_add_mapping(&batch->dict, &record, &facts.number));
	f->mappings[f->mapping_count] = facts;
	*ret = f->mapping_count++;
	return batch_check_bytes(batch);
}

/* -------------------------------------------------------------------------------------- locations */

/* The one form of an address. foff = address - memory_start + file_offset. */
static void settle_address(const struct batch_mapping *mapping, const struct samples_location *from, struct batch_location *to)
{
	to->address = from->address;
	to->address_kind = from->kind == PROFILE_FRAME_KERNEL ? SAMPLES_ADDRESS_TEXT : SAMPLES_ADDRESS_VADDR;
	if (from->kind != PROFILE_FRAME_NATIVE || !mapping || !mapping->is_loaded)
		return;
	bool below = from->address < mapping->memory_start;
	bool above = mapping->memory_limit && from->address >= mapping->memory_limit;
	if (below || above)
		return;
	to->address = from->address - mapping->memory_start + mapping->file_offset;
	to->address_kind = SAMPLES_ADDRESS_FILE_OFFSET;
}

struct err *samples_batch_function(struct samples_batch *batch, const struct samples_line *line, uint32_t *ret)
{
	struct batch_frames *f = &batch->frames;
	struct batch_function made = {.start_line = line->start_line};

	if (f->function_count == SAMPLES_NONE - 1)
		return err_new(ERR_LIMIT, "a batch of too many functions");
	TRY(batch_add_text(batch, line->function, &made.function));
	TRY(batch_add_text(batch, line->system_name, &made.system_name));
	TRY(batch_add_text(batch, line->file, &made.file));
	f->text.len = 0;
	TRY(feed(batch, &line->start_line, sizeof(line->start_line)));
	TRY(feed_text(batch, line->function));
	TRY(feed_text(batch, line->system_name));
	TRY(feed_text(batch, line->file));
	finish_digest(batch, &made.digest);
	TRY(batch_grow((void **)&f->functions, f->function_count, &f->function_cap, sizeof(*f->functions)));
	f->functions[f->function_count] = made;
	*ret = f->function_count++;
	return batch_check_bytes(batch);
}

/* A line into the batch. */
static struct err *add_line(struct samples_batch *batch, const struct samples_line *line)
{
	struct batch_frames *f = &batch->frames;
	struct batch_line made = {.function = line->known_function - 1, .line = line->line, .column = line->column};

	if (line->known_function > f->function_count)
		return err_new(ERR_INVALID, "function %u of %u", line->known_function - 1, f->function_count);
	if (line->known_function == 0)
		TRY(samples_batch_function(batch, line, &made.function));
	TRY(batch_grow((void **)&f->lines, f->line_count, &f->line_cap, sizeof(*f->lines)));
	f->lines[f->line_count++] = made;
	return NULL;
}

/* What is hashed of a location and of its first line, which most have alone. */
struct location_facts {
	uint64_t address;
	uint32_t kinds, line_count;
	struct batch_digest mapping;
	struct line_facts {
		uint32_t line, column;
		struct batch_digest function;
	} line;
};

static struct line_facts line_facts(const struct batch_frames *f, size_t number)
{
	const struct batch_line *line = &f->lines[number];

	return (struct line_facts){line->line, line->column, f->functions[line->function].digest};
}

static struct err *digest_location(struct samples_batch *batch, const struct batch_location *location, struct location_facts *facts,
	struct batch_digest *ret)
{
	const struct batch_frames *f = &batch->frames;

	if (location->line_count > 0)
		facts->line = line_facts(f, location->first_line);
	if (location->line_count <= 1) {
		digest_xxh3_128(facts, location->line_count ? sizeof(*facts) : offsetof(struct location_facts, line), ret->bytes);
		return NULL;
	}
	batch->frames.text.len = 0;
	TRY(feed(batch, facts, sizeof(*facts)));
	for (uint32_t i = 1; i < location->line_count; i++) {
		struct line_facts more = line_facts(f, location->first_line + i);
		TRY(feed(batch, &more, sizeof(more)));
	}
	finish_digest(batch, ret);
	return NULL;
}

static struct err *check_location(const struct samples_batch *batch, const struct samples_location *location)
{
	if (location->mapping != SAMPLES_NONE && location->mapping >= batch->frames.mapping_count)
		return err_new(ERR_INVALID, "mapping %u of %u", location->mapping, batch->frames.mapping_count);
	if (location->line_count > SAMPLES_LINES_MAX)
		return err_new(ERR_LIMIT, "a location of %u lines, %d at most", location->line_count, SAMPLES_LINES_MAX);
	if ((unsigned)location->kind > PROFILE_FRAME_INTERPRETED)
		return err_new(ERR_INVALID, "a frame of kind %u", location->kind);
	if (batch->frames.line_count > UINT32_MAX - SAMPLES_LINES_MAX || batch->frames.location_count == SAMPLES_NONE)
		return err_new(ERR_LIMIT, "a batch of too many locations or lines");
	return NULL;
}

struct err *samples_batch_location(struct samples_batch *batch, const struct samples_location *location, uint32_t *ret)
{
	struct batch_frames *f = &batch->frames;
	struct location_facts facts = {0};

	TRY(check_location(batch, location));
	const struct batch_mapping *mapping = location->mapping == SAMPLES_NONE ? NULL : &f->mappings[location->mapping];
	struct batch_location made = {.mapping = mapping ? mapping->number : SAMPLES_NONE,
		.first_line = (uint32_t)f->line_count,
		.line_count = (uint16_t)location->line_count,
		.kind = (uint8_t)location->kind};
	settle_address(mapping, location, &made);
	facts.address = made.address;
	facts.kinds = (uint32_t)made.kind << 8 | made.address_kind;
	facts.line_count = made.line_count;
	if (mapping)
		facts.mapping = mapping->digest;
	TRY(batch_grow((void **)&f->locations, f->location_count, &f->location_cap, sizeof(*f->locations)));
	TRY(batch_grow((void **)&f->location_digests, f->location_count, &f->digest_cap, sizeof(*f->location_digests)));
	for (uint32_t i = 0; i < location->line_count; i++)
		TRY(add_line(batch, &location->lines[i]));
	TRY(digest_location(batch, &made, &facts, &f->location_digests[f->location_count]));
	f->locations[f->location_count] = made;
	*ret = f->location_count++;
	return made.line_count > 1 || *ret % CHECK_EVERY == 0 ? batch_check_bytes(batch) : NULL;
}

/* -------------------------------------------------------------------------------------- traces */

static uint64_t first_half(const struct batch_digest *digest)
{
	uint64_t half;

	memcpy(&half, digest->bytes, sizeof(half));
	return half;
}

/* The trace with this digest, or SAMPLES_NONE and the key under which it would be put. */
static struct err *find_trace(const struct batch_frames *f, const struct batch_digest *digest, uint64_t *key_ret, uint32_t *ret)
{
	uint64_t key = first_half(digest), number;

	for (unsigned probes = 0; hmap_get(&f->trace_index, key, &number); key++) {
		if (memcmp(&f->traces[number].digest, digest, sizeof(*digest)) == 0) {
			*ret = (uint32_t)number;
			return NULL;
		}
		if (++probes > DICT_PROBES_MAX)
			return err_new(ERR_LIMIT, "%d traces of one hash", DICT_PROBES_MAX);
	}
	*key_ret = key;
	*ret = SAMPLES_NONE;
	return NULL;
}

static struct err *digest_stack(struct batch_frames *f, const uint32_t *locations, uint32_t depth, struct batch_digest *ret)
{
	if (!f->scratch) {
		f->scratch = malloc(PROFILE_MAX_DEPTH * sizeof(*f->scratch));
		if (!f->scratch)
			return err_nomem();
	}
	for (uint32_t i = 0; i < depth; i++) {
		if (locations[i] >= f->location_count)
			return err_new(ERR_INVALID, "location %u of %u", locations[i], f->location_count);
		f->scratch[i] = f->location_digests[locations[i]];
	}
	digest_xxh3_128(f->scratch, depth * sizeof(*f->scratch), ret->bytes);
	return NULL;
}

struct err *samples_batch_trace(struct samples_batch *batch, const uint32_t *locations, uint32_t depth, uint32_t *ret)
{
	struct batch_frames *f = &batch->frames;
	struct batch_trace made = {.first = f->stack_count, .depth = depth};
	uint64_t key = 0;

	if (depth > PROFILE_MAX_DEPTH)
		return err_new(ERR_LIMIT, "a stack of %u frames, %d at most", depth, PROFILE_MAX_DEPTH);
	TRY(digest_stack(f, locations, depth, &made.digest));
	TRY(find_trace(f, &made.digest, &key, ret));
	if (*ret != SAMPLES_NONE)
		return NULL;
	TRY(batch_grow((void **)&f->traces, f->trace_count, &f->trace_cap, sizeof(*f->traces)));
	TRY(batch_grow((void **)&f->stacks, f->stack_count + depth, &f->stack_cap, sizeof(*f->stacks)));
	TRY(hmap_set(&f->trace_index, key, f->trace_count));
	if (depth > 0)
		memcpy(f->stacks + f->stack_count, locations, depth * sizeof(*locations));
	f->stack_count += depth;
	f->traces[f->trace_count] = made;
	*ret = f->trace_count++;
	return depth > CHECK_EVERY || *ret % CHECK_EVERY == 0 ? batch_check_bytes(batch) : NULL;
}

void samples_trace_hash(const struct samples_batch *batch, uint32_t trace, uint8_t ret[16])
{
	memcpy(ret, batch->frames.traces[trace].digest.bytes, 16);
}

/* -------------------------------------------------------------------------------------- links */

struct err *samples_batch_link(struct samples_batch *batch, const uint8_t trace_id[16], const uint8_t span_id[8], uint32_t *ret)
{
	struct dict_link link;

	memcpy(link.trace_id, trace_id, sizeof(link.trace_id));
	memcpy(link.span_id, span_id, sizeof(link.span_id));
	TRY(dict_add_link(&batch->dict, &link, ret));
	return batch_check_bytes(batch);
}
