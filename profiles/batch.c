// SPDX-License-Identifier: Apache-2.0
/*
 * Batches: what a decoder brings, held by numbers of the batch's own dictionary, so that handing it in copies nothing and the
 * writer thread only translates numbers. Addresses are brought to one form here (design section 3): a native one with load facts is a
 * file offset, else as linked; so that one frame is one location whatever process it was seen in.
 */
#include "profiles/samples_internal.h"

#include "base/digest.h"

enum {
	LINKED_MAX_SHIFT = 40, /* Linux puts shared objects and PIEs far above 2^40; addresses as linked are below */
	CHECK_EVERY = 1024,
	PROFILES_MAX = 1 << 22,
};

struct err *samples_batch_create(struct samples *samples, uint32_t tenant, struct samples_batch **ret)
{
	CLEANUP(samples_batch_destroyp) struct samples_batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return err_nomem();
	batch->samples = samples;
	batch->tenant = tenant;
	batch->now_ms = samples_now_ms(samples);
	TRY(dict_init(&batch->dict));
	*ret = TAKE_PTR(batch);
	return NULL;
}

void samples_batch_destroy(struct samples_batch *batch)
{
	if (!batch)
		return;
	dict_deinit(&batch->dict);
	free(batch->mappings);
	free(batch->labels_sizes);
	free(batch->items);
	free(batch->profiles);
	free(batch);
}

void samples_batch_destroyp(struct samples_batch **batch)
{
	samples_batch_destroy(*batch);
}

size_t samples_batch_bytes(const struct samples_batch *batch)
{
	return sizeof(*batch) + dict_bytes(&batch->dict) + batch->cap * sizeof(*batch->items) +
		batch->mapping_cap * sizeof(*batch->mappings) + batch->labels_cap * sizeof(*batch->labels_sizes) +
		batch->profile_cap * sizeof(*batch->profiles);
}

static struct err *check_bytes(const struct samples_batch *batch)
{
	size_t bytes = samples_batch_bytes(batch);

	return bytes <= SAMPLES_BATCH_BYTES_MAX ? NULL :
						  err_new(ERR_LIMIT, "a batch of %zu bytes, %d at most", bytes, SAMPLES_BATCH_BYTES_MAX);
}

/* Makes room for one more of an array that doubles. */
static struct err *grow(void **items, size_t count, size_t *cap, size_t size)
{
	if (count < *cap)
		return NULL;
	size_t bigger = *cap ? 2 * *cap : 64;
	void *moved = realloc(*items, bigger * size);

	if (!moved)
		return err_nomem();
	*items = moved;
	*cap = bigger;
	return NULL;
}

struct err *samples_batch_profile(struct samples_batch *batch, const uint8_t key[16])
{
	if (batch->profile_count >= PROFILES_MAX)
		return err_new(ERR_LIMIT, "a batch of more than %d profiles", PROFILES_MAX);
	TRY(grow((void **)&batch->profiles, batch->profile_count, &batch->profile_cap, sizeof(*batch->profiles)));
	struct batch_profile *profile = &batch->profiles[batch->profile_count++];

	*profile = (struct batch_profile){.has_key = key, .first_sample = batch->count};
	if (key)
		memcpy(profile->key, key, sizeof(profile->key));
	return NULL;
}

void samples_batch_drop_profile(struct samples_batch *batch)
{
	if (batch->profile_count == 0)
		return;
	batch->count = batch->profiles[--batch->profile_count].first_sample;
}

/* -------------------------------------------------------------------------------------- texts, types, labels */

/* Cuts at SAMPLES_TEXT_MAX without splitting a UTF-8 sequence. */
static struct samples_text cut(struct samples_text text)
{
	if (text.len <= SAMPLES_TEXT_MAX)
		return text;
	text.len = SAMPLES_TEXT_MAX;
	while (text.len > 0 && ((uint8_t)text.bytes[text.len] & 0xc0) == 0x80)
		text.len--;
	return text;
}

static struct err *add_text(struct samples_batch *batch, struct samples_text text, uint32_t *ret)
{
	text = cut(text);
	if (text.len == 0) {
		*ret = 0;
		return NULL;
	}
	return dict_add(&batch->dict, DICT_TEXTS, text.bytes, text.len, ret);
}

struct err *samples_batch_type(struct samples_batch *batch, const struct samples_type *type, uint32_t *ret)
{
	struct dict_type record = {.period = type->period};

