// SPDX-License-Identifier: Apache-2.0
/*
 * LZ4 for codec.c: frames (one behind the other, skippable ones too) and the legacy format, which Linux kernels are packed in.
 */
#ifndef CAIRN_BASE_CODEC_LZ4_H
#define CAIRN_BASE_CODEC_LZ4_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One step's input and output; the step moves them on. */
struct codec_io {
	const uint8_t *in;
	size_t in_len;
	uint8_t *out;
	size_t out_len;
};

struct codec_lz4;

struct err *codec_lz4_create(struct codec_lz4 **ret) MUST_USE;
void codec_lz4_destroy(struct codec_lz4 *lz4);
/**
 * Goes on until input or room for output is used up.
 * @param at_end_ret  whether the input may end here
 * @return NULL; ERR_FORMAT: damaged; ERR_NOMEM.
 */
struct err *codec_lz4_step(struct codec_lz4 *lz4, struct codec_io *io, bool *at_end_ret) MUST_USE;

#endif
