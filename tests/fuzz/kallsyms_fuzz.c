// SPDX-License-Identifier: Apache-2.0
/* A kallsyms whose lines are anything: names of BPF programs in it are their authors' choice. What is found must be text. */
#include "agent/kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(closep) int fd = memfd_create("kallsyms", MFD_CLOEXEC);
	const struct kernel_module *module = NULL;
	const char *name = NULL;
	struct kernel *kernel = NULL;
	char path[64];
	uint64_t address = 0;

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		return 0;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	struct err *e = kernel_create(path, &kernel);
	if (e) {
		err_free(e);
		return 0;
	}
	/* Addresses that stand in it, and those of its bytes. */
	for (size_t i = 0; i + sizeof(address) <= size && i < 64; i++) {
		memcpy(&address, data + i, sizeof(address));
		if (kernel_lookup(kernel, address, &name, &module) && (!module || strlen(name) > size || strlen(module->name) >= KERNEL_MODULE_NAME_MAX))
			abort();
	}
	kernel_destroy(kernel);
	return 0;
}
