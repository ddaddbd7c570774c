// SPDX-License-Identifier: Apache-2.0
/*
 * A dictionary of what samples name: texts, types, label sets, mappings, lines, locations, links, and stacks as a tree of
 * (parent node, location). Everything is held once and has a dense number; numbers are given in order of first sight and never
 * change, so that a dictionary grows by appending and a block holds what came since the block before. A batch has one, each
 * partition has one, and a query makes one of the partitions that it reads.
 *
 * A table but that of nodes is a list of byte records; dict.c has their layouts. Equality of records is equality of bytes.
 */
#ifndef CAIRN_PROFILES_DICT_H
#define CAIRN_PROFILES_DICT_H

#include "base/buf.h"
#include "base/hmap.h"
#include "base/reader.h"
#include "profiles/samples.h"

enum dict_table {
	DICT_TEXTS, /* 0 is "" */
	DICT_TYPES,
	DICT_LABELS,
	DICT_MAPPINGS,
	DICT_LINES,
	DICT_LOCATIONS,
	DICT_LINKS, /* 0 is none */
	DICT_TABLES,
};

enum {
	DICT_NODES_MAX = 1 << 26,	/* of one dictionary */
	DICT_RECORD_MAX = 4 * SAMPLES_TEXT_MAX,
	DICT_PROBES_MAX = 256, /* records of one hash: more are an attack */
};

struct records {
	struct buf bytes;
	uint32_t *ends; /* of record i in bytes */
	uint32_t count, cap;
	struct hmap index; /* hash -> number, the next hash where it is taken */
};

struct dict {
	struct records tables[DICT_TABLES];
	/* Node 0 is the root: no frame. A parent's number is smaller than its children's. */
	uint32_t *parents, *locations;
	uint32_t node_count, node_cap;
	struct hmap node_index; /* parent << 32 | location -> node, but for nodes that are right behind their parent */
	bool indexed;		/* the indices hold everything; decoding leaves them behind */
};

/* How much of a dictionary there was. */
struct dict_mark {
	uint32_t counts[DICT_TABLES], nodes;
};

/** An empty one: text 0, link 0, node 0. ERR_NOMEM. */
struct err *dict_init(struct dict *ret) MUST_USE;
void dict_deinit(struct dict *dict);
/** For CLEANUP; a zeroed one is fine. */
static inline void dict_deinitp(struct dict *dict)
{
	dict_deinit(dict);
}
/** Memory that it takes. */
size_t dict_bytes(const struct dict *dict);
struct dict_mark dict_mark(const struct dict *dict);
bool dict_mark_equal(const struct dict_mark *a, const struct dict_mark *b);

/** The number of a record. ERR_NOMEM, ERR_LIMIT: past what numbers or buffers hold, or hostile hashes. */
struct err *dict_add(struct dict *dict, enum dict_table table, const void *bytes, size_t len, uint32_t *ret) MUST_USE;
/** The number of a node under @p parent. ERR_NOMEM, ERR_LIMIT. */
struct err *dict_add_node(struct dict *dict, uint32_t parent, uint32_t location, uint32_t *ret) MUST_USE;

/** A record's bytes, borrowed until the next dict_add. @p number must be below the table's count. */
static inline struct samples_text dict_record(const struct dict *dict, enum dict_table table, uint32_t number)
{
	const struct records *r = &dict->tables[table];
	uint32_t start = number ? r->ends[number - 1] : 0;

	/* No bytes at all while every record is empty. */
	return (struct samples_text){r->bytes.data ? (const char *)r->bytes.data + start : NULL, r->ends[number] - start};
}
static inline struct samples_text dict_text(const struct dict *dict, uint32_t number)
{
	return dict_record(dict, DICT_TEXTS, number);
}

/* -------------------------------------------------------------------------------------- records, decoded: text is numbers */

struct dict_type {
	uint32_t type, unit, period_type, period_unit;
	int64_t period;
};

struct dict_labels {
	uint32_t parent; /* SAMPLES_NONE */
	uint32_t count;
	struct dict_label {
		uint32_t key, value;
	} items[SAMPLES_LABELS_MAX];
};

struct dict_mapping {
	struct fileid file_id;
	struct build_id build_id;
	uint32_t go_build_id, name;
	bool has_bias; /* vaddr = file offset + bias, where the sender's addresses are as linked */
	uint64_t bias;
};

struct dict_line {
	uint32_t function, system_name, file;
	uint32_t line, column, start_line;
};

struct dict_location {
	enum profile_frame_kind kind;
	enum samples_address_kind address_kind;
	uint32_t mapping; /* SAMPLES_NONE */
	uint64_t address;
	uint32_t line_count;
	uint32_t lines[SAMPLES_LINES_MAX]; /* numbers of DICT_LINES */
};

struct dict_link {
	uint8_t trace_id[16], span_id[8];
};

struct err *dict_add_type(struct dict *dict, const struct dict_type *type, uint32_t *ret) MUST_USE;
struct err *dict_add_labels(struct dict *dict, const struct dict_labels *labels, uint32_t *ret) MUST_USE;
struct err *dict_add_mapping(struct dict *dict, const struct dict_mapping *mapping, uint32_t *ret) MUST_USE;
struct err *dict_add_line(struct dict *dict, const struct dict_line *line, uint32_t *ret) MUST_USE;
struct err *dict_add_location(struct dict *dict, const struct dict_location *location, uint32_t *ret) MUST_USE;
struct err *dict_add_link(struct dict *dict, const struct dict_link *link, uint32_t *ret) MUST_USE;

/* Decoding cannot fail on what dict_decode let in. */
void dict_get_type(const struct dict *dict, uint32_t number, struct dict_type *ret);
void dict_get_labels(const struct dict *dict, uint32_t number, struct dict_labels *ret);
void dict_get_mapping(const struct dict *dict, uint32_t number, struct dict_mapping *ret);
void dict_get_line(const struct dict *dict, uint32_t number, struct dict_line *ret);
void dict_get_location(const struct dict *dict, uint32_t number, struct dict_location *ret);
void dict_get_link(const struct dict *dict, uint32_t number, struct dict_link *ret);

/* -------------------------------------------------------------------------------------- blocks */

/** Appends the encoding of all that was added since @p from. @p level as zstd's. ERR_NOMEM, ERR_LIMIT. */
struct err *dict_encode(const struct dict *dict, const struct dict_mark *from, int level, struct buf *ret) MUST_USE;
/**
 * Appends what a block holds; it must go on exactly where the dictionary ends. Checks every number in it. Does not index.
 * @return NULL; ERR_FORMAT: malformed, or of another place; ERR_NOMEM, ERR_LIMIT. After an error the dictionary is good for dict_deinit only.
 */
struct err *dict_decode(struct dict *dict, const void *bytes, size_t len) MUST_USE;

/* -------------------------------------------------------------------------------------- from one into another */

/* Numbers of `from` in `to`; filled in as they are asked for. */
struct dict_map {
	const struct dict *from;
	struct dict *to;
	uint32_t *numbers[DICT_TABLES]; /* SAMPLES_NONE: not yet */
	uint32_t *nodes;
};
struct err *dict_map_init(struct dict_map *map, const struct dict *from, struct dict *to) MUST_USE;
void dict_map_deinit(struct dict_map *map);
/** The number in `to` of a record of `from`, with all that it names. Amortized O(1). */
struct err *dict_map_record(struct dict_map *map, enum dict_table table, uint32_t number, uint32_t *ret) MUST_USE;
struct err *dict_map_node(struct dict_map *map, uint32_t node, uint32_t *ret) MUST_USE;

#endif
