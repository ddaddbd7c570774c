// SPDX-License-Identifier: Apache-2.0
#include "worker/input.h"

struct err *input_open(int fd, const char *name, uint64_t limit, struct input *ret)
{
	CLEANUP(input_close) struct input input = {0};

	TRY(image_map(fd, name, &input.file));
	input.elf = input.file;
	input.is_packed = kernel_image_detect(input.file.bytes, input.file.len) != KERNEL_IMAGE_NONE;
	if (input.is_packed) {
		TRY(kernel_image_unpack(input.file.bytes, input.file.len, name, limit, &input.inside));
		input.elf = (struct image){input.inside.elf.data, input.inside.elf.len};
	}
	*ret = input;
	input = (struct input){0};
	return NULL;
}

void input_close(struct input *input)
{
	image_unmap(&input->file);
	kernel_image_deinit(&input->inside);
	*input = (struct input){0};
}
