// SPDX-License-Identifier: Apache-2.0
/*
 * Replays corpora under any compiler: gives each file named by the arguments, and each file in the folders named by them,
 * to the fuzz target. A folder without a file is a failure, so that a corpus that was lost is seen.
 */
#include "base/buf.h"
#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool replay_file(const char *path)
{
	FILE *file = fopen(path, "rbe");
	CLEANUP(buf_deinit) struct buf bytes = {0};

	if (!file) {
		fprintf(stderr, "replay: open %s: %s\n", path, strerror(errno));
		return false;
	}
	for (size_t got = 1; got > 0;) {
		struct err *e = buf_reserve(&bytes, 65536);
		if (e) {
			fprintf(stderr, "replay: %s: %s\n", path, err_message(e));
			err_free(e);
			fclose(file);
			return false;
		}
		got = fread(bytes.data + bytes.len, 1, 65536, file);
		bytes.len += got;
	}
	fclose(file);
	/* A block of exactly that size, so that a sanitizer sees every read behind the end. */
	CLEANUP(freep) uint8_t *exact = malloc(bytes.len ? bytes.len : 1);
	if (!exact)
		return false;
	memcpy(exact, bytes.data, bytes.len);
	(void)LLVMFuzzerTestOneInput(exact, bytes.len);
	return true;
}

static bool replay_folder(const char *path, unsigned *count)
{
	DIR *folder = opendir(path);
	unsigned found = 0;
	bool fine = true;

	if (!folder) {
		fprintf(stderr, "replay: open %s: %s\n", path, strerror(errno));
		return false;
	}
	for (struct dirent *entry; fine && (entry = readdir(folder));) {
		CLEANUP(freep) char *name = NULL;
		if (entry->d_name[0] == '.')
			continue;
		if (asprintf(&name, "%s/%s", path, entry->d_name) < 0) {
			name = NULL;
			fine = false;
			break;
		}
		fine = replay_file(name);
		found++;
	}
	closedir(folder);
	if (fine && found == 0) {
		fprintf(stderr, "replay: %s holds no file\n", path);
		fine = false;
	}
	*count += found;
	return fine;
}

int main(int argc, char **argv)
{
	unsigned count = 0;

	for (int i = 1; i < argc; i++) {
		struct stat status;
		bool is_folder = stat(argv[i], &status) == 0 && S_ISDIR(status.st_mode);
		if (is_folder ? !replay_folder(argv[i], &count) : !replay_file(argv[i]))
			return 1;
		count += !is_folder;
	}
	if (count == 0) {
		fprintf(stderr, "usage: %s FOLDER|FILE...\n", argv[0]);
		return 2;
	}
	printf("replayed %u inputs\n", count);
	return 0;
}
