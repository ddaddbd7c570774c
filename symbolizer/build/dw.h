// SPDX-License-Identifier: Apache-2.0
/*
 * DWARF as the builder reads it: sections as bounded byte spans, the index of units, compiled abbreviations, values of
 * attributes. Everything is offsets into the sections; nothing is allocated per DIE.
 *
 * After dw_open, which reads headers, abbreviations and unit DIEs, a struct dw is read-only: any thread may walk any unit,
 * and a reference from one unit into another (DW_FORM_ref_addr: LTO, dwz) is followed through dw_unit_at. A supplement (dwz's common
 * file) is a second struct dw, of which nothing is walked. The other halves of skeleton units (split DWARF) lie in further ones (split.h),
 * whose addresses and DWARF 4 range lists are this file's.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_DW_H
#define CAIRN_SYMBOLIZER_BUILD_DW_H

#include "base/reader.h"
#include "symbolizer/build/array.h"
#include "symbolizer/build/elf_file.h"
#include "symbolizer/build/runner.h"

#include <stdbool.h>
#include <stdint.h>

/* Sections a missing one of which is an empty reader. */
struct dw_sections {
	struct reader info, abbrev, line, str, line_str, str_offsets, addr, ranges, rnglists;
};

/* The attributes that matter; a value of a DIE is found in its slot. */
enum dw_slot {
	DW_SLOT_NAME,
	DW_SLOT_LINKAGE_NAME,
	DW_SLOT_LOW_PC,
	DW_SLOT_HIGH_PC,
	DW_SLOT_RANGES,
	DW_SLOT_ENTRY_PC,
	DW_SLOT_ORIGIN,
	DW_SLOT_SPECIFICATION,
	DW_SLOT_DECL_FILE,
	DW_SLOT_DECL_LINE,
	DW_SLOT_CALL_FILE,
	DW_SLOT_CALL_LINE,
	DW_SLOT_CALL_COLUMN,
	DW_SLOT_STMT_LIST,
	DW_SLOT_COMP_DIR,
	DW_SLOT_STR_OFFSETS_BASE,
	DW_SLOT_ADDR_BASE,
	DW_SLOT_RNGLISTS_BASE,
	DW_SLOT_DWO_NAME,
	DW_SLOT_DWO_ID,
	DW_SLOT_COUNT,
	DW_SLOT_SKIP = 0xff,
};

struct dw_value {
	uint64_t value; /* number; offset or index of a string, address, list; absolute .debug_info offset of a reference */
	uint16_t form;	/* DW_FORM_, never indirect */
};

struct dw_die {
	uint32_t present; /* bit of each slot that has a value */
	struct dw_value values[DW_SLOT_COUNT];
};

static inline bool dw_has(const struct dw_die *die, enum dw_slot slot)
{
	return (die->present >> slot) & 1;
}

/* What the walk does with a DIE. */
enum dw_kind {
	DW_KIND_PLAIN,	     /* steps over it; its children count */
	DW_KIND_DECLARATION, /* a subprogram without addresses */
	DW_KIND_SUBPROGRAM,
	DW_KIND_INLINED,
	DW_KIND_UNIT,
};

/* One step of an abbreviation's program. */
struct dw_op {
	uint8_t kind;	  /* enum dw_op_kind, in dw_abbrev.c */
	uint8_t slot;	  /* enum dw_slot */
	uint16_t form;
	uint32_t operand; /* bytes to step over; index of an implicit constant */
};

struct dw_abbrev {
	uint64_t code;
	uint8_t kind; /* enum dw_kind */
	bool has_children;
	bool is_fixed;		       /* the attributes are fixed_bytes long: no program needed to step over */
	uint32_t fixed_bytes;
	uint32_t skip_first, skip_count; /* the program that steps over, in ops */
	uint32_t read_first, read_count; /* the one that reads; none for DW_KIND_PLAIN */
};

