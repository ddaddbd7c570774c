// SPDX-License-Identifier: Apache-2.0
/*
 * The writer's text: each distinct string once, and one that ends another ("fgetspent" ends "__GI_fgetspent") inside it. On libc,
 * where most names have such aliases, that takes a fifth off the text. Mangled names never end others and are left out of
 * the search, since jvm has 80,000 of them.
 */
#include "symbolizer/table/writer_parts.h"

struct ending {
	uint64_t last; /* the last 8 characters, the last one highest */
	uint32_t id, len;
	const uint8_t *text;
};

/* By the reversed text, longer ones first where one ends the other. */
static int compare_endings(const void *a, const void *b)
{
	const struct ending *x = a, *y = b;
	if (x->last != y->last)
		return x->last > y->last ? -1 : 1;
	size_t common = x->len < y->len ? x->len : y->len;
	for (size_t i = 9; i <= common; i++) {
		uint8_t cx = x->text[x->len - i], cy = y->text[y->len - i];
		if (cx != cy)
			return cx > cy ? -1 : 1;
	}
	return x->len > y->len ? -1 : x->len < y->len;
}

static struct ending ending_of(const struct writer *w, uint32_t id)
{
	const char *text = intern_text(&w->text, id);
	struct ending e = {.id = id, .len = (uint32_t)strlen(text), .text = (const uint8_t *)text};
	for (uint32_t i = 0; i < 8; i++)
		e.last = e.last << 8 | (i < e.len ? e.text[e.len - 1 - i] : 0);
	return e;
}

static bool ends(const struct ending *text, const struct ending *ending)
{
	return ending->len <= text->len && memcmp(text->text + text->len - ending->len, ending->text, ending->len) == 0;
}

static bool is_mangled(const char *text)
{
	return text[0] == '_' && (text[1] == 'Z' || text[1] == 'R');
}

/* inside[i] becomes the text that text i ends, or i. */
static void find_endings(const struct writer *w, struct ending *endings, uint32_t *inside)
{
	uint32_t count = 0;
	for (uint32_t id = 0; id < w->text.count; id++) {
		inside[id] = id;
		if (!is_mangled(intern_text(&w->text, id)))
			endings[count++] = ending_of(w, id);
	}
	qsort(endings, count, sizeof(*endings), compare_endings);
	for (uint32_t i = 1, whole = 0; i < count; i++) {
		if (ends(&endings[whole], &endings[i]))
			inside[endings[i].id] = endings[whole].id;
		else
			whole = i;
	}
}

struct err *writer_place_text(struct writer *w)
{
	uint32_t count = w->text.count;
	CLEANUP(freep) struct ending *endings = malloc((count + 1) * sizeof(*endings));
	CLEANUP(freep) uint32_t *inside = malloc((count + 1) * sizeof(*inside));
	w->text_offset = malloc((count + 1) * sizeof(*w->text_offset));
	if (!endings || !inside || !w->text_offset)
		return err_nomem();
	find_endings(w, endings, inside);
	TRY(buf_reserve(&w->text_bytes, w->text.blob.len + 1));
	buf_put_u8(&w->text_bytes, 0); /* the first text is the empty one */
	for (uint32_t id = 0; id < count; id++) {
		const char *text = intern_text(&w->text, id);
		if (inside[id] != id || !*text)
			continue;
		w->text_offset[id] = (uint32_t)w->text_bytes.len;
		TRY(buf_append(&w->text_bytes, text, strlen(text) + 1));
	}
	for (uint32_t id = 0; id < count; id++) {
		const char *text = intern_text(&w->text, id);
		if (!*text)
			w->text_offset[id] = 0;
		else if (inside[id] != id)
			w->text_offset[id] = w->text_offset[inside[id]] +
				(uint32_t)(strlen(intern_text(&w->text, inside[id])) - strlen(text));
	}
	return NULL;
}
