// SPDX-License-Identifier: Apache-2.0
/*
 * What the agent reads itself of strangers' executables, outside of the sandbox: the file ID, and the head (ELF header, program headers, notes).
 * The head must keep its limits, and be the same that the sandboxed reader of the whole file sees. Also what fits it badly: an address
 * looked up in the segments.
 */
#include "agent/unwind/elf_image.h"
#include "fileid/fileid.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_head(const struct unwind_elf *head, const uint8_t *data, size_t size)
{
	uint64_t vaddr = 0, foff = 0;

	if (head->segments.count > LOAD_SEGMENTS_MAX || head->build_id.len > BUILD_ID_MAX)
		abort();
	for (size_t i = 0; i < head->segments.count; i++)
		(void)load_segments_vaddr(&head->segments, head->segments.items[i].foff, &vaddr);
	memcpy(&foff, data, size < sizeof(foff) ? size : sizeof(foff));
	(void)load_segments_vaddr(&head->segments, foff, &vaddr);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct unwind_source source = {.fd = -1, .bytes = data, .len = size, .name = "fuzz"};
	struct unwind_elf head, whole;
	struct fileid file_id;

	err_free(fileid_from_memory(data, size, &file_id));
	struct err *e = unwind_elf_read_head(&source, &head);
	if (!e) {
		check_head(&head, data, size);
		e = unwind_elf_read(&source, &whole);
		if (!e) {
			if (!build_id_equal(&head.build_id, &whole.build_id) || head.segments.count != whole.segments.count)
				abort();
			unwind_elf_deinit(&whole);
		}
		unwind_elf_deinit(&head);
	}
	err_free(e);
	return 0;
}
