// SPDX-License-Identifier: Apache-2.0
/*
 * Packed kernels and modules: what comes out keeps the limit, begins like an ELF file or is nothing with a build ID, and is the same
 * a second time. The ELF file goes through the ELF reader and the questions that a kernel is asked.
 */
#include "symbolizer/build/kernel.h"
#include "symbolizer/build/kernel_image.h"

#include <stdlib.h>
#include <string.h>

enum { LIMIT = 1 << 18 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_elf(const struct kernel_image *image)
{
	CLEANUP(elffile_closep) struct elffile *file = NULL;
	CLEANUP(err_freep) struct err *e = elffile_open(image->elf.data, image->elf.len, "fuzz", NULL, &file);
	uint64_t text;

	if (!e && kernel_kind(file) != KERNEL_NONE)
		(void)kernel_text(file, &text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(kernel_image_deinit) struct kernel_image image = {0};
	CLEANUP(kernel_image_deinit) struct kernel_image again = {0};
	CLEANUP(err_freep) struct err *e = kernel_image_unpack(data, size, "fuzz", LIMIT, &image);
	CLEANUP(err_freep) struct err *e2 = kernel_image_unpack(data, size, "fuzz", LIMIT, &again);

	if (!e != !e2 || (!e && kernel_image_detect(data, size) == KERNEL_IMAGE_NONE))
		abort();
	if (e)
		return 0;
	if (image.elf.len > LIMIT || image.elf.len != again.elf.len || (image.elf.len == 0) == (image.build_id.len == 0))
		abort();
	if (image.elf.len == 0)
		return 0;
	if (memcmp(image.elf.data, again.elf.data, image.elf.len) != 0 || memcmp(image.elf.data, "\177ELF", 4) != 0)
		abort();
	check_elf(&image);
	return 0;
}
