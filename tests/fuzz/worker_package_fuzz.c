// SPDX-License-Identifier: Apache-2.0
/*
 * A package from a stranger, through ar, libarchive, pairing and the builder, as cairn-worker does it, but without the sandbox.
 * Any error will do; frames go nowhere.
 */
#include "worker/package.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int scratch_fd = -1, null_fd = -1;
	struct output output;

	if (scratch_fd < 0) {
		scratch_fd = memfd_create("scratch", MFD_CLOEXEC);
		null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	}
	struct worker_options options = {
		.mode = WORKER_PACKAGE, .scratch_fd = scratch_fd, .table_bytes = 1 << 20, .unpacked_bytes = 1 << 20, .threads = 1};
	struct image image = {data, size};
	struct package_input input = {.package = &image};
	struct protocol_needs needs;
	if (ftruncate(scratch_fd, 0))
		abort();
	struct err *e = output_init(&output, null_fd);
	if (!e)
		e = package_run(&input, &options, &output, &needs);
	output_deinit(&output);
	err_free(e);
	return 0;
}