	TRY(add_text(batch, type->type, &record.type));
	TRY(add_text(batch, type->unit, &record.unit));
	TRY(add_text(batch, type->period_type, &record.period_type));
	TRY(add_text(batch, type->period_unit, &record.period_unit));
	TRY(dict_add_type(&batch->dict, &record, ret));
	if (batch->dict.tables[DICT_TYPES].count > BLOCK_TYPES_MAX - 1)
		return err_new(ERR_LIMIT, "a batch of more than %d types", BLOCK_TYPES_MAX - 1);
	return check_bytes(batch);
}

static const struct {
	const char *shorter, *key;
} label_names[] = {
	{"service", SAMPLES_LABEL_SERVICE},
	{"host", SAMPLES_LABEL_HOST},
	{"container", SAMPLES_LABEL_CONTAINER},
	{"pid", SAMPLES_LABEL_PID},
	{"tid", SAMPLES_LABEL_TID},
	{"comm", SAMPLES_LABEL_COMM},
	{"executable", SAMPLES_LABEL_EXECUTABLE},
	{"cpu", SAMPLES_LABEL_CPU},
};

struct samples_text samples_label_key(struct samples_text key)
{
	for (size_t i = 0; i < ARRAY_SIZE(label_names); i++)
		if (key.len == strlen(label_names[i].shorter) && memcmp(key.bytes, label_names[i].shorter, key.len) == 0)
			return (struct samples_text){label_names[i].key, strlen(label_names[i].key)};
	return key;
}

/* Puts a label into a set sorted by the number of its key; the later value of a key wins. */
static void set_put(struct dict_labels *set, struct dict_label label)
{
	uint32_t at = 0;

	while (at < set->count && set->items[at].key < label.key)
		at++;
	if (at < set->count && set->items[at].key == label.key) {
		set->items[at] = label;
		return;
	}
	memmove(&set->items[at + 1], &set->items[at], (set->count - at) * sizeof(label));
	set->items[at] = label;
	set->count++;
}

struct err *samples_batch_labels(struct samples_batch *batch, uint32_t parent, const struct samples_label *labels, size_t count,
	uint32_t *ret)
{
	struct dict_labels set = {.parent = parent};
	uint32_t inherited = 0;

	if (parent != SAMPLES_NONE) {
		if (parent >= batch->dict.tables[DICT_LABELS].count)
			return err_new(ERR_INVALID, "label set %u of %u", parent, batch->dict.tables[DICT_LABELS].count);
		inherited = batch->labels_sizes[parent];
		if (count == 0) {
			*ret = parent;
			return NULL;
		}
	}
	if (count > SAMPLES_LABELS_MAX - inherited)
		return err_new(ERR_LIMIT, "%zu labels, %d at most", inherited + count, SAMPLES_LABELS_MAX);
	for (size_t i = 0; i < count; i++) {
		struct dict_label label;
		TRY(add_text(batch, labels[i].key, &label.key));
		TRY(add_text(batch, labels[i].value, &label.value));
		set_put(&set, label);
	}
	TRY(grow((void **)&batch->labels_sizes, batch->dict.tables[DICT_LABELS].count, &batch->labels_cap, sizeof(*batch->labels_sizes)));
	TRY(dict_add_labels(&batch->dict, &set, ret));
	batch->labels_sizes[*ret] = inherited + set.count;
	return check_bytes(batch);
}

/* -------------------------------------------------------------------------------------- mappings, locations, traces */

struct err *samples_batch_mapping(struct samples_batch *batch, const struct samples_mapping *mapping, uint32_t *ret)
{
	struct dict_mapping record = {.file_id = mapping->file_id, .build_id = mapping->build_id};
	struct batch_mapping facts = {.memory_start = mapping->memory_start,
		.memory_limit = mapping->memory_limit,
		.file_offset = mapping->file_offset,
		.is_loaded = mapping->memory_start || mapping->memory_limit || mapping->file_offset};

	if (record.build_id.len > BUILD_ID_MAX)
		return err_new(ERR_INVALID, "a build ID of %u bytes", record.build_id.len);
	TRY(add_text(batch, mapping->go_build_id, &record.go_build_id));
	TRY(add_text(batch, mapping->name, &record.name));
	record.has_bias = facts.is_loaded && facts.memory_start >> LINKED_MAX_SHIFT == 0;
	record.bias = record.has_bias ? facts.memory_start - facts.file_offset : 0;
	TRY(grow((void **)&batch->mappings, batch->mapping_count, &batch->mapping_cap, sizeof(*batch->mappings)));
	TRY(dict_add_mapping(&batch->dict, &record, &facts.number));
	batch->mappings[batch->mapping_count] = facts;
	*ret = batch->mapping_count++;
	return check_bytes(batch);
}

