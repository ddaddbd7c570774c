// SPDX-License-Identifier: Apache-2.0
/* ELF headers and notes by the identity reader; the first byte of a corpus file is the ELF's own. */
#include "fileid/build_id.h"
#include "fileid/fileid.h"
#include "fileid/load_segment.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct elf_ids ids;
	struct load_segments segments;
	struct fileid id;
	char text[BUILD_ID_HEX_SIZE];

	struct err *e = build_id_from_elf(data, size, "fuzz", &ids);
	if (!e) {
		struct build_id again;
		build_id_format(&ids.gnu, text);
		if (ids.gnu.len > 0 && (!build_id_parse(text, 2U * ids.gnu.len, &again) || !build_id_equal(&again, &ids.gnu)))
			abort();
	}
	err_free(e);
	e = load_segments_from_elf(data, size, "fuzz", &segments);
	if (!e) {
		uint64_t vaddr = 0;
		for (size_t i = 0; i < segments.count; i++)
			(void)load_segments_vaddr(&segments, segments.items[i].foff, &vaddr);
		(void)load_segments_vaddr(&segments, size, &vaddr);
	}
	err_free(e);
	err_free(fileid_from_memory(data, size, &id));
	(void)fileid_parse((const char *)data, size, &id);
	return 0;
}
