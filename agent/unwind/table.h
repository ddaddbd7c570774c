// SPDX-License-Identifier: Apache-2.0
/*
 * Rows of call frame information as the compact tables that the unwinder searches (types.h): sorted, equal neighbours
 * merged, gaps of padding closed, cut into pages; and the infos that all executables share.
 */
#ifndef CAIRN_AGENT_UNWIND_TABLE_H
#define CAIRN_AGENT_UNWIND_TABLE_H

#include "agent/unwind/elf_image.h"
#include "agent/unwind/frames.h"
#include "agent/unwind/types.h"
#include "base/err.h"
#include "base/hmap.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	UNWIND_TABLE_ROWS_MAX = 8 << 20, /* of one executable; more is ERR_LIMIT */
	UNWIND_TABLE_PAGES_MAX = 1 << 16, /* 4 GiB of ELF addresses */
	UNWIND_PADDING_MAX = 15,	 /* bytes between functions that are taken as padding: never executed */
	UNWIND_DEBUG_FRAME_FDES = 8,	 /* with fewer FDEs (the C start-up files), a debug file is asked too */
};

/* All different infos. Numbers never change and are never given back. */
struct unwind_infos {
	struct unwind_info *items; /* UNWIND_INFOS_MAX of them, zeroed past count */
	uint32_t count;
	uint64_t dropped; /* infos that no longer fitted: their addresses read as UNWIND_NONE */
	struct hmap index;
};

struct err *unwind_infos_init(struct unwind_infos *ret) MUST_USE;
void unwind_infos_deinit(struct unwind_infos *infos);
/** The number of @p info, UNWIND_NONE past UNWIND_INFOS_MAX (counted). ERR_NOMEM. O(1). */
struct err *unwind_infos_number(struct unwind_infos *infos, const struct unwind_info *info, uint16_t *ret) MUST_USE;

struct unwind_table {
	struct unwind_delta *deltas;
	struct unwind_page *pages; /* first: from this table's own first delta */
	uint64_t page_base;
	uint32_t delta_count, page_count;
	struct frames_counts counts;
};

/**
 * The table of an executable: .eh_frame, .gopclntab, .debug_frame; of its debug file when these hardly say anything
 * (UNWIND_DEBUG_FRAME_FDES). No call frame information at all is no error: delta_count is 0.
 * @param debug  its separate debug file, or NULL
 * @return NULL; ERR_FORMAT: the entry chain is damaged; ERR_LIMIT; ERR_NOMEM. One thread at a time (for @p infos). O(rows log rows).
 */
struct err *unwind_table_build(const struct unwind_elf *elf, const struct unwind_elf *debug, struct unwind_infos *infos, struct unwind_table *ret) MUST_USE;
void unwind_table_deinit(struct unwind_table *table);

/** What holds at an ELF address, a merged push or pop applied; UNWIND_CFA_NONE outside. O(log deltas of a page). */
void unwind_table_lookup(const struct unwind_table *table, const struct unwind_infos *infos, uint64_t vaddr, struct unwind_info *ret);

#endif
