// SPDX-License-Identifier: Apache-2.0
#include "base/intern.h"

#include "base/random.h"

#include <xxhash.h>

/*
 * A slot holds 32 bits of the hash beside the string's number, so that a miss and a collision of slots cost one
 * cache line, and growing never touches the strings. Offsets are 32 bits: the blob is a buf, under 4 GiB.
 */
enum { INTERN_MIN_SLOTS = 64, INTERN_MIN_STRINGS = 32 };

static struct err *grow_slots(struct intern *intern)
{
	size_t count = intern->slots ? 2 * (intern->slot_mask + 1) : INTERN_MIN_SLOTS;
	struct intern_slot *slots = calloc(count, sizeof(*slots));

	if (!slots)
		return err_nomem();
	if (!intern->slots)
		intern->seed = random_process_seed();
	for (size_t i = 0; intern->slots && i <= intern->slot_mask; i++) {
		struct intern_slot slot = intern->slots[i];
		if (slot.number == 0)
			continue;
		size_t at = slot.hash & (count - 1);
		while (slots[at].number != 0)
			at = (at + 1) & (count - 1);
		slots[at] = slot;
	}
	free(intern->slots);
	intern->slots = slots;
	intern->slot_mask = count - 1;
	return NULL;
}

static struct err *grow_offsets(struct intern *intern)
{
	uint32_t cap = intern->offsets_cap ? intern->offsets_cap : INTERN_MIN_STRINGS;

	if (intern->offsets_cap) {
		if (cap > UINT32_MAX / 2)
			return err_new(ERR_LIMIT, "more than %u different strings", cap);
		cap *= 2;
	}
	uint32_t *offsets = realloc(intern->offsets, cap * sizeof(*offsets));
	if (!offsets)
		return err_nomem();
	intern->offsets = offsets;
	intern->offsets_cap = cap;
	return NULL;
}

static bool is_string(const struct intern *intern, uint32_t id, const char *text, size_t len)
{
	size_t end = id + 1 < intern->count ? intern->offsets[id + 1] : intern->blob.len;
	size_t start = intern->offsets[id];

	return end - start - 1 == len && memcmp(intern->blob.data + start, text, len) == 0;
}

static struct err *append(struct intern *intern, struct intern_slot *slot, uint32_t hash, const char *text, size_t len)
{
	if (intern->count == intern->offsets_cap)
		TRY(grow_offsets(intern));
	TRY(buf_reserve(&intern->blob, len + 1));
	intern->offsets[intern->count] = (uint32_t)intern->blob.len;
	memcpy(intern->blob.data + intern->blob.len, text, len);
	intern->blob.data[intern->blob.len + len] = 0;
	intern->blob.len += len + 1;
	*slot = (struct intern_slot){.hash = hash, .number = ++intern->count};
	return NULL;
}

struct err *intern_add(struct intern *intern, const char *text, size_t len, uint32_t *ret)
{
	if (!text)
		text = "";
	len = strnlen(text, len);
	if (len >= BUF_MAX)
		return err_new(ERR_LIMIT, "a string of %zu bytes", len);
	if (!intern->slots || intern->count >= (intern->slot_mask + 1) / 2)
		TRY(grow_slots(intern));
	uint32_t hash = (uint32_t)(XXH3_64bits_withSeed(text, len, intern->seed) >> 16);

	for (size_t at = hash & intern->slot_mask;; at = (at + 1) & intern->slot_mask) {
		struct intern_slot *slot = &intern->slots[at];
		if (slot->number == 0) {
			TRY(append(intern, slot, hash, text, len));
			*ret = intern->count - 1;
			return NULL;
		}
		if (slot->hash == hash && is_string(intern, slot->number - 1, text, len)) {
			*ret = slot->number - 1;
			return NULL;
		}
	}
}

const char *intern_text(const struct intern *intern, uint32_t id)
{
	return (const char *)intern->blob.data + intern->offsets[id];
}

void intern_deinit(struct intern *intern)
{
	buf_deinit(&intern->blob);
	free(intern->offsets);
	free(intern->slots);
	*intern = (struct intern){0};
}
