// SPDX-License-Identifier: Apache-2.0
/*
 * A file as the worker was given it and, where a kernel or module lay packed in it, what was inside.
 */
#ifndef CAIRN_WORKER_INPUT_H
#define CAIRN_WORKER_INPUT_H

#include "symbolizer/build/kernel_image.h"
#include "worker/image.h"

struct input {
	struct image file;
	bool is_packed;
	struct kernel_image inside; /* is_packed only */
	struct image elf; /* what to read: borrowed from one of the two. Empty: a bare kernel image, and `inside` says what is known of it */
};

/**
 * Maps the file and unpacks it into memory where there is something packed in it.
 * @param limit  bytes unpacked
 * @return NULL; ERR_FORMAT: empty, damaged; what kernel_image_unpack returns; ERR_OS; ERR_NOMEM.
 */
struct err *input_open(int fd, const char *name, uint64_t limit, struct input *ret) MUST_USE;
/** For CLEANUP too; an empty one is fine. */
void input_close(struct input *input);

#endif
