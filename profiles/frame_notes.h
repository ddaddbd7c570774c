// SPDX-License-Identifier: Apache-2.0
/*
 * What a person wants to know beside the names: which frames are the kernel's or interpreted, and of what has no symbols, why. Frames without
 * symbols are told in rows of a file and a reason, since a file has thousands of them for one reason.
 */
#ifndef CAIRN_PROFILES_FRAME_NOTES_H
#define CAIRN_PROFILES_FRAME_NOTES_H

#include "profiles/profile.h"

struct frame_unresolved {
	uint32_t mapping; /* PROFILE_NONE: none */
	uint32_t reason;  /* text of the profile */
	uint32_t frames;  /* distinct addresses */
};

struct frame_notes {
	/* of each function: the kind of its first location; the row of what has no symbols, PROFILE_NONE for what has */
	uint8_t *kinds;
	uint32_t *unresolved;
	struct frame_unresolved *rows; /* in the order of the profile's locations */
	uint32_t row_count;
};

/** ERR_NOMEM. O(frames). */
struct err *frame_notes_make(const struct profile *profile, struct frame_notes *ret) MUST_USE;
void frame_notes_deinit(struct frame_notes *notes);

#endif
