// SPDX-License-Identifier: Apache-2.0
#include "profiles/frame_notes.h"

static struct err *find_row(struct frame_notes *notes, struct hmap *index, uint32_t *cap, const struct profile_location *location,
	uint32_t *ret)
{
	uint64_t key = (uint64_t)location->mapping << 32 | location->reason, number;

	if (hmap_get(index, key, &number)) {
		*ret = (uint32_t)number;
		return NULL;
	}
	if (notes->row_count == *cap) {
		uint32_t more = *cap ? 2 * *cap : 16;
		struct frame_unresolved *rows = reallocarray(notes->rows, more, sizeof(*rows));
		if (!rows)
			return err_nomem();
		notes->rows = rows;
		*cap = more;
	}
	TRY(hmap_set(index, key, notes->row_count));
	*ret = notes->row_count++;
	notes->rows[*ret] = (struct frame_unresolved){.mapping = location->mapping, .reason = location->reason};
	return NULL;
}

static struct err *make(const struct profile *profile, struct hmap *index, struct frame_notes *notes)
{
	uint32_t cap = 0, row;

	notes->kinds = malloc((size_t)profile->function_count + 1);
	notes->unresolved = malloc(((size_t)profile->function_count + 1) * sizeof(*notes->unresolved));
	if (!notes->kinds || !notes->unresolved)
		return err_nomem();
	memset(notes->kinds, PROFILE_FRAME_NATIVE, profile->function_count);
	memset(notes->unresolved, 0xff, profile->function_count * sizeof(*notes->unresolved));
	for (uint32_t i = profile->location_count; i-- > 0;) {
		const struct profile_location *location = &profile->locations[i];
		const struct profile_frame *frames = profile->frames + location->first_frame;
		for (uint32_t f = 0; f < location->frame_count; f++)
			notes->kinds[frames[f].function] = (uint8_t)location->kind;
	}
	for (uint32_t i = 0; i < profile->location_count; i++) {
		const struct profile_location *location = &profile->locations[i];
		if (location->symbolized)
			continue;
		TRY(find_row(notes, index, &cap, location, &row));
		notes->rows[row].frames++;
		notes->unresolved[profile->frames[location->first_frame].function] = row;
	}
	return NULL;
}

struct err *frame_notes_make(const struct profile *profile, struct frame_notes *ret)
{
	struct frame_notes notes = {0};
	struct hmap index = {0};

	struct err *e = make(profile, &index, &notes);
	hmap_deinit(&index);
	if (e) {
		frame_notes_deinit(&notes);
		return e;
	}
	*ret = notes;
	return NULL;
}

void frame_notes_deinit(struct frame_notes *notes)
{
	free(notes->kinds);
	free(notes->unresolved);
	free(notes->rows);
	*notes = (struct frame_notes){0};
}
