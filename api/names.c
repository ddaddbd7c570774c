// SPDX-License-Identifier: Apache-2.0
#include "api/names.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/hmap.h"
#include "base/json.h"
#include "symbolizer/table/demangle.h"

#include <string.h>

/*
 * A key is table << 36 | form << 32 | number of the function or file. Tables get small numbers in the order in which they
 * are first used; past the last number everything is forgotten, as past the limit of bytes.
 */
enum { TABLES_MAX = 1 << 16, FORM_PLAIN = 0, FORM_JSON = API_DEMANGLE_COUNT, FORM_FILE = 2 * API_DEMANGLE_COUNT };

struct api_names {
	struct arena arena;
	struct hmap texts;  /* key -> struct api_text * */
	struct hmap tables; /* first 8 bytes of the content address -> number */
	struct sha256 *ids; /* of table i */
	size_t table_count, table_cap;
	size_t limit_bytes;
	uint64_t table; /* in use */
	struct buf scratch, path;
};

struct err *api_names_create(size_t limit_bytes, struct api_names **ret)
{
	struct api_names *names = calloc(1, sizeof(*names));
	if (!names)
		return err_nomem();
	names->limit_bytes = limit_bytes;
	*ret = names;
	return NULL;
}

static void forget(struct api_names *names)
{
	arena_deinit(&names->arena);
	hmap_deinit(&names->texts);
	hmap_deinit(&names->tables);
	names->table_count = 0;
}

void api_names_destroy(struct api_names *names)
{
	if (!names)
		return;
	forget(names);
	free(names->ids);
	buf_deinit(&names->scratch);
	buf_deinit(&names->path);
	free(names);
}

void api_names_destroyp(struct api_names **names)
{
	api_names_destroy(*names);
}

/* Content addresses are as good as random, but nothing may depend on eight bytes of one: a collision takes the next key. */
static bool find_table(const struct api_names *names, const struct sha256 *id, uint64_t *key_ret, uint64_t *number_ret)
{
	uint64_t key;

	memcpy(&key, id->bytes, sizeof(key));
	while (hmap_get(&names->tables, key, number_ret)) {
		if (memcmp(&names->ids[*number_ret], id, sizeof(*id)) == 0)
			return true;
		key++;
	}
	*key_ret = key;
	return false;
}

struct err *api_names_use_table(struct api_names *names, const struct sha256 *id)
{
	uint64_t key;

	if (names->arena.total_bytes > names->limit_bytes || names->table_count == TABLES_MAX)
		forget(names);
	if (find_table(names, id, &key, &names->table))
		return NULL;
	if (names->table_count == names->table_cap) {
		size_t cap = names->table_cap ? names->table_cap * 2 : 16;
		struct sha256 *ids = realloc(names->ids, cap * sizeof(*ids));
		if (!ids)
			return err_nomem();
		names->ids = ids;
		names->table_cap = cap;
	}
	TRY(hmap_set(&names->tables, key, names->table_count));
	names->ids[names->table_count] = *id;
	names->table = names->table_count++;
	return NULL;
}

static const struct api_text *find(const struct api_names *names, uint64_t key)
{
	uint64_t value;

	return hmap_get(&names->texts, key, &value) ? (const struct api_text *)(uintptr_t)value : NULL;
}

static struct err *keep(struct api_names *names, uint64_t key, const void *bytes, size_t len, const struct api_text **ret)
{
	struct api_text *text = arena_alloc(&names->arena, sizeof(*text) + len);
	if (!text)
		return err_nomem();
	text->len = (uint32_t)len;
	if (len)
		memcpy(text->bytes, bytes, len);
	TRY(hmap_set(&names->texts, key, (uintptr_t)text));
	*ret = text;
	return NULL;
}

static uint64_t make_key(const struct api_names *names, unsigned form, uint32_t number)
{
	return names->table << 36 | (uint64_t)form << 32 | number;
}

struct err *api_names_function(struct api_names *names, const struct table_frame *frame, enum api_demangle how,
	const struct api_text **ret)
{
	uint64_t key = make_key(names, FORM_PLAIN + (unsigned)how, frame->function_id);
	const struct api_text *text = find(names, key);
	if (text) {
		*ret = text;
		return NULL;
	}
	static const enum demangle_style styles[API_DEMANGLE_COUNT] = {DEMANGLE_FULL, DEMANGLE_SHORT, DEMANGLE_NONE};
	char out[DEMANGLE_OUT_SIZE];
	const char *name = demangle(frame->function, styles[how], out, sizeof(out));
	return keep(names, key, name, strlen(name), ret);
}

/* The members of the object that was written, with a comma before the first. */
static struct err *keep_members(struct api_names *names, uint64_t key, struct json *json, const struct api_text **ret)
{
	json_object_end(json);
	TRY(json_finish(json));
	names->scratch.data[0] = ',';
	return keep(names, key, names->scratch.data, names->scratch.len - 1, ret);
}

struct err *api_names_function_json(struct api_names *names, const struct table_frame *frame, enum api_demangle how,
	const struct api_text **ret)
{
	uint64_t key = make_key(names, FORM_JSON + (unsigned)how, frame->function_id);
	const struct api_text *text = find(names, key), *name;
	if (text) {
		*ret = text;
		return NULL;
	}
	if (!frame->function[0])
		return keep(names, key, NULL, 0, ret);
	TRY(api_names_function(names, frame, how, &name));
	names->scratch.len = 0;
	struct json json = json_init(&names->scratch);
	size_t symbol_len = strlen(frame->function);
	json_object_begin(&json);
	json_key(&json, "function");
	json_text_n(&json, name->bytes, name->len);
	if (symbol_len != name->len || memcmp(frame->function, name->bytes, symbol_len) != 0) {
		json_key(&json, "symbol");
		json_text_n(&json, frame->function, symbol_len);
	}
	return keep_members(names, key, &json, ret);
}

const char *api_names_separator(const struct table_frame *frame)
{
	size_t len = strlen(frame->dir);

	return len && frame->dir[len - 1] != '/' ? "/" : "";
}

struct err *api_names_file_json(struct api_names *names, const struct table_frame *frame, const struct api_text **ret)
{
	uint64_t key = make_key(names, FORM_FILE, frame->file_id);
	const struct api_text *text = find(names, key);
	if (text) {
		*ret = text;
		return NULL;
	}
	if (!frame->base[0])
		return keep(names, key, NULL, 0, ret);
	names->path.len = 0;
	TRY(buf_printf(&names->path, "%s%s", frame->dir, api_names_separator(frame)));
	TRY(buf_append(&names->path, "", 1));
	names->scratch.len = 0;
	struct json json = json_init(&names->scratch);
	json_object_begin(&json);
	json_key(&json, "file");
	json_text_joined(&json, (const char *)names->path.data, frame->base);
	return keep_members(names, key, &json, ret);
}