/* The abbreviations at one offset, compiled for one set of sizes. */
struct dw_abbrevs {
	uint64_t offset; /* in .debug_abbrev */
	uint8_t version_2, address_size, offset_size;
	bool in_sequence;     /* codes are 1, 2, 3..: indexed directly; else sorted, searched */
	struct err *damage;   /* why the table cannot be used; its units are skipped */
	struct ARRAY_OF(struct dw_abbrev) list;
	struct ARRAY_OF(struct dw_op) ops;
	struct ARRAY_OF(int64_t) constants;
};

struct dw_unit {
	uint64_t offset, end; /* [offset, end) in .debug_info, header included */
	uint64_t die_offset;  /* the unit DIE */
	uint64_t abbrev_offset;
	uint16_t version;
	uint8_t type; /* DW_UT_; compile for DWARF 2 to 4 */
	uint8_t address_size, offset_size;
	bool has_low_pc, has_lines, has_ranges;
	const struct dw_abbrevs *abbrevs;
	/* From the unit DIE: */
	uint64_t str_offsets_base, addr_base, rnglists_base;
	uint64_t low_pc; /* base address of range lists */
	uint64_t stmt_list;
	const char *comp_dir; /* "" when there is none; borrowed from a string section or .debug_info */
	struct dw_value low, high, ranges; /* the code that the unit covers */
	bool has_low, has_high;
	/* Split DWARF: the ID that a skeleton and its other half share. */
	bool has_dwo_id;
	uint64_t dwo_id;
	const char *dwo_name;	      /* of a skeleton: the file of the other half, relative to comp_dir. NULL: no skeleton. Borrowed */
	const struct dw_split *split; /* of a skeleton: the other half; NULL: none */
	/* In a split unit: where its parts of shared sections begin. 0 elsewhere. */
	uint64_t info_start, str_offsets_start, rnglists_start;
	uint64_t ranges_base; /* DWARF 4: added to the offsets of range lists, which lie in the skeleton's file */
	struct err *damage; /* why the unit is skipped */
};

/* The other half of a skeleton unit, with the skeleton's bases. */
struct dw_split {
	struct dw *dw;
	struct dw_unit unit; /* a copy: two skeletons may have one ID, but not one list of addresses */
};

struct dwp_index;

struct dw {
	struct dw_sections sections;
	const struct dw *supplement; /* names and DIEs that this file shares with others (dwz); NULL: none */
	const struct dwp_index *index; /* of a .dwp: which parts of its sections a unit has; NULL: it is none */
	struct account *account;
	struct ARRAY_OF(struct dw_unit) units; /* by offset */
	struct ARRAY_OF(struct dw_abbrevs) abbrevs;
	_Atomic uint64_t abbrev_bytes; /* parsed so far, against DW_ABBREV_WORK */
	_Atomic uint64_t range_entries; /* read so far, against DW_RANGE_WORK */
	_Atomic uint64_t line_bytes;	/* decoded so far, against DW_LINE_WORK */
};

/* Limits of work. Honest files share little: what is read twice through overlapping offsets is bounded by these factors. */
enum {
	DW_ABBREV_WORK = 4,	    /* times the size of .debug_abbrev, all tables together */
	DW_RANGE_WORK = 8,	    /* list entries: times the bytes of the range sections, all DIEs together */
	DW_LINE_WORK = 4,	    /* times the size of .debug_line, all tables together */
	DW_WORK_FREE = 1 << 20,	    /* added to each of the above */
	DW_ORIGIN_MAX = 32,	    /* DIEs looked at for one name: abstract origins, specifications */
	DW_INDIRECT_MAX = 4,	    /* DW_FORM_indirect leading to itself */
	DW_TEXT_MAX = 64 * 1024,    /* bytes of a name; a longer one counts as none. As SYMBOL_NAME_MAX */
	DW_LEVELS_MAX = 1 << 16,    /* nested subprograms and inlined calls; lexical blocks do not count */
};

/** Counts @p amount of work; ERR_LIMIT naming @p what past factor * bytes + DW_WORK_FREE. Any thread; the sum decides, not the order. */
struct err *dw_work(_Atomic uint64_t *done, uint64_t amount, uint64_t limit, const char *what) MUST_USE;

