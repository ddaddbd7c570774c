// SPDX-License-Identifier: Apache-2.0
/* deb822 stanzas, Release files and APT's sources, from any bytes. */
#include "sources/deb822.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct text all = {(const char *)data, size}, rest = all, stanza, value, word;
	struct release_file file;
	struct apt_repositories *found = calloc(1, sizeof(*found));

	if (!found || size == 0) {
		free(found);
		return 0;
	}
	for (size_t before = rest.len; deb822_next(&rest, &stanza); before = rest.len) {
		if (rest.len >= before || stanza.at < all.at || stanza.at + stanza.len > all.at + all.len)
			abort();
		if (deb822_field(stanza, "Build-Ids", &value))
			while (text_word(&value, &word))
				if (word.len == 0 || word.at < all.at || word.at + word.len > all.at + all.len)
					abort();
		(void)release_find(stanza, "main/binary-amd64/Packages.xz", &file);
	}
	err_free(release_check_dates(all, 1795219200));
	err_free(apt_read_sources(all, "a.sources", found));
	err_free(apt_read_sources(all, "a.list", found));
	for (size_t i = 0; i < found->count; i++) {
		struct apt_repository debug;
		(void)apt_debug_archive(&found->items[i], &debug);
	}
	free(found);
	return 0;
}
