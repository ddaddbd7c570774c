// SPDX-License-Identifier: Apache-2.0
/* A package's stanza from a Packages index: what the index keeps of it comes back as it was. */
#include "sources/apt.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct text rest = {(const char *)data, size}, stanza;
	char text[APT_RECORD_SIZE], copy[APT_RECORD_SIZE];
	struct apt_record *record = malloc(2 * sizeof(*record));

	while (record && size && deb822_next(&rest, &stanza)) {
		if (!apt_record_from_stanza(stanza, &record[0]) || !apt_record_write(&record[0], text))
			continue;
		memcpy(copy, text, sizeof(copy));
		if (!apt_record_read(copy, &record[1]) || strcmp(record[0].file, record[1].file) != 0 ||
			strcmp(record[0].self.version, record[1].self.version) != 0 || record[0].promised.size != record[1].promised.size ||
			record[0].of_count != record[1].of_count)
			abort();
		for (size_t i = 0; i < record[0].of_count; i++)
			if (strcmp(record[0].of[i].name, record[1].of[i].name) != 0 || strcmp(record[0].of[i].version, record[1].of[i].version) != 0)
				abort();
	}
	free(record);
	return 0;
}
