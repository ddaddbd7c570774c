// SPDX-License-Identifier: Apache-2.0
#include "profiles/profile.h"

#include "base/digest.h"

/* Makes room for one more element of an array that grows by half. */
static struct err *grow(void **items, uint32_t count, uint32_t *cap, size_t size)
{
	if (count < *cap)
		return NULL;
	if (count >= PROFILE_NONE / 2)
		return err_new(ERR_LIMIT, "a profile with more than %u elements of a kind", PROFILE_NONE / 2);
	uint32_t bigger = *cap ? *cap + *cap / 2 : 64;
	void *moved = realloc(*items, bigger * size);

	if (!moved)
		return err_nomem();
	*items = moved;
	*cap = bigger;
	return NULL;
}

#define GROW(profile, what)                                                                        \
	grow((void **)&(profile)->what##s, (profile)->what##_count, &(profile)->what##_cap,        \
		sizeof(*(profile)->what##s))

struct err *profile_init(struct profile *ret)
{
	uint32_t empty;

	*ret = (struct profile){0};
	struct err *e = intern_add(&ret->text, "", 0, &empty);
	if (e)
		profile_deinit(ret);
	return e;
}

void profile_deinit(struct profile *profile)
{
	intern_deinit(&profile->text);
	free(profile->mappings);
	free(profile->functions);
	free(profile->frames);
	free(profile->locations);
	free(profile->nodes);
	hmap_deinit(&profile->function_index);
	hmap_deinit(&profile->node_index);
	*profile = (struct profile){0};
}

struct err *profile_text(struct profile *profile, const char *text, size_t len, uint32_t *ret)
{
	return intern_add(&profile->text, text, len, ret);
}

struct err *profile_add_mapping(struct profile *profile, const struct profile_mapping *mapping, uint32_t *ret)
{
	TRY(GROW(profile, mapping));
	*ret = profile->mapping_count;
	profile->mappings[profile->mapping_count++] = *mapping;
	return NULL;
}

static bool function_equal(const struct profile_function *a, const struct profile_function *b)
{
	return a->name == b->name && a->symbol == b->symbol && a->file == b->file && a->start_line == b->start_line;
}

struct err *profile_add_function(struct profile *profile, const struct profile_function *function, uint32_t *ret)
{
	uint64_t key = digest_xxh3_64(function, sizeof(*function));
	uint64_t number;

	/* The map has one value a key: of two functions with one hash, the second tries the keys behind it. */
	for (; hmap_get(&profile->function_index, key, &number); key++)
		if (function_equal(&profile->functions[number], function)) {
			*ret = (uint32_t)number;
			return NULL;
		}
	TRY(GROW(profile, function));
	TRY(hmap_set(&profile->function_index, key, profile->function_count));
	*ret = profile->function_count;
	profile->functions[profile->function_count++] = *function;
	return NULL;
}

struct err *profile_add_location(struct profile *profile, const struct profile_location *location,
	const struct profile_frame *frames, uint32_t frame_count, uint32_t *ret)
{
	if (frame_count == 0)
		return err_new(ERR_INVALID, "a location without frames");
	TRY(GROW(profile, location));
	struct profile_location *added = &profile->locations[profile->location_count];

	*added = *location;
	added->first_frame = profile->frame_count;
	added->frame_count = frame_count;
	for (uint32_t i = 0; i < frame_count; i++) {
		TRY(GROW(profile, frame));
		profile->frames[profile->frame_count++] = frames[i];
	}
	*ret = profile->location_count++;
	return NULL;
}

static struct err *child_node(struct profile *profile, uint32_t parent, uint32_t location, uint32_t *ret)
{
	uint64_t key = (uint64_t)parent << 32 | location, number;

	if (hmap_get(&profile->node_index, key, &number)) {
		*ret = (uint32_t)number;
		return NULL;
	}
	TRY(GROW(profile, node));
	TRY(hmap_set(&profile->node_index, key, profile->node_count));
	*ret = profile->node_count;
	profile->nodes[profile->node_count++] = (struct profile_stack_node){.parent = parent, .location = location};
	return NULL;
}

struct err *profile_add_sample(struct profile *profile, const uint32_t *locations, uint32_t depth, uint64_t value)
{
	uint32_t node = PROFILE_NONE;

	if (depth == 0)
		return err_new(ERR_INVALID, "a sample without a stack");
	if (depth > PROFILE_MAX_DEPTH)
		return err_new(ERR_LIMIT, "a stack of %u frames, %d at most", depth, PROFILE_MAX_DEPTH);
	for (uint32_t i = depth; i-- > 0;) {
		if (locations[i] >= profile->location_count)
			return err_new(ERR_INVALID, "location %u of %u", locations[i], profile->location_count);
		TRY(child_node(profile, node, locations[i], &node));
	}
	profile->nodes[node].self += value;
	profile->total += value;
	return NULL;
}

struct err *profile_add_node(struct profile *profile, uint32_t parent, uint32_t location, uint64_t self, uint32_t *ret)
{
	if (parent != PROFILE_NONE && parent >= profile->node_count)
		return err_new(ERR_INVALID, "node %u of %u", parent, profile->node_count);
	TRY(GROW(profile, node));
	*ret = profile->node_count;
	profile->nodes[profile->node_count++] =
		(struct profile_stack_node){.parent = parent, .location = location, .self = self};
	profile->total += self;
	return NULL;
}