/* The one form of an address. foff = address - memory_start + file_offset. */
static void settle_address(const struct samples_batch *batch, const struct samples_location *from, struct dict_location *to)
{
	const struct batch_mapping *mapping = from->mapping == SAMPLES_NONE ? NULL : &batch->mappings[from->mapping];

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

static struct err *add_line(struct samples_batch *batch, const struct samples_line *line, uint32_t *ret)
{
	struct dict_line record = {.line = line->line, .column = line->column, .start_line = line->start_line};

	TRY(add_text(batch, line->function, &record.function));
	TRY(add_text(batch, line->system_name, &record.system_name));
	TRY(add_text(batch, line->file, &record.file));
	return dict_add_line(&batch->dict, &record, ret);
}

struct err *samples_batch_location(struct samples_batch *batch, const struct samples_location *location, uint32_t *ret)
{
	struct dict_location record;

	if (location->mapping != SAMPLES_NONE && location->mapping >= batch->mapping_count)
		return err_new(ERR_INVALID, "mapping %u of %u", location->mapping, batch->mapping_count);
	if (location->line_count > SAMPLES_LINES_MAX)
		return err_new(ERR_LIMIT, "a location of %u lines, %d at most", location->line_count, SAMPLES_LINES_MAX);
	if ((unsigned)location->kind > PROFILE_FRAME_INTERPRETED)
		return err_new(ERR_INVALID, "a frame of kind %u", location->kind);
	record.kind = location->kind;
	record.mapping = location->mapping == SAMPLES_NONE ? SAMPLES_NONE : batch->mappings[location->mapping].number;
	record.line_count = location->line_count;
	settle_address(batch, location, &record);
	for (uint32_t i = 0; i < location->line_count; i++)
		TRY(add_line(batch, &location->lines[i], &record.lines[i]));
	TRY(dict_add_location(&batch->dict, &record, ret));
	return check_bytes(batch);
}

struct err *samples_batch_trace(struct samples_batch *batch, const uint32_t *locations, uint32_t depth, uint32_t *ret)
{
	uint32_t node = 0;

	if (depth > PROFILE_MAX_DEPTH)
		return err_new(ERR_LIMIT, "a stack of %u frames, %d at most", depth, PROFILE_MAX_DEPTH);
	for (uint32_t i = depth; i-- > 0;) {
		if (locations[i] >= batch->dict.tables[DICT_LOCATIONS].count)
			return err_new(ERR_INVALID, "location %u of %u", locations[i], batch->dict.tables[DICT_LOCATIONS].count);
		TRY(dict_add_node(&batch->dict, node, locations[i], &node));
	}
	*ret = node;
	return check_bytes(batch);
}

struct err *samples_batch_link(struct samples_batch *batch, const uint8_t trace_id[16], const uint8_t span_id[8], uint32_t *ret)
{
	struct dict_link link;

	memcpy(link.trace_id, trace_id, sizeof(link.trace_id));
	memcpy(link.span_id, span_id, sizeof(link.span_id));
	TRY(dict_add_link(&batch->dict, &link, ret));
	return check_bytes(batch);
}

/* -------------------------------------------------------------------------------------- hashes of traces */

/* A digest that is fed piece by piece: each step hashes the digest so far and a piece, both of fixed form. */
struct chain {
	uint8_t bytes[16 + 80];
};

static void chain_step(struct chain *chain, const void *piece, size_t len)
{
	memcpy(chain->bytes + 16, piece, len);
	digest_xxh3_128(chain->bytes, 16 + len, chain->bytes);
}

static void chain_number(struct chain *chain, uint64_t number)
{
	uint8_t bytes[8];

	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(number >> (56 - 8 * i));
	chain_step(chain, bytes, sizeof(bytes));
}

static void chain_text(struct chain *chain, const struct dict *dict, uint32_t number)
{
	struct samples_text text = dict_text(dict, number);
	uint8_t digest[16];

	digest_xxh3_128(text.bytes, text.len, digest);
	chain_step(chain, digest, sizeof(digest));
}

static void chain_location(struct chain *chain, const struct dict *dict, uint32_t number)
{
	struct dict_location location;
	struct dict_mapping mapping = {0};

	dict_get_location(dict, number, &location);
	if (location.mapping != SAMPLES_NONE)
		dict_get_mapping(dict, location.mapping, &mapping);
	chain_number(chain, (uint64_t)location.kind << 8 | (uint64_t)location.address_kind);
	chain_number(chain, location.address);
	chain_step(chain, mapping.file_id.bytes, FILEID_BYTES);
	chain_step(chain, mapping.build_id.bytes, mapping.build_id.len);
	chain_text(chain, dict, mapping.go_build_id);
	chain_text(chain, dict, mapping.name);
	chain_number(chain, location.line_count);
	for (uint32_t i = 0; i < location.line_count; i++) {
		struct dict_line line;
		dict_get_line(dict, location.lines[i], &line);
		chain_text(chain, dict, line.function);
		chain_text(chain, dict, line.system_name);
		chain_text(chain, dict, line.file);
		chain_number(chain, (uint64_t)line.line << 32 | line.column);
		chain_number(chain, line.start_line);
	}
}

void samples_trace_hash(const struct samples_batch *batch, uint32_t trace, uint8_t ret[16])
{
	struct chain chain = {0};

	for (uint32_t node = trace; node != 0; node = batch->dict.parents[node])
		chain_location(&chain, &batch->dict, batch->dict.locations[node]);
	memcpy(ret, chain.bytes, 16);
}

/* -------------------------------------------------------------------------------------- samples */

/* The number of the hour that a second lies in; false when the batch touches too many. */
static bool hour_of(struct samples_batch *batch, uint32_t second, uint8_t *ret)
{
	uint32_t start = second - second % batch->samples->options.partition_s;

	for (uint32_t i = batch->partition_count; i-- > 0;)
		if (batch->partitions[i] == start) {
			*ret = (uint8_t)i;
			return true;
		}
	if (batch->partition_count == SAMPLES_BATCH_PARTITIONS_MAX)
		return false;
	*ret = (uint8_t)batch->partition_count;
	batch->partitions[batch->partition_count++] = start;
	return true;
}

static struct err *check_sample(const struct samples_batch *batch, const struct samples_sample *sample)
{
	const struct dict *dict = &batch->dict;

	if (batch->profile_count == 0)
		return err_new(ERR_INVALID, "a sample before its profile");
	if (sample->trace >= dict->node_count || sample->labels >= dict->tables[DICT_LABELS].count ||
		sample->type >= dict->tables[DICT_TYPES].count || sample->link >= dict->tables[DICT_LINKS].count)
		return err_new(ERR_INVALID, "trace %u of %u, labels %u of %u, type %u of %u, link %u of %u", sample->trace,
			dict->node_count, sample->labels, dict->tables[DICT_LABELS].count, sample->type,
			dict->tables[DICT_TYPES].count, sample->link, dict->tables[DICT_LINKS].count);
	if (sample->cpu < -1 || sample->cpu > SAMPLES_CPU_MAX)
		return err_new(ERR_INVALID, "CPU %d, %d at most", sample->cpu, SAMPLES_CPU_MAX);
	if (batch->count % CHECK_EVERY == 0)
		return check_bytes(batch);
	return NULL;
}

struct err *samples_batch_add(struct samples_batch *batch, const struct samples_sample *sample)
{
	const struct samples_options *options = &batch->samples->options;
	uint64_t ms = sample->time_unix_nano / 1000000;
	uint8_t hour = 0;

	TRY(check_sample(batch, sample));
	struct batch_profile *profile = &batch->profiles[batch->profile_count - 1];
	if (ms > batch->now_ms + options->future_ms || ms / 1000 > UINT32_MAX) {
		profile->rejected_future++;
		return NULL;
	}
	if (ms + options->keep_ms < batch->now_ms || !hour_of(batch, (uint32_t)(ms / 1000), &hour)) {
		profile->rejected_old++;
		return NULL;
	}
	if (sample->value == 0)
		return NULL;
	TRY(grow((void **)&batch->items, batch->count, &batch->cap, sizeof(*batch->items)));
	batch->items[batch->count++] = (struct batch_sample){.trace = sample->trace,
		.labels = sample->labels,
		.link = sample->link,
		.profile = batch->profile_count - 1,
		.second = (uint32_t)(ms / 1000),
		.ns = (uint32_t)(sample->time_unix_nano % 1000000000),
		.cpu = sample->cpu,
		.type = (uint8_t)sample->type,
		.partition = hour,
		.exact = sample->exact,
		.value = sample->value};
	return NULL;
}
