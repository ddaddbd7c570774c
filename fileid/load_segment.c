// SPDX-License-Identifier: Apache-2.0
#include "fileid/load_segment.h"

#include "fileid/elf_header.h"

#include <elf.h>

enum { LOAD_PAGE_BYTES = 4096 };

struct err *load_segments_from_elf(const void *bytes, size_t len, const char *name, struct load_segments *ret)
{
	struct elf_header header;
	struct load_segments found = {0};

	TRY(elf_header_read(bytes, len, name, &header));
	for (uint32_t i = 0; i < header.program_count; i++) {
		struct elf_segment segment = elf_header_segment(&header, i);
		if (segment.type != PT_LOAD)
			continue;
		if (found.count == LOAD_SEGMENTS_MAX)
			return err_new(ERR_LIMIT, "%s: more than %d PT_LOAD segments", name, LOAD_SEGMENTS_MAX);
		found.items[found.count++] = (struct load_segment){
			.foff = segment.foff,
			.vaddr = segment.vaddr,
			.size = segment.file_size,
			.executable = segment.flags & PF_X,
		};
	}
	*ret = found;
	return NULL;
}

/* Really inside, not only on the page that the segment's first byte shares with what lies before it. */
static bool contains(const struct load_segment *segment, uint64_t foff)
{
	return foff >= segment->foff && foff - segment->foff < segment->size;
}

/* The loader maps whole pages, so bytes before p_offset on its page are reachable through the segment too. */
static bool reaches(const struct load_segment *segment, uint64_t foff)
{
	uint64_t page = segment->foff - segment->foff % LOAD_PAGE_BYTES;

	return segment->size > 0 && (contains(segment, foff) || (foff >= page && foff < segment->foff));
}

static bool is_better(const struct load_segment *a, const struct load_segment *b, uint64_t foff)
{
	if (a->executable != b->executable)
		return a->executable;
	return contains(a, foff) && !contains(b, foff);
}

bool load_segments_vaddr(const struct load_segments *segments, uint64_t foff, uint64_t *ret)
{
	const struct load_segment *best = NULL;

	for (size_t i = 0; i < segments->count; i++) {
		const struct load_segment *segment = &segments->items[i];
		if (reaches(segment, foff) && (!best || is_better(segment, best, foff)))
			best = segment;
	}
	if (!best)
		return false;
	*ret = best->vaddr + (foff - best->foff);
	return true;
}