/**
 * Indexes the units of @p sections. A unit that is damaged keeps its place and carries why; so do the units after
 * one whose length is nonsense (there is one more entry then, for the rest of the section).
 * @param dw  zeroed, but for its supplement (open, and closed later) and index; dw_close whatever the result
 * @return NULL; ERR_LIMIT; ERR_NOMEM.
 */
struct err *dw_open(struct dw *dw, const struct dw_sections *sections, const struct runner *runner, struct account *account) MUST_USE;
void dw_close(struct dw *dw);

/** The unit that holds the DIE at .debug_info + @p offset, or NULL. O(log units). */
const struct dw_unit *dw_unit_at(const struct dw *dw, uint64_t offset);
/** A reader of a unit's DIEs, at @p offset (which must lie in it); offsets in errors are the section's. */
struct reader dw_unit_reader(const struct dw *dw, const struct dw_unit *unit, uint64_t offset);

/** Compiles the abbreviations at table->offset. Damage is put into table->damage. ERR_LIMIT, ERR_NOMEM. */
struct err *dw_abbrevs_compile(struct dw *dw, struct dw_abbrevs *table) MUST_USE;
void dw_abbrevs_deinit(struct dw_abbrevs *table, struct account *account);
/** dw_abbrev_find for a table whose codes are not 1, 2, 3.. */
const struct dw_abbrev *dw_abbrev_search(const struct dw_abbrevs *table, uint64_t code);

/** Steps over a DIE's attributes. Past the end, or an unknown form met through DW_FORM_indirect: @p r is failed. */
void dw_skip_die(const struct dw_unit *unit, const struct dw_abbrev *abbrev, struct reader *r);
/** Reads the attributes that matter of a DIE whose kind is not plain; a plain one is stepped over. As above. */
void dw_read_die(const struct dw_unit *unit, const struct dw_abbrev *abbrev, struct reader *r, struct dw_die *ret);

/** The text of a string-valued attribute, borrowed from its section; NULL when it leads nowhere, has no end or is longer than DW_TEXT_MAX. */
const char *dw_text(const struct dw *dw, const struct dw_unit *unit, const struct dw_value *value);
/** True and the address of an address-valued attribute; false: another form, or an index out of range. */
bool dw_address(const struct dw *dw, const struct dw_unit *unit, const struct dw_value *value, uint64_t *ret);
/** The address at an index of the unit's part of .debug_addr. */
bool dw_indexed_address(const struct dw *dw, const struct dw_unit *unit, uint64_t index, uint64_t *ret);
/** True and the value of a constant-valued attribute. */
bool dw_constant(const struct dw_value *value, uint64_t *ret);
/* Set in a reference that leads into the supplement. */
static const uint64_t DW_IN_SUPPLEMENT = (uint64_t)1 << 63;

/** True and the offset in .debug_info of a reference within this file, or in the supplement's with DW_IN_SUPPLEMENT set. */
bool dw_reference(const struct dw_value *value, uint64_t *ret);
/** True for a reference or text that lies in a supplement. */
bool dw_is_supplementary(const struct dw_value *value);

/* [low, high) */
struct dw_range {
	uint64_t low, high;
};
struct dw_range_list ARRAY_OF(struct dw_range);

/**
 * Appends the ranges that DW_AT_low_pc, DW_AT_high_pc and DW_AT_ranges of a DIE say, as they stand there: empty, reversed and
 * tombstoned (-1, -2) ones left out.
 * @return NULL; ERR_FORMAT: a list out of bounds or without an end; ERR_LIMIT; ERR_NOMEM. Sources: DWARF 4, 2.17; DWARF 5, 2.17.3.
 */
struct err *dw_die_ranges(struct dw *dw, const struct dw_unit *unit, const struct dw_die *die, struct dw_range_list *ret) MUST_USE;
/** Takes out the ranges that end before they begin; how many these were. */
size_t dw_drop_reversed(struct dw_range_list *list);

/** NULL when the code is not defined. */
static inline const struct dw_abbrev *dw_abbrev_find(const struct dw_abbrevs *table, uint64_t code)
{
	if (__builtin_expect(table->in_sequence, 1))
		return code - 1 < table->list.count ? &table->list.items[code - 1] : NULL;
	return dw_abbrev_search(table, code);
}

#endif
